/* The bootstrap behind a cause's intervals: blocks of each side drawn with replacement. Deterministic
 * for a seed. Pure; one thread. */
#ifndef TAILRACE_MODEL_CAUSE_DRAW_H
#define TAILRACE_MODEL_CAUSE_DRAW_H

#include <stddef.h>
#include <stdint.h>

#define CAUSE_DRAW_GROUPS_MAX 33 /* the last one is all the rest */

/* One side as numbers: per block and slot (a band; one slot where all exchanges count) the exchanges
 * and per group the nanoseconds. */
struct cause_numbers {
	size_t blocks, slots, groups;
	double *exchanges; /* owned: [block][slot] */
	double *ns;        /* owned: [block][slot][group] */
};

struct cause_numbers cause_numbers_make(size_t blocks, size_t slots, size_t groups);
void cause_numbers_free(struct cause_numbers *numbers);

/* What CAUSE_BOOTSTRAP_DRAWS draws say, each at the two ends of CAUSE_INTERVAL. */
struct cause_interval {
	double low, high;
};
struct cause_draws {
	struct cause_interval
	    shares[CAUSE_DRAW_GROUPS_MAX]; /* of each group's delta in the growth */
	struct cause_interval growth_ns;
	struct cause_interval lead_ns; /* of group 0's delta over group 1's */
};

/* `share` is the slowest part of each side that counts (1 = all). Groups stand in the order of
 * their ranking. */
void cause_draw(const struct cause_numbers *before, const struct cause_numbers *after, double share,
                uint64_t seed, struct cause_draws *ret);

#endif
