/* What the store has taken and not committed yet, as far as one question needs it, so that an
 * answer never waits for the disk. Taken while the store is frozen and the reader's transaction
 * begins (query.c); query thread only. */
#ifndef TAILRACE_COLLECTOR_UNWRITTEN_H
#define TAILRACE_COLLECTOR_UNWRITTEN_H

#include <stdbool.h>
#include <stddef.h>
#include "collector/store.h"

struct query_job;

/* Told of an exchange by its key. */
struct unwritten_note {
	struct profile_key key;
	bool late, has_tail, gone;
	uint64_t tail_ns;
	struct text detail; /* owned; none = not told */
};

struct unwritten_minute {
	struct store_sums sums;
	int64_t route_id;      /* the store's */
	size_t offset, length; /* of its histogram, in `histograms` */
};

/* In order of putting. Owned. */
struct unwritten {
	struct store_exchange *exchanges; /* with their bodies where one trace is asked for */
	struct unwritten_note *notes;
	struct unwritten_minute *minutes;
	size_t exchange_count, note_count, minute_count;
	struct text histograms;
};

/* Takes what the job's question needs. */
void unwritten_take(struct unwritten *unwritten, struct store *store, const struct query_job *job);
void unwritten_free(struct unwritten *unwritten);

/* Whether there is a minute of a route that the store has no ID for yet. */
bool unwritten_has_new_route(const struct unwritten *unwritten);

#endif
