/* SQLite: schema, statements, eviction. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "collector/store_file.h"

#define EVICT_ROWS "256"
#define VACUUM_PAGES "4000"

static const char schema[] =
    "CREATE TABLE routes(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;"
    "CREATE TABLE exchanges("
    "  id INTEGER PRIMARY KEY," /* in the order of arrival: the order of eviction */
    "  trace BLOB NOT NULL, span BLOB NOT NULL,"
    "  route INTEGER NOT NULL, start_wall_ns INTEGER NOT NULL, total_ns INTEGER NOT NULL,"
    "  status INTEGER NOT NULL, provisional INTEGER NOT NULL,"
    "  missing TEXT,"        /* null = it has a profile */
    "  app_tail_ns INTEGER," /* told after the rest */
    "  body TEXT NOT NULL) STRICT;"
    "CREATE INDEX exchanges_trace ON exchanges(trace);"
    "CREATE INDEX exchanges_start ON exchanges(start_wall_ns);"
    "CREATE INDEX exchanges_total ON exchanges(total_ns);"
    "CREATE INDEX exchanges_route_start ON exchanges(route, start_wall_ns);"
    "CREATE INDEX exchanges_route_total ON exchanges(route, total_ns);"
    "CREATE TABLE route_minutes("
    "  minute INTEGER NOT NULL, route INTEGER NOT NULL, requests INTEGER NOT NULL,"
    "  errors INTEGER NOT NULL, sent INTEGER NOT NULL, joined INTEGER NOT NULL,"
    "  phases_ns BLOB NOT NULL," /* twelve sums, 8 bytes each in the machine's order */
    "  histogram BLOB NOT NULL, PRIMARY KEY(minute, route)) STRICT, WITHOUT ROWID;";

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
    [STORE_EVICT_OLDEST] =
        "DELETE FROM exchanges WHERE id IN (SELECT id FROM exchanges ORDER BY id LIMIT " EVICT_ROWS
        ")",
    [STORE_EVICT_AGE] = "DELETE FROM exchanges WHERE id IN (SELECT id FROM exchanges"
                        " WHERE start_wall_ns < ? ORDER BY start_wall_ns LIMIT " EVICT_ROWS ")",
    [STORE_EVICT_MINUTES_OLDEST] =
        "DELETE FROM route_minutes WHERE (minute, route) IN"
        " (SELECT minute, route FROM route_minutes ORDER BY minute, route LIMIT " EVICT_ROWS ")",
    [STORE_EVICT_MINUTES_AGE] =
        "DELETE FROM route_minutes WHERE (minute, route) IN (SELECT minute, route"
        " FROM route_minutes WHERE minute < ? ORDER BY minute, route LIMIT " EVICT_ROWS ")",
    [STORE_PAGE_COUNT] = "PRAGMA page_count",
    [STORE_VACUUM] = "PRAGMA incremental_vacuum(" VACUUM_PAGES ")",
};

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
identify(sqlite3 *db, bool *ret_empty, char *why, size_t size)
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
make_schema(sqlite3 *db)
{
	char begin[128];
	snprintf(begin, sizeof(begin), "PRAGMA application_id = %d; PRAGMA user_version = %d;",
	         STORE_APPLICATION_ID, STORE_SCHEMA_VERSION);
	int result = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_exec(db, schema, NULL, NULL, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_exec(db, begin, NULL, NULL, NULL);
	if (result == SQLITE_OK)
		return sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return result;
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

static int
set_up(struct store_file *file, char *why, size_t size)
{
	bool empty = false;
	int64_t page_bytes = 0;
	sqlite3_busy_timeout(file->db, 2000);
	/* Closing must not write into a file that is refused. */
	sqlite3_db_config(file->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	int result = identify(file->db, &empty, why, size);
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
	if (result == SQLITE_OK && empty)
		result = make_schema(file->db);
	if (result == SQLITE_OK)
		result = prepare_all(file);
	/* Routes that lost their last exchange make room for new ones. */
	if (result == SQLITE_OK)
		result = sqlite3_exec(
		    file->db,
		    "DELETE FROM routes WHERE NOT EXISTS (SELECT 1 FROM exchanges WHERE route ="
		    " routes.id) AND id NOT IN (SELECT route FROM route_minutes)",
		    0, 0, 0);
	if (result == SQLITE_OK)
		result = number(file->db, "PRAGMA page_size", &page_bytes);
	file->page_bytes = (uint64_t)page_bytes;
	return result;
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
		snprintf(why, size, "%s", file->db ? sqlite3_errmsg(file->db) : "no memory");
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
	sqlite3_close(file->db);
	*file = (struct store_file){0};
}

int
store_file_move_aside(const char *path, char *ret_name, size_t size)
{
	static const char *const suffixes[] = {"-wal", "-shm"};
	char from[4096], to[4096];
	snprintf(ret_name, size, "%s.damaged-%llu", path,
	         (unsigned long long)(clock_wall_ns() / NS_PER_MS));
	if (rename(path, ret_name) != 0)
		return -1;
	for (size_t i = 0; i < 2; i++) {
		snprintf(from, sizeof(from), "%s%s", path, suffixes[i]);
		snprintf(to, sizeof(to), "%s%s", ret_name, suffixes[i]);
		if (rename(from, to) != 0 && errno != ENOENT)
			return -1;
	}
	return 0;
}

/* --- statements -------------------------------------------------------------------- */

static void
bind_key(sqlite3_stmt *s, const struct profile_key *key)
{
	sqlite3_bind_blob(s, 1, key->trace_id, TRACE_ID_SIZE, SQLITE_STATIC);
	sqlite3_bind_blob(s, 2, key->span_id, SPAN_ID_SIZE, SQLITE_STATIC);
}

/* Runs a statement that gives no rows, and makes it ready again. */
static int
run(sqlite3_stmt *s)
{
	int result = sqlite3_step(s);
	while (result == SQLITE_ROW)
		result = sqlite3_step(s);
	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int
route_id(struct store_file *file, size_t route, const char *name, int64_t *ret)
{
	int64_t *known = &file->route_ids[route <= ROUTES_MAX ? route : ROUTE_OTHER];
	if (*known == 0) {
		sqlite3_stmt *s = file->statements[STORE_ROUTE_INSERT];
		sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
		int result = run(s);
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
	int result = route_id(file, x->route, x->route_name, &route);
	if (result != SQLITE_OK)
		return result;
	sqlite3_stmt *s = file->statements[STORE_DELETE_PROVISIONAL];
	bind_key(s, &x->key);
	if ((result = run(s)) != SQLITE_OK)
		return result;
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
	return run(s);
}

int
store_file_late(struct store_file *file, const struct profile_key *key)
{
	bind_key(file->statements[STORE_SET_LATE], key);
	return run(file->statements[STORE_SET_LATE]);
}

int
store_file_tail(struct store_file *file, const struct profile_key *key, uint64_t tail_ns)
{
	bind_key(file->statements[STORE_SET_TAIL], key);
	sqlite3_bind_int64(file->statements[STORE_SET_TAIL], 3, (int64_t)tail_ns);
	return run(file->statements[STORE_SET_TAIL]);
}

/* Adds what the file holds of this minute. A row that cannot be read is written anew. */
static int
minute_add_stored(struct store_file *file, int64_t route, struct store_minute *sum)
{
	struct histogram stored;
	sqlite3_stmt *s = file->statements[STORE_MINUTE_SELECT];
	sqlite3_bind_int64(s, 1, (int64_t)sum->minute);
	sqlite3_bind_int64(s, 2, route);
	int result = sqlite3_step(s);
	if (result == SQLITE_ROW && sqlite3_column_bytes(s, 4) == (int)sizeof(sum->phases_ns) &&
	    histogram_decode(sqlite3_column_blob(s, 5), (size_t)sqlite3_column_bytes(s, 5),
	                     &stored) == 0) {
		uint64_t phases_ns[PHASE_COUNT];
		memcpy(phases_ns, sqlite3_column_blob(s, 4), sizeof(phases_ns));
		sum->requests += (uint64_t)sqlite3_column_int64(s, 0);
		sum->errors += (uint64_t)sqlite3_column_int64(s, 1);
		sum->sent += (uint64_t)sqlite3_column_int64(s, 2);
		sum->joined += (uint64_t)sqlite3_column_int64(s, 3);
		for (size_t i = 0; i < PHASE_COUNT; i++)
			sum->phases_ns[i] += phases_ns[i];
		histogram_merge(&sum->total, &stored);
	}
	sqlite3_reset(s);
	return result == SQLITE_ROW || result == SQLITE_DONE ? SQLITE_OK : result;
}

int
store_file_minute(struct store_file *file, const struct store_minute *minute)
{
	uint8_t encoded[HISTOGRAM_ENCODED_MAX];
	struct store_minute sum = *minute;
	int64_t route;
	int result = route_id(file, minute->route, minute->route_name, &route);
	if (result == SQLITE_OK)
		result = minute_add_stored(file, route, &sum);
	if (result != SQLITE_OK)
		return result;
	size_t length = histogram_encode(&sum.total, encoded);
	sqlite3_stmt *s = file->statements[STORE_MINUTE_REPLACE];
	sqlite3_bind_int64(s, 1, (int64_t)sum.minute);
	sqlite3_bind_int64(s, 2, route);
	sqlite3_bind_int64(s, 3, (int64_t)sum.requests);
	sqlite3_bind_int64(s, 4, (int64_t)sum.errors);
	sqlite3_bind_int64(s, 5, (int64_t)sum.sent);
	sqlite3_bind_int64(s, 6, (int64_t)sum.joined);
	sqlite3_bind_blob(s, 7, sum.phases_ns, sizeof(sum.phases_ns), SQLITE_STATIC);
	sqlite3_bind_blob(s, 8, encoded, (int)length, SQLITE_STATIC);
	return run(s);
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

static int
evict(struct store_file *file, enum store_statement which, int64_t bound, int *ret_changes)
{
	sqlite3_stmt *s = file->statements[which];
	if (sqlite3_bind_parameter_count(s) > 0)
		sqlite3_bind_int64(s, 1, bound);
	int result = run(s);
	*ret_changes = result == SQLITE_OK ? sqlite3_changes(file->db) : 0;
	return result;
}

static int
evict_bytes(struct store_file *file, struct store_stats *stats, bool *ret_more)
{
	int rows, minutes = 0;
	int result = evict(file, STORE_EVICT_OLDEST, 0, &rows);
	if (result == SQLITE_OK && rows == 0)
		result = evict(file, STORE_EVICT_MINUTES_OLDEST, 0, &minutes);
	if (result == SQLITE_OK)
		result = run(file->statements[STORE_VACUUM]);
	stats->evicted_bytes += (uint64_t)rows;
	*ret_more = rows > 0 || minutes > 0;
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
	*ret_more = rows > 0 || minutes > 0;
	if (result != SQLITE_OK || store_file_bytes(file) <= max_bytes)
		return result;
	return evict_bytes(file, stats, ret_more);
}
