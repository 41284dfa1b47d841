/* The tables by version: each migration makes the next one of what the one before left. */
#include <stdio.h>
#include "collector/store_file.h"
#include "collector/store_schema.h"

static const char *const migrations[STORE_SCHEMA_VERSION] = {
    /* 1 */
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
    "  histogram BLOB NOT NULL, PRIMARY KEY(minute, route)) STRICT, WITHOUT ROWID;",
    /* 2: rollups, the stacks their rows name, and exchanges that something cites */
    "CREATE TABLE rollups("
    "  route INTEGER NOT NULL, start_s INTEGER NOT NULL,"
    "  level INTEGER NOT NULL,"     /* enum store_level */
    "  body BLOB NOT NULL) STRICT;" /* a chunk of model/rollup.h */
    "CREATE UNIQUE INDEX rollups_route ON rollups(route, start_s, level);"
    "CREATE INDEX rollups_level ON rollups(level, start_s);"
    "CREATE TABLE stacks("
    "  id INTEGER PRIMARY KEY," /* model/flame.h's, as signed */
    "  seen_s INTEGER NOT NULL, frames TEXT NOT NULL) STRICT;"
    "CREATE TABLE pins("
    "  trace BLOB NOT NULL, span BLOB NOT NULL, pinned_s INTEGER NOT NULL,"
    "  PRIMARY KEY(trace, span)) STRICT, WITHOUT ROWID;",
    /* 3: detail, which comes by itself, before or after its exchange, and goes with it */
    "CREATE TABLE details("
    "  trace BLOB NOT NULL, span BLOB NOT NULL, came_wall_ns INTEGER NOT NULL,"
    "  body TEXT," /* null = the hook does not have it any more */
    "  PRIMARY KEY(trace, span)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX details_came ON details(came_wall_ns);"
    "CREATE TRIGGER exchanges_delete AFTER DELETE ON exchanges WHEN OLD.provisional = 0 BEGIN"
    "  DELETE FROM details WHERE trace = OLD.trace AND span = OLD.span; END;",
};

int
store_schema_migrate(sqlite3 *db, int64_t version)
{
	char end[128];
	if (version >= STORE_SCHEMA_VERSION)
		return SQLITE_OK;
	snprintf(end, sizeof(end), "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
	         STORE_APPLICATION_ID, STORE_SCHEMA_VERSION);
	int result = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	for (int64_t i = version; i < STORE_SCHEMA_VERSION && result == SQLITE_OK; i++)
		result = sqlite3_exec(db, migrations[i], NULL, NULL, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_exec(db, end, NULL, NULL, NULL);
	if (result != SQLITE_OK)
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return result;
}
