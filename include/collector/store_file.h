/* The store's file: opening (schema, versions, damage), statements, eviction. The writer thread's
 * alone. */
#ifndef TAILRACE_COLLECTOR_STORE_FILE_H
#define TAILRACE_COLLECTOR_STORE_FILE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include "collector/store.h"
#include "model/route.h"

#define STORE_SCHEMA_VERSION 1
#define STORE_APPLICATION_ID 0x7461726c /* "tarl" */

enum store_statement {
	STORE_INSERT,
	STORE_DELETE_PROVISIONAL,
	STORE_ROUTE_INSERT,
	STORE_ROUTE_SELECT,
	STORE_MINUTE_SELECT,
	STORE_MINUTE_REPLACE,
	STORE_SET_LATE,
	STORE_SET_TAIL,
	STORE_EVICT_OLDEST,
	STORE_EVICT_AGE,
	STORE_EVICT_MINUTES_OLDEST,
	STORE_EVICT_MINUTES_AGE,
	STORE_PAGE_COUNT,
	STORE_VACUUM,
	STORE_STATEMENTS
};

struct store_file {
	sqlite3 *db; /* null = not open */
	sqlite3_stmt *statements[STORE_STATEMENTS];
	int64_t route_ids[ROUTES_MAX + 1]; /* by the collector's index; 0 = not looked up */
	uint64_t page_bytes;
};

enum store_opened {
	STORE_OPENED,
	STORE_REFUSED, /* a newer version's file or somebody else's: not touched */
	STORE_FAILED,  /* errno-like trouble: may go away */
	STORE_DAMAGED, /* not a database any more */
};

/* Opens or makes the file. `why` gets the reason in words. */
enum store_opened store_file_open(struct store_file *file, const char *path, char *why,
                                  size_t size);
void store_file_close(struct store_file *file);

/* Moves a damaged file (with WAL and index) to "<path>.damaged-<time>". Returns 0, or -1 with
 * errno. */
int store_file_move_aside(const char *path, char *ret_name, size_t size);

/* Write one item within a transaction. Each returns SQLITE_OK or SQLite's error. */
int store_file_exchange(struct store_file *file, const struct store_exchange *exchange);
int store_file_minute(struct store_file *file, const struct store_minute *minute);
int store_file_late(struct store_file *file, const struct profile_key *key);
int store_file_tail(struct store_file *file, const struct profile_key *key, uint64_t tail_ns);

int store_file_begin(struct store_file *file);
int store_file_commit(struct store_file *file);
void store_file_rollback(struct store_file *file);

uint64_t store_file_bytes(struct store_file *file);

/* One small step of eviction: a few hundred exchanges, oldest first, where the file is over
 * `max_bytes`, or those begun before `before_wall_ns`. Adds to the counters. Returns SQLITE_OK or
 * SQLite's error; *ret_more tells whether there is more to evict. */
int store_file_evict(struct store_file *file, uint64_t max_bytes, uint64_t before_wall_ns,
                     struct store_stats *stats, bool *ret_more);

#endif
