/* The tables of the store's file. Adding some: a migration behind the last one in store_schema.c, and
 * STORE_SCHEMA_VERSION one higher. A migration that was released never changes. Writer thread. */
#ifndef TAILRACE_COLLECTOR_STORE_SCHEMA_H
#define TAILRACE_COLLECTOR_STORE_SCHEMA_H

#include <sqlite3.h>
#include <stdint.h>

/* Brings an own file of `version` (0 = an empty one) to STORE_SCHEMA_VERSION, in one transaction.
 * Returns SQLITE_OK or SQLite's error, with the file as it was. */
int store_schema_migrate(sqlite3 *db, int64_t version);

#endif
