/* SQLite: schema, statements, eviction. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "collector/store_file.h"
#include "collector/store_rollups.h"
#include "collector/store_schema.h"
#include "model/flame.h"

#define EVICT_ROWS "256"
#define VACUUM_PAGES "4000"
#define CHECKPOINT_PAGES 1000       /* of the WAL, written since the last one */
#define ORPHAN_NS (1200 * NS_PER_S) /* longer than an exchange waits for its profile */
#define ORPHAN_STEP_NS (60 * NS_PER_S)

static const char *const sql[STORE_STATEMENTS] = {
    [STORE_INSERT] = "INSERT INTO exchanges(trace, span, route, start_wall_ns, total_ns, status,"
                     " provisional, missing, app_tail_ns, body) VALUES(?,?,?,?,?,?,?,?,?,?)",
    [STORE_DELETE_PROVISIONAL] =
        "DELETE FROM exchanges WHERE trace = ? AND span = ? AND provisional = 1",
    [STORE_ROUTE_INSERT] = "INSERT OR IGNORE INTO routes(name) VALUES(?)",
    [STORE_ROUTE_SELECT] = "SELECT id FROM routes WHERE name = ?",
    [STORE_MINUTE_SELECT] = "SELECT requests, errors, sent, joined, phases_ns, histogram"
                            " FROM route_minutes WHERE minute = ? AND route = ?",
    [STORE_MINUTE_REPLACE] = "INSERT OR REPLACE INTO route_minutes(minute, route, requests, errors,"
                             " sent, joined, phases_ns, histogram) VALUES(?,?,?,?,?,?,?,?)",
    [STORE_SET_LATE] = "UPDATE exchanges SET missing = 'late'"
                       " WHERE trace = ? AND span = ? AND missing IS NOT NULL",
    [STORE_SET_TAIL] = "UPDATE exchanges SET app_tail_ns = ?3"
                       " WHERE trace = ?1 AND span = ?2 AND missing IS NULL",
    [STORE_DROP] = "DELETE FROM exchanges WHERE trace = ?1 AND span = ?2 AND NOT EXISTS"
                   " (SELECT 1 FROM pins WHERE trace = ?1 AND span = ?2)",
    [STORE_PIN] = "INSERT OR IGNORE INTO pins(trace, span, pinned_s) VALUES(?,?,?)",
    [STORE_UNPIN] = "DELETE FROM pins WHERE trace = ? AND span = ?",
    [STORE_PIN_COUNT] = "SELECT count(*) FROM pins",
    [STORE_PINS_AGE] = "DELETE FROM pins WHERE pinned_s < ?",
    [STORE_DETAIL_REPLACE] =
        "INSERT OR REPLACE INTO details(trace, span, came_wall_ns, body) VALUES(?,?,?,?)",
    [STORE_DETAIL_GONE] =
        "INSERT OR IGNORE INTO details(trace, span, came_wall_ns, body) VALUES(?,?,?,NULL)",
    [STORE_EVICT_ORPHANS] =
        "DELETE FROM details WHERE came_wall_ns >= ?1 AND came_wall_ns < ?2 AND NOT EXISTS"
        " (SELECT 1 FROM exchanges x WHERE x.trace = details.trace AND x.span = details.span)",
    [STORE_EVICT_OLDEST] = "DELETE FROM exchanges WHERE id IN (SELECT x.id FROM exchanges x"
                           " WHERE NOT EXISTS (SELECT 1 FROM pins p WHERE p.trace = x.trace AND"
                           " p.span = x.span) ORDER BY x.id LIMIT " EVICT_ROWS ")",
    [STORE_EVICT_PINNED] = "DELETE FROM exchanges WHERE id IN (SELECT id FROM exchanges"
                           " ORDER BY id LIMIT " EVICT_ROWS ")",
    [STORE_EVICT_AGE] = "DELETE FROM exchanges WHERE id IN (SELECT id FROM exchanges"
                        " WHERE start_wall_ns < ? ORDER BY start_wall_ns LIMIT " EVICT_ROWS ")",
    [STORE_EVICT_MINUTES_OLDEST] =
        "DELETE FROM route_minutes WHERE (minute, route) IN"
        " (SELECT minute, route FROM route_minutes ORDER BY minute, route LIMIT " EVICT_ROWS ")",
    [STORE_EVICT_MINUTES_AGE] =
        "DELETE FROM route_minutes WHERE (minute, route) IN (SELECT minute, route"
        " FROM route_minutes WHERE minute < ? ORDER BY minute, route LIMIT " EVICT_ROWS ")",
    [STORE_ROLLUP_SELECT] =
        "SELECT body FROM rollups WHERE route = ? AND start_s = ? AND level = ?",
    [STORE_ROLLUP_REPLACE] =
        "INSERT OR REPLACE INTO rollups(route, start_s, level, body) VALUES(?,?,?,?)",
    [STORE_ROLLUP_OLDEST] = "SELECT route, start_s FROM rollups WHERE level = ? AND start_s < ?"
                            " ORDER BY start_s LIMIT 1",
    [STORE_ROLLUP_RANGE] = "SELECT body FROM rollups WHERE route = ? AND start_s >= ?"
                           " AND start_s < ? AND level IN (?, ?)",
    [STORE_ROLLUP_DELETE] = "DELETE FROM rollups WHERE route = ? AND start_s >= ?"
                            " AND start_s < ? AND level IN (?, ?)",
    [STORE_ROLLUP_EVICT] =
        "DELETE FROM rollups WHERE rowid IN (SELECT rowid FROM rollups"
        " WHERE level = ? AND start_s < ? ORDER BY start_s LIMIT " EVICT_ROWS ")",
    [STORE_ROLLUP_BYTES] = "SELECT total(length(body)) FROM rollups",
    [STORE_MINUTES_RANGE] = "SELECT requests, errors, sent, joined, phases_ns, histogram"
                            " FROM route_minutes WHERE minute >= ? AND minute < ? AND route = ?",
    [STORE_MINUTES_DELETE] =
        "DELETE FROM route_minutes WHERE minute >= ? AND minute < ? AND route = ?",
    [STORE_STACK_PUT] = "INSERT INTO stacks(id, seen_s, frames) VALUES(?1, ?2, ?3)"
                        " ON CONFLICT(id) DO UPDATE SET seen_s = ?2, frames = ?3",
    [STORE_STACK_SELECT] = "SELECT frames FROM stacks WHERE id = ?",
    [STORE_STACKS_AGE] = "DELETE FROM stacks WHERE seen_s < ?",
    [STORE_PAGE_COUNT] = "PRAGMA page_count",
    [STORE_VACUUM] = "PRAGMA incremental_vacuum(" VACUUM_PAGES ")",
};

/* --- preparing ------------------------------------------------------------------------ */

static int
make_folder(const char *path, uid_t uid, gid_t gid)
{
	char folder[4096];
	snprintf(folder, sizeof(folder), "%s", path);
	for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(folder, 0750) == 0) {
			if (uid != (uid_t)-1 && chown(folder, uid, gid) != 0)
				return -1;
		} else if (errno != EEXIST) {
			return -1;
		}
		*slash = '/';
	}
	return 0;
}

void
store_prepare(const char *path, uid_t uid, gid_t gid)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	if (make_folder(path, uid, gid) != 0)
		log_error("store: %s: its folder cannot be made: %s", path, strerror(errno));
	/* SQLite gives its other files the mode of the first: profiles show code paths, not for
	 * everyone. */
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd >= 0)
		close(fd);
	if (uid == (uid_t)-1)
		return;
	for (size_t i = 0; i < 3; i++) {
		char name[4096];
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		if (lchown(name, uid, gid) != 0 && errno != ENOENT)
			log_error("store: %s: owner not changed: %s", name, strerror(errno));
	}
}

/* --- opening --------------------------------------------------------------------- */

static int
number(sqlite3 *db, const char *query, int64_t *ret)
{
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(db, query, -1, &statement, NULL);
	if (result == SQLITE_OK) {
		result = sqlite3_step(statement);
		*ret = sqlite3_column_int64(statement, 0);
	}
	sqlite3_finalize(statement);
	return result == SQLITE_ROW ? SQLITE_OK : result;
}

/* What is in the file: ours of this version, nothing, or something that is not to be touched. */
static int
identify(sqlite3 *db, bool *ret_empty, int64_t *ret_version, char *why, size_t size)
{
	int64_t version = 0, application = 0, tables = 0;
	int result = number(db, "PRAGMA user_version", &version);
	if (result == SQLITE_OK)
		result = number(db, "PRAGMA application_id", &application);
	if (result == SQLITE_OK)
		result = number(db, "SELECT count(*) FROM sqlite_schema", &tables);
	if (result != SQLITE_OK)
		return result;
	*ret_empty = tables == 0;
	*ret_version = tables == 0 ? 0 : version;
	if (tables > 0 && application != STORE_APPLICATION_ID) {
		snprintf(why, size, "the file is another program's database; it is left alone");
		return SQLITE_MISMATCH;
	}
	if (version > STORE_SCHEMA_VERSION) {
		snprintf(
		    why, size,
		    "the file has schema version %lld, this program knows %d; it is left alone "
		    "(run the newer version, or name another store.path)",
		    (long long)version, STORE_SCHEMA_VERSION);
		return SQLITE_MISMATCH;
	}
	return SQLITE_OK;
}

static int
prepare_all(struct store_file *file)
{
	int result = SQLITE_OK;
	for (size_t i = 0; i < STORE_STATEMENTS && result == SQLITE_OK; i++)
		result = sqlite3_prepare_v3(file->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
		                            &file->statements[i], NULL);
	return result;
}

/* In the place of SQLite's own checkpoint, which is a part of the commit. */
static int
on_commit(void *arg, sqlite3 *db, const char *name, int pages)
{
	struct store_file *file = arg;
	(void)db;
	(void)name;
	file->wal_pages = pages;
	return SQLITE_OK;
}

static int
set_up(struct store_file *file, char *why, size_t size)
{
	bool empty = false;
	int64_t page_bytes = 0, version = 0, rollup_bytes = 0;
	sqlite3_busy_timeout(file->db, 2000);
	/* Closing must not write into a file that is refused. */
	sqlite3_db_config(file->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	int result = identify(file->db, &empty, &version, why, size);
	if (result == SQLITE_OK)
		sqlite3_db_config(file->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	/* auto_vacuum can only be chosen before the first table. */
	if (result == SQLITE_OK && empty)
		result = sqlite3_exec(file->db, "PRAGMA auto_vacuum = INCREMENTAL", 0, 0, 0);
	if (result == SQLITE_OK)
		result = sqlite3_exec(file->db,
		                      "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
		                      "PRAGMA journal_size_limit = 8388608;"
		                      "PRAGMA cache_size = -8192;",
		                      0, 0, 0);
	if (result == SQLITE_OK)
		result = store_schema_migrate(file->db, version);
	if (result == SQLITE_OK)
		result = store_notes_schema(file->db);
	if (result == SQLITE_OK)
		result = prepare_all(file);
	/* Routes that lost their last exchange make room for new ones. */
	if (result == SQLITE_OK)
		result = sqlite3_exec(
		    file->db,
		    "DELETE FROM routes WHERE NOT EXISTS (SELECT 1 FROM exchanges WHERE route ="
		    " routes.id) AND id NOT IN (SELECT route FROM route_minutes)"
		    " AND NOT EXISTS (SELECT 1 FROM rollups WHERE route = routes.id)",
		    0, 0, 0);
	if (result == SQLITE_OK)
		result = number(file->db, "PRAGMA page_size", &page_bytes);
	if (result == SQLITE_OK)
		result = number(file->db, sql[STORE_ROLLUP_BYTES], &rollup_bytes);
	sqlite3_wal_hook(file->db, on_commit, file);
	file->page_bytes = (uint64_t)page_bytes;
	file->rollup_bytes = (uint64_t)rollup_bytes;
	return result;
}

/* SQLite's words, and the system's where the file cannot be opened: SQLite then tries to read only,
 * and remembers why that failed. */
static void
explain(sqlite3 *db, const char *path, char *why, size_t size)
{
	size_t n = (size_t)snprintf(why, size, "%s", db != NULL ? sqlite3_errmsg(db) : "no memory");
	if (db == NULL || (sqlite3_errcode(db) & 0xff) != SQLITE_CANTOPEN)
		return;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd == -1 && n < size)
		snprintf(why + n, size - n, ": %s", strerror(errno));
	else if (fd != -1)
		close(fd);
}

enum store_opened
store_file_open(struct store_file *file, const char *path, char *why, size_t size)
{
	*file = (struct store_file){0};
	why[0] = '\0';
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
	int result = sqlite3_open_v2(path, &file->db, flags, NULL);
	if (result == SQLITE_OK)
		result = set_up(file, why, size);
	if (result == SQLITE_OK)
		return STORE_OPENED;
	if (why[0] == '\0')
		explain(file->db, path, why, size);
	store_file_close(file);
	if (result == SQLITE_MISMATCH)
		return STORE_REFUSED;
	int primary = result & 0xff;
	return primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB ? STORE_DAMAGED : STORE_FAILED;
}

void
store_file_close(struct store_file *file)
{
	for (size_t i = 0; i < STORE_STATEMENTS; i++)
		sqlite3_finalize(file->statements[i]);
	store_notes_close(&file->notes);
	sqlite3_close(file->db);
	flame_free(file->names);
	*file = (struct store_file){0};
}

/* --- statements -------------------------------------------------------------------- */

static void
bind_key(sqlite3_stmt *s, const struct profile_key *key)
{
	sqlite3_bind_blob(s, 1, key->trace_id, TRACE_ID_SIZE, SQLITE_STATIC);
	sqlite3_bind_blob(s, 2, key->span_id, SPAN_ID_SIZE, SQLITE_STATIC);
}

int
store_file_run(sqlite3_stmt *s)
{
	int result = sqlite3_step(s);
	while (result == SQLITE_ROW)
		result = sqlite3_step(s);
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

int
store_file_route(struct store_file *file, size_t route, const char *name, int64_t *ret)
{
	int64_t *known = &file->route_ids[route <= ROUTES_MAX ? route : ROUTE_OTHER];
	if (*known == 0) {
		sqlite3_stmt *s = file->statements[STORE_ROUTE_INSERT];
		sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
		int result = store_file_run(s);
		if (result != SQLITE_OK)
			return result;
		s = file->statements[STORE_ROUTE_SELECT];
		sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
		result = sqlite3_step(s);
		if (result == SQLITE_ROW)
			*known = sqlite3_column_int64(s, 0);
		sqlite3_reset(s);
		if (*known == 0)
			return result == SQLITE_DONE ? SQLITE_INTERNAL : result;
	}
	*ret = *known;
	return SQLITE_OK;
}

int
store_file_exchange(struct store_file *file, const struct store_exchange *x)
{
	int64_t route;
	int result = store_file_route(file, x->route, x->route_name, &route);
	if (result != SQLITE_OK)
		return result;
	sqlite3_stmt *s = file->statements[STORE_DELETE_PROVISIONAL];
	if (x->replaces) {
		bind_key(s, &x->key);
		if ((result = store_file_run(s)) != SQLITE_OK)
			return result;
	}
	s = file->statements[STORE_INSERT];
	bind_key(s, &x->key);
	sqlite3_bind_int64(s, 3, route);
	sqlite3_bind_int64(s, 4, (int64_t)x->start_wall_ns);
	sqlite3_bind_int64(s, 5, (int64_t)x->total_ns);
	sqlite3_bind_int(s, 6, x->status);
	sqlite3_bind_int(s, 7, x->provisional);
	sqlite3_bind_text(s, 8, profile_missing_name(x->missing), -1, SQLITE_STATIC);
	if (x->has_tail)
		sqlite3_bind_int64(s, 9, (int64_t)x->tail_ns);
	sqlite3_bind_text(s, 10, x->body.data, (int)x->body.length, SQLITE_STATIC);
	return store_file_run(s);
}

int
store_file_late(struct store_file *file, const struct profile_key *key)
{
	bind_key(file->statements[STORE_SET_LATE], key);
	return store_file_run(file->statements[STORE_SET_LATE]);
}

int
store_file_tail(struct store_file *file, const struct profile_key *key, uint64_t tail_ns)
{
	bind_key(file->statements[STORE_SET_TAIL], key);
	sqlite3_bind_int64(file->statements[STORE_SET_TAIL], 3, (int64_t)tail_ns);
	return store_file_run(file->statements[STORE_SET_TAIL]);
}

int
store_file_detail(struct store_file *file, const struct profile_key *key, const char *detail,
                  size_t length)
{
	bool gone = length == 0;
	sqlite3_stmt *s = file->statements[gone ? STORE_DETAIL_GONE : STORE_DETAIL_REPLACE];
	bind_key(s, key);
	sqlite3_bind_int64(s, 3, (int64_t)clock_wall_ns());
	if (!gone)
		sqlite3_bind_text(s, 4, detail, (int)length, SQLITE_STATIC);
	return store_file_run(s);
}

int
store_file_drop(struct store_file *file, const struct profile_key *key)
{
	bind_key(file->statements[STORE_DROP], key);
	return store_file_run(file->statements[STORE_DROP]);
}

int
store_file_pin(struct store_file *file, const struct profile_key *key, bool pinned, uint64_t now_s,
               bool *ret_refused)
{
	sqlite3_stmt *s = file->statements[STORE_PIN_COUNT];
	*ret_refused =
	    pinned && sqlite3_step(s) == SQLITE_ROW && sqlite3_column_int64(s, 0) >= STORE_PINS_MAX;
	sqlite3_reset(s);
	if (*ret_refused)
		return SQLITE_OK;
	s = file->statements[pinned ? STORE_PIN : STORE_UNPIN];
	bind_key(s, key);
	if (pinned)
		sqlite3_bind_int64(s, 3, (int64_t)now_s);
	return store_file_run(s);
}

int
store_file_begin(struct store_file *file)
{
	return sqlite3_exec(file->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
}

int
store_file_commit(struct store_file *file)
{
	return sqlite3_exec(file->db, "COMMIT", NULL, NULL, NULL);
}

void
store_file_checkpoint(struct store_file *file)
{
	if (file->db == NULL || file->wal_pages < CHECKPOINT_PAGES)
		return;
	/* Passive: nobody waits for it, it waits for nobody. What it cannot do is done later. */
	sqlite3_wal_checkpoint_v2(file->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	file->wal_pages = 0;
}

void
store_file_rollback(struct store_file *file)
{
	if (!sqlite3_get_autocommit(file->db))
		sqlite3_exec(file->db, "ROLLBACK", NULL, NULL, NULL);
	/* Routes added by what was rolled back have no row. */
	memset(file->route_ids, 0, sizeof(file->route_ids));
}

/* --- eviction ------------------------------------------------------------------------ */

uint64_t
store_file_bytes(struct store_file *file)
{
	sqlite3_stmt *s = file->statements[STORE_PAGE_COUNT];
	uint64_t pages = sqlite3_step(s) == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(s, 0) : 0;
	sqlite3_reset(s);
	return pages * file->page_bytes;
}

void
store_file_aged(struct store_file *file, uint64_t before_minute)
{
	if (before_minute > file->minutes_aged_to)
		file->minutes_aged_to = before_minute;
}

static int
evict(struct store_file *file, enum store_statement which, int64_t bound, int *ret_changes)
{
	sqlite3_stmt *s = file->statements[which];
	if (sqlite3_bind_parameter_count(s) > 0)
		sqlite3_bind_int64(s, 1, bound);
	int result = store_file_run(s);
	*ret_changes = result == SQLITE_OK ? sqlite3_changes(file->db) : 0;
	return result;
}

/* Rollups give way where they have more than their half, then exchanges, then old minutes, then
 * what is pinned, then rollups again. */
static int
evict_bytes(struct store_file *file, uint64_t max_bytes, struct store_stats *stats, bool *ret_more)
{
	static const enum store_statement which[] = {STORE_EVICT_OLDEST, STORE_EVICT_MINUTES_OLDEST,
	                                             STORE_EVICT_PINNED};
	int rows = 0, result = SQLITE_OK;
	*ret_more = false;
	if (file->rollup_bytes > max_bytes / 2)
		result = store_rollups_press(file, stats, ret_more);
	for (size_t i = 0; i < 3 && result == SQLITE_OK && !*ret_more; i++) {
		result = evict(file, which[i], 0, &rows);
		*ret_more = rows > 0;
		if (which[i] != STORE_EVICT_MINUTES_OLDEST)
			stats->evicted_bytes += (uint64_t)rows;
		else if (rows > 0)
			store_file_aged(file, UINT64_MAX);
	}
	if (result == SQLITE_OK && !*ret_more)
		result = store_rollups_press(file, stats, ret_more);
	if (result == SQLITE_OK)
		result = store_file_run(file->statements[STORE_VACUUM]);
	return result;
}

/* Details whose exchange did not come, or was not kept: each is looked at once. */
static int
evict_orphans(struct store_file *file)
{
	uint64_t until_ns = clock_wall_ns() - ORPHAN_NS;
	sqlite3_stmt *s = file->statements[STORE_EVICT_ORPHANS];
	if (until_ns < file->orphans_ns + ORPHAN_STEP_NS)
		return SQLITE_OK;
	sqlite3_bind_int64(s, 1, (int64_t)file->orphans_ns);
	sqlite3_bind_int64(s, 2, (int64_t)until_ns);
	int result = store_file_run(s);
	if (result == SQLITE_OK)
		file->orphans_ns = until_ns;
	return result;
}

int
store_file_evict(struct store_file *file, uint64_t max_bytes, uint64_t before_wall_ns,
                 struct store_stats *stats, bool *ret_more)
{
	int rows = 0, minutes = 0;
	*ret_more = false;
	int result = evict(file, STORE_EVICT_AGE, (int64_t)before_wall_ns, &rows);
	if (result == SQLITE_OK)
		result = evict(file, STORE_EVICT_MINUTES_AGE,
		               (int64_t)(before_wall_ns / (60 * NS_PER_S)), &minutes);
	stats->evicted_age += (uint64_t)rows;
	if (minutes > 0)
		store_file_aged(file, before_wall_ns / (60 * NS_PER_S));
	*ret_more = rows > 0 || minutes > 0;
	if (result == SQLITE_OK)
		result = evict_orphans(file);
	if (result != SQLITE_OK || store_file_bytes(file) <= max_bytes)
		return result;
	return evict_bytes(file, max_bytes, stats, ret_more);
}
