/* A route's windows in a span of time: those of the store and those the loop had in memory, each
 * once. Query thread only. */
#ifndef TAILRACE_COLLECTOR_QUERY_HISTORY_H
#define TAILRACE_COLLECTOR_QUERY_HISTORY_H

#include <sqlite3.h>
#include "collector/query.h"
#include "model/flame.h"
#include "model/rollup.h"

struct query_reader {
	sqlite3 *db;           /* null = no store: only what memory had */
	struct query_job *job; /* borrowed */
	struct flame *names;   /* owned: stacks met so far */
	char route[ROUTE_NAME_MAX + 1];
};

/* Finds the route. Returns SQLITE_OK with *ret_found, or the error of a statement. */
int query_reader_open(struct query_reader *reader, sqlite3 *db, struct query_job *job,
                      uint64_t now_s, bool *ret_found);
void query_reader_close(struct query_reader *reader);

/* Calls `each` for every window that begins in the span, in no order. Returns SQLITE_OK or the error
 * of a statement. */
int query_reader_windows(struct query_reader *reader, const struct query_span *span,
                         void (*each)(void *arg, const struct rollup_window *window), void *arg);

/* The span in blocks of equal length, at most QUERY_POINTS_MAX, 60 s where that suffices; rows are
 * folded to ROLLUP_ROWS_MAX each. Owned, freed with query_blocks_free(). */
struct query_blocks {
	struct rollup **blocks;
	size_t count;
	struct query_reader *reader;
	struct query_span span;
	uint64_t block_s;
};
int query_blocks_load(struct query_reader *reader, const struct query_span *span,
                      struct query_blocks *ret);
void query_blocks_free(struct query_blocks *blocks);

/* For rollup_fold(): parents of stacks in memory or store. */
struct rollup_parents query_reader_parents(struct query_reader *reader);

/* Learns all stacks of a rollup, so that reader->names knows them. */
void query_reader_learn(struct query_reader *reader, const struct rollup *rollup);

/* Answers. Return SQLITE_OK or the error of a statement (then the job has no answer yet). */
int query_answer_series(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns);
int query_answer_flame(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns);
int query_answer_compare(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns);

#endif
