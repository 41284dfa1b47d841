/* Why a route's mean time (or that of its slowest) differs between two spans: the growth, and what
 * each row adds to it. The rows' deltas sum to the growth to the nanosecond. Pure; one thread. */
#ifndef TAILRACE_MODEL_CAUSE_H
#define TAILRACE_MODEL_CAUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/flame.h"
#include "model/rollup.h"

#define CAUSE_BLOCK_S 60      /* the bootstrap draws blocks of so long */
#define CAUSE_BLOCKS_MIN 10   /* a side; fewer are at most `likely` */
#define CAUSE_REQUESTS_MIN 30 /* a side; fewer are not enough */
#define CAUSE_BOOTSTRAP_DRAWS 400
#define CAUSE_INTERVAL 0.90
#define CAUSE_TAIL_QUANTILE 0.95 /* from this winning quantile on the tail may be looked at */

/* One side: rollups of CAUSE_BLOCK_S each (the first and last may be shorter), oldest first. What a
 * row folded away on one side is folded on the other by cause_compute(), so they are written to. */
struct cause_side {
	struct rollup **blocks; /* borrowed */
	size_t count;
};

struct cause_options {
	bool all; /* compare all exchanges; else the joined ones, of which alone everything is
	           * known (or those without a profile where there are no others) */
	double quantile;   /* the one that won in the detector; 0 = look at the mean only */
	double min_effect; /* relative growth of the mean from which on the mean is looked at */
	uint32_t
	    skip_phases; /* bit PHASE_x: leave this phase out of the time that is compared (what
	                       * `alerts.latency` does not count) */
	uint64_t seed;   /* of the bootstrap; same seed, same answer */
};

enum cause_verdict {
	CAUSE_NAMED,      /* the first row stands clear of the second */
	CAUSE_LIKELY,     /* it does not, or there are too few blocks */
	CAUSE_NOT_ENOUGH, /* too few requests on a side */
};
const char *cause_verdict_name(enum cause_verdict verdict); /* "named", "likely", "not enough
                                                             * requests" */

/* Rows of equal kind, cause and named frame (the innermost of the app) as one. */
struct cause_row {
	uint8_t kind, cause;
	const char *kind_name, *cause_name; /* static; cause_name null = none */
	char *frame;                        /* owned "module:function"; null = no stack */
	char *stack;                /* owned JSON array of frames: the stack that adds most to it */
	double before_ns, after_ns; /* mean per exchange */
	double before_count, after_count; /* waits, runs, … per exchange */
	int64_t delta_ns;                 /* of all rows together: growth_ns, exactly */
	double share;                     /* of the growth; 0 where that is 0 */
	double share_low, share_high;     /* CAUSE_INTERVAL of it; equal to share without blocks */
	double more_ns, longer_ns;        /* of delta: more often, and longer each time */
	uint32_t group;                   /* cause_compute()'s own */
};

/* A row that vanished and one that came, and that are one thing under another name. Their deltas
 * stay in the rows; in the ranking they are one. */
struct cause_moved {
	char *from, *to;        /* owned JSON arrays of frames */
	int64_t from_ns, to_ns; /* mean per exchange, before and after */
};

struct cause {
	enum cause_verdict verdict;
	bool tail; /* of the slowest `tail_share` of each side, not of the mean */
	double tail_share;
	bool alone; /* neither side has profiles: of the gateway's phases only */
	uint64_t before_requests, after_requests; /* exchanges */
	uint64_t before_compared, after_compared; /* of these, in the comparison: the joined ones */
	size_t before_blocks, after_blocks;       /* with exchanges in them */
	double before_ns, after_ns;               /* mean time */
	int64_t growth_ns;
	double coverage;        /* joined / sent to the app, both sides; 1 where nothing was sent */
	double estimated_share; /* of the compared time, from rows that are estimates */
	uint64_t dropped;       /* exchanges whose profile was lost, both sides */
	struct cause_row *rows; /* owned; what adds most to the growth first */
	size_t row_count;
	struct cause_moved *moved; /* owned */
	size_t moved_count;
};

/* Compares two sides. `names` knows their stacks (and learns parents). Owned, freed with
 * cause_free(). */
struct cause *cause_compute(const struct cause_side *before, const struct cause_side *after,
                            const struct cause_options *options, struct flame *names);
void cause_free(struct cause *cause); /* null-safe */

/* Folds on each side what the other had to fold: a row that only one side has, where the other has
 * folded rows into one of its parent frames. Both stay what they sum to. */
void cause_fold_both(struct rollup *a, struct rollup *b, struct flame *names);

#endif
