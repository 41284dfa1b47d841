/* The store's file: opening (schema, versions, damage), statements, eviction. The writer thread's
 * alone. */
#ifndef TAILRACE_COLLECTOR_STORE_FILE_H
#define TAILRACE_COLLECTOR_STORE_FILE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include "collector/store.h"
#include "collector/store_notes.h"
#include "model/route.h"

#define STORE_SCHEMA_VERSION 3          /* the number of migrations in store_schema.c */
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
	STORE_DROP,
	STORE_PIN,
	STORE_UNPIN,
	STORE_PIN_COUNT,
	STORE_PINS_AGE,
	STORE_DETAIL_REPLACE,
	STORE_DETAIL_GONE,
	STORE_EVICT_ORPHANS,
	STORE_EVICT_OLDEST,
	STORE_EVICT_PINNED,
	STORE_EVICT_AGE,
	STORE_EVICT_MINUTES_OLDEST,
	STORE_EVICT_MINUTES_AGE,
	STORE_ROLLUP_SELECT,
	STORE_ROLLUP_REPLACE,
	STORE_ROLLUP_OLDEST,
	STORE_ROLLUP_RANGE,
	STORE_ROLLUP_DELETE,
	STORE_ROLLUP_EVICT,
	STORE_ROLLUP_BYTES,
	STORE_MINUTES_RANGE,
	STORE_MINUTES_DELETE,
	STORE_STACK_PUT,
	STORE_STACK_SELECT,
	STORE_STACKS_AGE,
	STORE_PAGE_COUNT,
	STORE_VACUUM,
	STORE_STATEMENTS
};

struct store_file {
	sqlite3 *db; /* null = not open */
	sqlite3_stmt *statements[STORE_STATEMENTS];
	int64_t route_ids[ROUTES_MAX + 1]; /* by the collector's index; 0 = not looked up */
	uint64_t page_bytes;
	uint64_t orphans_ns;      /* details that came before were looked at for their exchange */
	uint64_t rollup_bytes;    /* of all rollups' bodies */
	uint64_t minutes_aged_to; /* minutes before were taken away, or made hours; 0 = none */
	uint64_t stacks_aged_s;   /* when unused stacks were last looked for */
	struct flame *names;      /* owned: stacks that folding has met; null = none yet */
	int wal_pages;            /* at the last commit; 0 = checkpointed since */
	struct store_notes notes;
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

/* Write one item within a transaction. Each returns SQLITE_OK or SQLite's error. */
int store_file_exchange(struct store_file *file, const struct store_exchange *exchange);
int store_file_minute(struct store_file *file, const struct store_minute *minute);
int store_file_late(struct store_file *file, const struct profile_key *key);
int store_file_tail(struct store_file *file, const struct profile_key *key, uint64_t tail_ns);
int store_file_detail(struct store_file *file, const struct profile_key *key, const char *detail,
                      size_t length); /* 0 = it is gone */
int store_file_drop(struct store_file *file, const struct profile_key *key);
/* *ret_refused: there are STORE_PINS_MAX already. */
int store_file_pin(struct store_file *file, const struct profile_key *key, bool pinned,
                   uint64_t now_s, bool *ret_refused);

/* For the statements of store_rollups.c. */
int store_file_route(struct store_file *file, size_t route, const char *name, int64_t *ret);
int store_file_run(sqlite3_stmt *statement); /* one that gives no rows; ready again afterwards */
void store_file_aged(struct store_file *file, uint64_t before_minute); /* minutes_aged_to */
int store_file_minutes_to_hour(struct store_file *file, int64_t route, uint64_t hour);

int store_file_begin(struct store_file *file);
int store_file_commit(struct store_file *file);
void store_file_rollback(struct store_file *file);

/* Moves what is in the WAL into the database, where there is enough of it. Between transactions. */
void store_file_checkpoint(struct store_file *file);

uint64_t store_file_bytes(struct store_file *file);

/* One small step of eviction: a few hundred exchanges, oldest first and those that are pinned last,
 * where the file is over `max_bytes` (rollups beyond their half of it before), or those begun before
 * `before_wall_ns`. Adds to the counters. Returns SQLITE_OK or SQLite's error; *ret_more tells
 * whether there is more to evict. */
int store_file_evict(struct store_file *file, uint64_t max_bytes, uint64_t before_wall_ns,
                     struct store_stats *stats, bool *ret_more);

#endif
