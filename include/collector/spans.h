/* Rollups of every route in windows of time: open ones that exchanges are added to, closed ones packed
 * in memory for a while, all of them saved to the store every minute. Times are the wall clock's: a
 * window lies at the exchanges' end. One thread. */
#ifndef TAILRACE_COLLECTOR_SPANS_H
#define TAILRACE_COLLECTOR_SPANS_H

#include <stdbool.h>
#include <stdint.h>
#include "model/correlator.h"
#include "model/flame.h"
#include "model/rollup.h"
#include "model/route.h"
#include "model/text.h"

#define SPANS_SPAN_MS 10000          /* or `alerts.window_ms` where that is less */
#define SPANS_CHUNK_MS 60000         /* what is saved as one row */
#define SPANS_MEMORY_MS (15 * 60000) /* how long closed ones stay in memory */
#define SPANS_BYTES_MAX (24u << 20)  /* of closed ones; beyond, the oldest leave early */
#define SPANS_OPEN_MAX 8             /* of one route; beyond, the oldest is closed early */
#define SPANS_ROWS_LIVE 128          /* rows of an open one before it is folded */
#define SPANS_SWEEP_MS 1000          /* between two rounds over all routes */
#define SPANS_ROUTES_TICK 32 /* routes of a round in one tick: about 3 ms where all are due */

struct store;
struct spans;

struct spans_options {
	uint64_t span_ms;
	uint64_t join_timeout_ms;   /* a window is final so long after its end */
	size_t bytes_max, rows_max; /* rows_max: of one route */
	size_t stacks_max, frames_max;
};

struct spans_stats {
	size_t open, packed, packed_bytes, stacks;
	uint64_t rows_folded_window, rows_folded_route; /* rows added to their parent frames */
	uint64_t stacks_overflowed; /* look-ups of stacks for which there was no room */
	uint64_t reopened;          /* exchanges that came after their window was final */
	uint64_t left_early;        /* windows that left memory before their time */
};

/* `routes` and `store` are borrowed. Owned, freed with spans_free(). */
struct spans *spans_new(const struct spans_options *options, const struct routes *routes,
                        struct store *store);
void spans_free(struct spans *spans); /* null-safe */

/* Adds one exchange that is over. `profile` and `join` are null without a profile. */
void spans_add(struct spans *spans, size_t route, const struct exchange_record *record,
               const struct profile *profile, const struct join *join, enum profile_missing missing,
               uint64_t now_wall_ns);

/* Goes on with the round over all routes, or begins one if the last began SPANS_SWEEP_MS ago: closes
 * what is final, saves once a minute, forgets what is old. Once in each turn of the loop. True: the
 * round goes on in the next. */
bool spans_tick(struct spans *spans, uint64_t now_wall_ns);

/* Closes and saves everything: at the end. */
void spans_finish(struct spans *spans, uint64_t now_wall_ns);

/* Adds the windows of [from_ms, to_ms) that are in memory to `into`. */
void spans_sum(const struct spans *spans, size_t route, uint64_t from_ms, uint64_t to_ms,
               struct rollup *into);

/* Appends the windows of [from_ms, to_ms) in memory as chunks: those the store may have, and those
 * that it has not. */
void spans_pack(const struct spans *spans, size_t route, uint64_t from_ms, uint64_t to_ms,
                struct text *saved, struct text *unsaved);

/* Appends the route's stacks, each a JSON array and a NUL. */
void spans_names(const struct spans *spans, size_t route, struct text *out);

void spans_stats(const struct spans *spans, struct spans_stats *ret);

#endif
