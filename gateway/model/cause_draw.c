/* Drawing blocks. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/cause.h"
#include "model/cause_draw.h"

struct cause_numbers
cause_numbers_make(size_t blocks, size_t slots, size_t groups)
{
	return (struct cause_numbers){
	    .blocks = blocks,
	    .slots = slots,
	    .groups = groups,
	    .exchanges = xcalloc(blocks * slots + 1, sizeof(double)),
	    .ns = xcalloc(blocks * slots * groups + 1, sizeof(double)),
	};
}

void
cause_numbers_free(struct cause_numbers *numbers)
{
	free(numbers->exchanges);
	free(numbers->ns);
	*numbers = (struct cause_numbers){0};
}

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t
random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* One draw of a side: as many blocks as it has, summed into one. */
static void
draw_blocks(const struct cause_numbers *side, uint64_t *state, struct cause_numbers *sum)
{
	size_t width = side->slots * side->groups;
	memset(sum->exchanges, 0, side->slots * sizeof(double));
	memset(sum->ns, 0, width * sizeof(double));
	for (size_t i = 0; i < side->blocks; i++) {
		size_t block = random_next(state) % side->blocks;
		const double *ns = side->ns + block * width;
		for (size_t slot = 0; slot < side->slots; slot++) {
			double count = side->exchanges[block * side->slots + slot];
			if (count == 0)
				continue;
			sum->exchanges[slot] += count;
			for (size_t g = 0; g < side->groups; g++)
				sum->ns[slot * side->groups + g] += ns[slot * side->groups + g];
		}
	}
}

/* Mean per exchange and group over the slowest `share`, the boundary slot in proportion. */
static void
mean_of(const struct cause_numbers *sum, double share, double *ret)
{
	double all = 0, taken = 0;
	for (size_t slot = 0; slot < sum->slots; slot++)
		all += sum->exchanges[slot];
	double wanted = all * share;
	memset(ret, 0, sum->groups * sizeof(*ret));
	for (size_t slot = sum->slots; slot-- > 0 && taken < wanted;) {
		double count = sum->exchanges[slot];
		if (count == 0)
			continue;
		double part = taken + count > wanted ? (wanted - taken) / count : 1;
		for (size_t g = 0; g < sum->groups; g++)
			ret[g] += part * sum->ns[slot * sum->groups + g];
		taken += part * count;
	}
	for (size_t g = 0; g < sum->groups && taken > 0; g++)
		ret[g] /= taken;
}

static int
ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* `values` are sorted in place. */
static struct cause_interval
interval(double values[CAUSE_BOOTSTRAP_DRAWS])
{
	const double cut = (1 - CAUSE_INTERVAL) / 2;
	size_t last = CAUSE_BOOTSTRAP_DRAWS - 1, low = (size_t)(cut * (double)last);
	qsort(values, CAUSE_BOOTSTRAP_DRAWS, sizeof(*values), ascending);
	return (struct cause_interval){values[low], values[last - low]};
}

struct drawn {
	double shares[CAUSE_DRAW_GROUPS_MAX][CAUSE_BOOTSTRAP_DRAWS];
	double growth[CAUSE_BOOTSTRAP_DRAWS], lead[CAUSE_BOOTSTRAP_DRAWS];
};

static void
note(struct drawn *drawn, size_t at, const double *before, const double *after, size_t groups)
{
	double growth = 0;
	for (size_t g = 0; g < groups; g++)
		growth += after[g] - before[g];
	drawn->growth[at] = growth;
	drawn->lead[at] =
	    groups > 1 ? after[0] - before[0] - (after[1] - before[1]) : after[0] - before[0];
	for (size_t g = 0; g < groups; g++)
		drawn->shares[g][at] = growth != 0 ? (after[g] - before[g]) / growth : 0;
}

void
cause_draw(const struct cause_numbers *before, const struct cause_numbers *after, double share,
           uint64_t seed, struct cause_draws *ret)
{
	double b[CAUSE_DRAW_GROUPS_MAX], a[CAUSE_DRAW_GROUPS_MAX];
	struct cause_numbers sum = cause_numbers_make(1, before->slots, before->groups);
	struct drawn *drawn = xcalloc(1, sizeof(*drawn));
	for (size_t i = 0; i < CAUSE_BOOTSTRAP_DRAWS; i++) {
		draw_blocks(before, &seed, &sum);
		mean_of(&sum, share, b);
		draw_blocks(after, &seed, &sum);
		mean_of(&sum, share, a);
		note(drawn, i, b, a, before->groups);
	}
	for (size_t g = 0; g < before->groups; g++)
		ret->shares[g] = interval(drawn->shares[g]);
	ret->growth_ns = interval(drawn->growth);
	ret->lead_ns = interval(drawn->lead);
	cause_numbers_free(&sum);
	free(drawn);
}
