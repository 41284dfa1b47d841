/* Tables, statements and reading of what alerting keeps. */
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/xmem.h"
#include "collector/store_notes.h"

#define INCIDENTS_KEPT "1000"
#define DEPLOYS_KEPT "1000"

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS detectors(route TEXT NOT NULL, part INTEGER NOT NULL,"
    "  bytes BLOB NOT NULL, PRIMARY KEY(route, part)) STRICT;"
    "CREATE TABLE IF NOT EXISTS incidents(id TEXT PRIMARY KEY, since INTEGER NOT NULL,"
    "  body BLOB NOT NULL) STRICT;"
    "CREATE INDEX IF NOT EXISTS incidents_since ON incidents(since);"
    "CREATE TABLE IF NOT EXISTS deploys(at INTEGER NOT NULL, version TEXT NOT NULL,"
    "  PRIMARY KEY(at, version)) STRICT;"
    "CREATE TABLE IF NOT EXISTS outbox(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
    "  created INTEGER NOT NULL, body BLOB NOT NULL) STRICT;"
    /* Old ones go as new ones come: nothing grows for ever. */
    "CREATE TRIGGER IF NOT EXISTS incidents_old AFTER INSERT ON incidents BEGIN"
    "  DELETE FROM incidents WHERE id IN (SELECT id FROM incidents"
    "    ORDER BY since DESC LIMIT -1 OFFSET " INCIDENTS_KEPT "); END;"
    "CREATE TRIGGER IF NOT EXISTS deploys_old AFTER INSERT ON deploys BEGIN"
    "  DELETE FROM deploys WHERE at < (SELECT min(at) FROM"
    "    (SELECT at FROM deploys ORDER BY at DESC LIMIT " DEPLOYS_KEPT ")); END;";

/* ?1 key, ?2 number, ?3 bytes */
static const char *const writes[STORE_NOTE_KINDS] = {
    [STORE_NOTE_FACT] = "INSERT OR REPLACE INTO facts(name, value) VALUES(?1, ?3)",
    [STORE_NOTE_DETECTOR] =
        "INSERT OR REPLACE INTO detectors(route, part, bytes) VALUES(?1, ?2, ?3)",
    [STORE_NOTE_INCIDENT] = "INSERT INTO incidents(id, since, body) VALUES(?1, ?2, ?3)"
                            " ON CONFLICT(id) DO UPDATE SET since = ?2, body = ?3",
    [STORE_NOTE_DEPLOY] = "INSERT OR IGNORE INTO deploys(version, at) VALUES(?1, ?2)",
    [STORE_NOTE_OUTBOX] = "INSERT OR IGNORE INTO outbox(key, created, body) VALUES(?1, ?2, ?3)",
    [STORE_NOTE_OUTBOX_DONE] = "DELETE FROM outbox WHERE key = ?1",
};

/* key, number, bytes */
static const char *const reads[STORE_NOTE_KINDS] = {
    [STORE_NOTE_FACT] = "SELECT name, 0, value FROM facts",
    [STORE_NOTE_DETECTOR] = "SELECT route, part, bytes FROM detectors ORDER BY route, part",
    [STORE_NOTE_INCIDENT] = "SELECT id, since, body FROM incidents ORDER BY since, id",
    [STORE_NOTE_DEPLOY] = "SELECT version, at, NULL FROM deploys ORDER BY at",
    [STORE_NOTE_OUTBOX] = "SELECT key, created, body FROM outbox ORDER BY id",
    [STORE_NOTE_OUTBOX_DONE] = NULL,
};

void
store_note_clear(struct store_note *note)
{
	free(note->key);
	free(note->bytes);
	*note = (struct store_note){0};
}

int
store_notes_schema(sqlite3 *db)
{
	return sqlite3_exec(db, schema, NULL, NULL, NULL);
}

int
store_notes_write(struct store_notes *notes, sqlite3 *db, const struct store_note *note)
{
	sqlite3_stmt **statement = &notes->statements[note->kind];
	int result = SQLITE_OK;
	if (*statement == NULL)
		result = sqlite3_prepare_v3(db, writes[note->kind], -1, SQLITE_PREPARE_PERSISTENT,
		                            statement, NULL);
	if (result != SQLITE_OK)
		return result;
	sqlite3_bind_text(*statement, 1, note->key, -1, SQLITE_STATIC);
	if (sqlite3_bind_parameter_count(*statement) >= 2)
		sqlite3_bind_int64(*statement, 2, note->number);
	if (sqlite3_bind_parameter_count(*statement) >= 3)
		sqlite3_bind_blob(*statement, 3, note->bytes, (int)note->size, SQLITE_STATIC);
	result = sqlite3_step(*statement);
	sqlite3_reset(*statement);
	sqlite3_clear_bindings(*statement);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

void
store_notes_close(struct store_notes *notes)
{
	for (size_t i = 0; i < STORE_NOTE_KINDS; i++)
		sqlite3_finalize(notes->statements[i]);
	*notes = (struct store_notes){0};
}

static void
load_rows(sqlite3_stmt *s, enum store_note_kind kind,
          void (*each)(void *arg, const struct store_note *note), void *arg)
{
	while (sqlite3_step(s) == SQLITE_ROW) {
		const char *key = (const char *)sqlite3_column_text(s, 0);
		const void *bytes = sqlite3_column_blob(s, 2);
		struct store_note note = {.kind = kind,
		                          .key = xstrdup(key != NULL ? key : ""),
		                          .number = sqlite3_column_int64(s, 1),
		                          .size = (size_t)sqlite3_column_bytes(s, 2)};
		/* One byte more: texts end with NUL. */
		note.bytes = xcalloc(1, note.size + 1);
		if (bytes != NULL)
			memcpy(note.bytes, bytes, note.size);
		each(arg, &note);
		store_note_clear(&note);
	}
}

void
store_notes_load(const char *path, enum store_note_kind kind,
                 void (*each)(void *arg, const struct store_note *note), void *arg)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *s = NULL;
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) ==
	    SQLITE_OK) {
		sqlite3_busy_timeout(db, 2000);
		if (sqlite3_prepare_v2(db, reads[kind], -1, &s, NULL) == SQLITE_OK)
			load_rows(s, kind, each, arg);
		else
			log_debug("store: %s: nothing to load: %s", path, sqlite3_errmsg(db));
	}
	sqlite3_finalize(s);
	sqlite3_close(db);
}
