/* Two sides brought to one form: folded alike, the same rows, sums as fractions of one denominator a
 * side. The inside of model/cause. Pure; one thread. */
#ifndef TAILRACE_MODEL_CAUSE_SIDES_H
#define TAILRACE_MODEL_CAUSE_SIDES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/cause.h"

#define CAUSE_NOT_MOVED SIZE_MAX

struct cause_sum {
	__int128 ns, count; /* divided by the side's denominator: the mean per exchange */
};

struct cause_pair_row {
	struct rollup_key key;
	struct cause_sum sums[2]; /* before, after */
	size_t moved_to;          /* the row that this one became, or CAUSE_NOT_MOVED */
};

struct cause_pair {
	bool joined, alone; /* which exchanges are compared: those with a profile, those without */
	struct rollup *totals[2];  /* owned: sums of the blocks */
	struct rollup **blocks[2]; /* owned list of borrowed blocks with exchanges in them */
	size_t block_counts[2];
	uint64_t compared[2]; /* exchanges of the population */
	__int128 denominators[2];
	struct cause_pair_row *rows; /* owned: of either side, of the population, not skipped */
	size_t row_count;
};

void cause_pair_make(struct cause_pair *pair, const struct cause_side *before,
                     const struct cause_side *after, const struct cause_options *options,
                     struct flame *names);

/* Exchanges of the population in one band of a rollup. */
uint64_t cause_band_count(const struct cause_pair *pair, const struct rollup *rollup, size_t band);
void cause_pair_clear(struct cause_pair *pair);

/* Sums over the slowest `share` of each side (1 = all), whole exchanges, rounded up; the band in
 * which the boundary lies counts in proportion. */
void cause_pair_sum(struct cause_pair *pair, double share);

/* Finds what has only moved: into the rows' moved_to and the cause's list. */
void cause_pair_moved(struct cause_pair *pair, struct flame *names, struct cause *cause);

/* Owned. */
char *cause_stack_text(const struct flame *names, uint64_t stack);

#endif
