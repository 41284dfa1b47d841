/* Both sides in one form. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/cause_sides.h"

#define VANISHED 0.01     /* of what it was: a row that is gone (or new) */
#define MOVED_CANCELS 0.2 /* of the larger: how far two deltas may be apart */

/* --- folding on both sides --------------- */

/* Steps up from `key` to the row of `other` that rows were folded into; 0 = there is none. */
static size_t
steps_to_folded(const struct rollup *other, const struct rollup_key *key, struct flame *names)
{
	struct rollup_key up = *key;
	for (size_t steps = 1; up.stack != 0; steps++) {
		up.stack = flame_parent(names, up.stack);
		const struct rollup_row *row = rollup_find(other, &up);
		if (row != NULL && row->folded)
			return steps;
	}
	return 0;
}

static void
fold_up(struct rollup *r, struct rollup_key key, size_t steps, struct flame *names)
{
	struct rollup_parents parents = {names, flame_parent};
	for (; steps > 0; steps--) {
		rollup_fold_row(r, &key, &parents);
		key.stack = flame_parent(names, key.stack);
	}
}

/* Rows that only `total` has are folded, in it and in the blocks it is the sum of. */
static void
fold_like(struct rollup *total, const struct rollup *other, struct rollup **blocks, size_t count,
          struct flame *names)
{
	struct rollup_key *keys = xcalloc(total->row_count + 1, sizeof(*keys));
	size_t key_count = total->row_count;
	for (size_t i = 0; i < key_count; i++)
		keys[i] = total->rows[i].key;
	for (size_t i = 0; i < key_count; i++) {
		if (keys[i].stack == 0 || rollup_find(other, &keys[i]) != NULL)
			continue;
		size_t steps = steps_to_folded(other, &keys[i], names);
		if (steps == 0)
			continue;
		fold_up(total, keys[i], steps, names);
		for (size_t b = 0; b < count; b++)
			fold_up(blocks[b], keys[i], steps, names);
	}
	free(keys);
}

void
cause_fold_both(struct rollup *a, struct rollup *b, struct flame *names)
{
	fold_like(a, b, NULL, 0, names);
	fold_like(b, a, NULL, 0, names);
}

/* --- making --------------- */

static void
side_take(struct cause_pair *pair, size_t side, const struct cause_side *from)
{
	pair->totals[side] = rollup_new();
	pair->blocks[side] = xcalloc(from->count + 1, sizeof(*pair->blocks[side]));
	for (size_t i = 0; i < from->count; i++) {
		if (from->blocks[i]->requests == 0)
			continue;
		rollup_merge(pair->totals[side], from->blocks[i]);
		pair->blocks[side][pair->block_counts[side]++] = from->blocks[i];
	}
}

static bool
counts(const struct cause_pair *pair, const struct rollup_key *key, uint32_t skip_phases)
{
	bool phase = key->kind == ROLLUP_PHASE || key->kind == ROLLUP_PHASE_ALONE;
	if (rollup_is_alone(key) ? !pair->alone : !pair->joined)
		return false;
	return !(phase && key->cause < PHASE_COUNT && skip_phases & 1u << key->cause);
}

static void
rows_make(struct cause_pair *pair, uint32_t skip_phases)
{
	size_t room = pair->totals[0]->row_count + pair->totals[1]->row_count;
	pair->rows = xcalloc(room + 1, sizeof(*pair->rows));
	for (size_t side = 0; side < 2; side++) {
		const struct rollup *r = pair->totals[side];
		for (size_t i = 0; i < r->row_count; i++) {
			const struct rollup_key *key = &r->rows[i].key;
			if (!counts(pair, key, skip_phases) ||
			    (side == 1 && rollup_find(pair->totals[0], key) != NULL))
				continue;
			pair->rows[pair->row_count++] =
			    (struct cause_pair_row){.key = *key, .moved_to = CAUSE_NOT_MOVED};
		}
	}
}

uint64_t
cause_band_count(const struct cause_pair *pair, const struct rollup *r, size_t band)
{
	const struct rollup_band *b = &r->bands[band];
	return (pair->joined ? b->joined : 0) + (pair->alone ? b->alone : 0);
}

void
cause_pair_make(struct cause_pair *pair, const struct cause_side *before,
                const struct cause_side *after, const struct cause_options *options,
                struct flame *names)
{
	*pair = (struct cause_pair){0};
	side_take(pair, 0, before);
	side_take(pair, 1, after);
	fold_like(pair->totals[0], pair->totals[1], pair->blocks[0], pair->block_counts[0], names);
	fold_like(pair->totals[1], pair->totals[0], pair->blocks[1], pair->block_counts[1], names);
	pair->joined = options->all || pair->totals[0]->joined > 0 || pair->totals[1]->joined > 0;
	pair->alone = options->all || !pair->joined;
	for (size_t side = 0; side < 2; side++)
		for (size_t band = 0; band < ROLLUP_BANDS; band++)
			pair->compared[side] += cause_band_count(pair, pair->totals[side], band);
	rows_make(pair, options->skip_phases);
}

void
cause_pair_clear(struct cause_pair *pair)
{
	for (size_t side = 0; side < 2; side++) {
		rollup_free(pair->totals[side]);
		free(pair->blocks[side]);
	}
	free(pair->rows);
}

/* --- sums --------------- */

/* The slowest part: every band above `band` whole, of `band` `taken` of `there` exchanges. */
struct part {
	size_t band;
	uint64_t taken, there;
};

static uint64_t
divisor(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;
		a = b;
		b = rest;
	}
	return a > 0 ? a : 1;
}

/* `wanted` of the slowest exchanges. */
static struct part
part_of(const struct cause_pair *pair, size_t side, uint64_t wanted)
{
	uint64_t above = 0;
	for (size_t band = ROLLUP_BANDS; band-- > 0;) {
		uint64_t there = cause_band_count(pair, pair->totals[side], band);
		if (there > 0 && above + there >= wanted) {
			uint64_t taken = wanted - above, by = divisor(taken, there);
			return (struct part){band, taken / by, there / by};
		}
		above += there;
	}
	return (struct part){0, 1, 1};
}

static struct cause_sum
row_sum(const struct rollup_row *row, const struct part *part)
{
	struct cause_sum sum = {0, 0};
	for (size_t i = 0; row != NULL && i < row->cell_count; i++) {
		const struct rollup_cell *cell = &row->cells[i];
		if (cell->band < part->band)
			continue;
		uint64_t weight = cell->band > part->band ? part->there : part->taken;
		sum.ns += (__int128)cell->ns * weight;
		sum.count += (__int128)cell->count * weight;
	}
	return sum;
}

void
cause_pair_sum(struct cause_pair *pair, double share)
{
	for (size_t side = 0; side < 2; side++) {
		uint64_t all = pair->compared[side];
		uint64_t wanted = share < 1 ? (uint64_t)ceil(share * (double)all - 1e-9) : all;
		if (wanted == 0 && all > 0)
			wanted = 1;
		struct part part = part_of(pair, side, wanted);
		pair->denominators[side] = wanted > 0 ? (__int128)wanted * part.there : 1;
		for (size_t i = 0; i < pair->row_count; i++)
			pair->rows[i].sums[side] =
			    row_sum(rollup_find(pair->totals[side], &pair->rows[i].key), &part);
	}
}

/* --- moved code --------------- */

static double
side_mean(const struct cause_pair *pair, size_t row, size_t side)
{
	return (double)pair->rows[row].sums[side].ns / (double)pair->denominators[side];
}

static bool
only_on(const struct cause_pair *pair, size_t row, size_t side)
{
	double here = side_mean(pair, row, side), there = side_mean(pair, row, 1 - side);
	return pair->rows[row].key.stack != 0 && here > 0 && there < VANISHED * here;
}

static bool
same_frame(const struct flame_frame *a, const struct flame_frame *b)
{
	return strcmp(a->module, b->module) == 0 && strcmp(a->function, b->function) == 0;
}

/* The same named frame, or the same leaf under one outermost frame. */
static bool
may_be_one(const struct flame *names, uint64_t a, uint64_t b)
{
	struct flame_frame x, y;
	size_t m = flame_depth(names, a), n = flame_depth(names, b);
	if (!flame_named(names, a, &x) || !flame_named(names, b, &y))
		return false;
	if (same_frame(&x, &y))
		return true;
	if (m < 2 || n < 2)
		return false;
	struct flame_frame leaf_a = flame_frame(names, a, m - 1);
	struct flame_frame leaf_b = flame_frame(names, b, n - 1);
	struct flame_frame top_a = flame_frame(names, a, 0), top_b = flame_frame(names, b, 0);
	return same_frame(&leaf_a, &leaf_b) && same_frame(&top_a, &top_b);
}

/* The new row that the vanished row `from` became, or CAUSE_NOT_MOVED. */
static size_t
became(const struct cause_pair *pair, size_t from, const bool *taken, const struct flame *names)
{
	const struct rollup_key *key = &pair->rows[from].key;
	double before = side_mean(pair, from, 0), best = INFINITY;
	size_t found = CAUSE_NOT_MOVED;
	for (size_t i = 0; i < pair->row_count; i++) {
		const struct rollup_key *to = &pair->rows[i].key;
		if (taken[i] || to->kind != key->kind || to->cause != key->cause ||
		    !only_on(pair, i, 1))
			continue;
		double after = side_mean(pair, i, 1), apart = fabs(after - before);
		if (apart > MOVED_CANCELS * fmax(after, before) || apart >= best ||
		    !may_be_one(names, key->stack, to->stack))
			continue;
		best = apart;
		found = i;
	}
	return found;
}

void
cause_pair_moved(struct cause_pair *pair, struct flame *names, struct cause *c)
{
	bool *taken = xcalloc(pair->row_count + 1, sizeof(*taken));
	c->moved = xcalloc(pair->row_count + 1, sizeof(*c->moved));
	for (size_t i = 0; i < pair->row_count; i++) {
		if (!only_on(pair, i, 0))
			continue;
		size_t to = became(pair, i, taken, names);
		pair->rows[i].moved_to = to;
		if (to == CAUSE_NOT_MOVED)
			continue;
		taken[to] = true;
		c->moved[c->moved_count++] = (struct cause_moved){
		    .from = cause_stack_text(names, pair->rows[i].key.stack),
		    .to = cause_stack_text(names, pair->rows[to].key.stack),
		    .from_ns = (int64_t)side_mean(pair, i, 0),
		    .to_ns = (int64_t)side_mean(pair, to, 1),
		};
	}
	free(taken);
}
