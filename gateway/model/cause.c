/* Growth to rows: exact fractions over the two sides, groups by named frame, ranking, verdict. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/cause.h"
#include "model/cause_draw.h"
#include "model/cause_sides.h"

const char *
cause_verdict_name(enum cause_verdict verdict)
{
	static const char *const names[] = {"named", "likely", "not enough requests"};
	return names[verdict];
}

/* --- groups --------------- */

struct group {
	uint8_t kind, cause;
	uint64_t frame; /* flame_key() of the named frame; 0 = none */
	int64_t delta_ns;
	struct cause_sum sums[2]; /* before, after */
	uint64_t stack;           /* of the row that adds most */
	double most_ns;
};

struct work {
	struct cause_pair pair;
	struct flame *names;
	struct group *groups; /* owned */
	size_t group_count, group_room;
	size_t *of_row; /* owned: group of each row of the pair */
};

static uint64_t
frame_id(const struct flame *names, uint64_t stack)
{
	struct flame_frame frame;
	if (!flame_named(names, stack, &frame))
		return stack; /* a stack whose names are lost is one of its own */
	return flame_key(0, frame.module, frame.function);
}

static size_t
group_of(struct work *w, const struct rollup_key *key)
{
	uint8_t kind = key->kind == ROLLUP_PHASE_ALONE ? ROLLUP_PHASE : key->kind;
	uint64_t frame = key->stack != 0 ? frame_id(w->names, key->stack) : 0;
	for (size_t i = 0; i < w->group_count; i++)
		if (w->groups[i].kind == kind && w->groups[i].cause == key->cause &&
		    w->groups[i].frame == frame)
			return i;
	if (w->group_count == w->group_room) {
		w->group_room = w->group_room > 0 ? 2 * w->group_room : 32;
		w->groups = xrealloc(w->groups, w->group_room, sizeof(*w->groups));
	}
	w->groups[w->group_count] =
	    (struct group){.kind = kind, .cause = key->cause, .frame = frame, .most_ns = -1};
	return w->group_count++;
}

static double
mean(const struct cause_pair *pair, size_t side, __int128 sum)
{
	return (double)sum / (double)pair->denominators[side];
}

static void
group_add(const struct work *w, struct group *group, const struct cause_pair_row *row)
{
	double delta = mean(&w->pair, 1, row->sums[1].ns) - mean(&w->pair, 0, row->sums[0].ns);
	for (size_t side = 0; side < 2; side++) {
		group->sums[side].ns += row->sums[side].ns;
		group->sums[side].count += row->sums[side].count;
	}
	if (fabs(delta) > group->most_ns) {
		group->most_ns = fabs(delta);
		group->stack = row->key.stack;
	}
}

static void
groups_make(struct work *w)
{
	w->of_row = xcalloc(w->pair.row_count + 1, sizeof(*w->of_row));
	for (size_t i = 0; i < w->pair.row_count; i++)
		w->of_row[i] = group_of(w, &w->pair.rows[i].key);
	for (size_t i = 0; i < w->pair.row_count; i++) {
		const struct cause_pair_row *row = &w->pair.rows[i];
		/* What has only moved is ranked where it went. */
		if (row->moved_to != CAUSE_NOT_MOVED)
			w->of_row[i] = w->of_row[row->moved_to];
	}
	for (size_t i = 0; i < w->pair.row_count; i++)
		group_add(w, &w->groups[w->of_row[i]], &w->pair.rows[i]);
}

/* --- whole nanoseconds that sum --------------- */

struct rest {
	__int128 rest;
	size_t group;
};

static int
rest_first(const void *a, const void *b)
{
	const struct rest *x = a, *y = b;
	if (x->rest != y->rest)
		return x->rest < y->rest ? 1 : -1;
	return (x->group > y->group) - (x->group < y->group);
}

static __int128
floor_of(__int128 n, __int128 d)
{
	return n / d - (n % d < 0);
}

/* Deltas are fractions over one denominator: each is rounded down, and the nanoseconds that the
 * growth has more go to those with the largest rests. Returns the growth. */
static int64_t
deltas_make(struct work *w)
{
	struct rest *rests = xcalloc(w->group_count + 1, sizeof(*rests));
	__int128 all = w->pair.denominators[0] * w->pair.denominators[1], sum = 0, whole = 0;
	for (size_t i = 0; i < w->group_count; i++) {
		struct group *g = &w->groups[i];
		__int128 delta = g->sums[1].ns * w->pair.denominators[0] -
		                 g->sums[0].ns * w->pair.denominators[1];
		__int128 down = floor_of(delta, all);
		g->delta_ns = (int64_t)down;
		rests[i] = (struct rest){delta - down * all, i};
		sum += delta;
		whole += down;
	}
	__int128 growth = floor_of(sum + all / 2, all);
	qsort(rests, w->group_count, sizeof(*rests), rest_first);
	for (size_t i = 0; i < w->group_count && whole < growth; i++, whole++)
		w->groups[rests[i].group].delta_ns++;
	free(rests);
	return (int64_t)growth;
}

/* --- ranking --------------- */

static int
adds_most(const void *a, const void *b)
{
	const struct cause_row *x = a, *y = b;
	if (x->share != y->share)
		return x->share < y->share ? 1 : -1;
	if (x->after_ns != y->after_ns)
		return x->after_ns < y->after_ns ? 1 : -1;
	return (x->kind > y->kind) - (x->kind < y->kind);
}

static char *
frame_text(const struct flame *names, uint64_t stack)
{
	struct flame_frame frame;
	if (stack == 0 || !flame_named(names, stack, &frame))
		return NULL;
	size_t size = strlen(frame.module) + strlen(frame.function) + 2;
	char *text = xcalloc(1, size);
	snprintf(text, size, "%s:%s", frame.module, frame.function);
	return text;
}

char *
cause_stack_text(const struct flame *names, uint64_t stack)
{
	struct text text = {0};
	flame_write(names, stack, &text);
	return text.failed ? xstrdup("[]") : text.data;
}

/* Half of what both changed together goes to each: their sum is the delta. */
static void
split(struct cause_row *row)
{
	double b = row->before_count, a = row->after_count;
	double long_a = a > 0 ? row->after_ns / a : 0, long_b = b > 0 ? row->before_ns / b : long_a;
	if (a <= 0)
		long_a = long_b;
	row->more_ns = (a - b) * (long_a + long_b) / 2;
	row->longer_ns = (long_a - long_b) * (a + b) / 2;
}

static void
row_make(const struct work *w, const struct group *g, int64_t growth_ns, struct cause_row *row)
{
	struct rollup_key key = {.kind = g->kind, .cause = g->cause};
	*row = (struct cause_row){
	    .kind = g->kind,
	    .cause = g->cause,
	    .kind_name = rollup_kind_name(g->kind),
	    .cause_name = rollup_cause_name(&key),
	    .frame = frame_text(w->names, g->stack),
	    .stack = cause_stack_text(w->names, g->stack),
	    .before_ns = mean(&w->pair, 0, g->sums[0].ns),
	    .after_ns = mean(&w->pair, 1, g->sums[1].ns),
	    .before_count = mean(&w->pair, 0, g->sums[0].count),
	    .after_count = mean(&w->pair, 1, g->sums[1].count),
	    .delta_ns = g->delta_ns,
	    .share = growth_ns != 0 ? (double)g->delta_ns / (double)growth_ns : 0,
	};
	row->share_low = row->share_high = row->share;
	split(row);
}

/* Rows of the cause and groups of the work in one order. */
static void
rank(struct work *w, struct cause *c, size_t *ret_rank)
{
	struct cause_row *rows = xcalloc(w->group_count + 1, sizeof(*rows));
	for (size_t i = 0; i < w->group_count; i++) {
		row_make(w, &w->groups[i], c->growth_ns, &rows[i]);
		rows[i].group = (uint32_t)i;
	}
	qsort(rows, w->group_count, sizeof(*rows), adds_most);
	for (size_t i = 0; i < w->group_count; i++)
		ret_rank[rows[i].group] = i;
	c->rows = rows;
	c->row_count = w->group_count;
}

/* --- how sure --------------- */

static void
numbers_fill(const struct work *w, size_t side, const size_t *rank_of, struct cause_numbers *n)
{
	const struct cause_pair *pair = &w->pair;
	for (size_t b = 0; b < n->blocks; b++) {
		const struct rollup *block = pair->blocks[side][b];
		for (size_t band = 0; band < ROLLUP_BANDS; band++) {
			size_t slot = n->slots > 1 ? band : 0;
			n->exchanges[b * n->slots + slot] +=
			    (double)cause_band_count(pair, block, band);
		}
		for (size_t i = 0; i < pair->row_count; i++) {
			const struct rollup_row *row = rollup_find(block, &pair->rows[i].key);
			size_t g = rank_of[w->of_row[i]];
			g = g < n->groups ? g : n->groups - 1;
			for (size_t k = 0; row != NULL && k < row->cell_count; k++) {
				size_t slot = n->slots > 1 ? row->cells[k].band : 0;
				n->ns[(b * n->slots + slot) * n->groups + g] +=
				    (double)row->cells[k].ns;
			}
		}
	}
}

static bool
stands_clear(const struct cause_draws *draws, int64_t growth_ns)
{
	if (growth_ns >= 0)
		return draws->growth_ns.low > 0 && draws->lead_ns.low > 0;
	return draws->growth_ns.high < 0 && draws->lead_ns.high < 0;
}

static void
judge(const struct work *w, struct cause *c, const size_t *rank_of, uint64_t seed)
{
	struct cause_numbers sides[2];
	struct cause_draws draws;
	size_t groups = c->row_count < CAUSE_DRAW_GROUPS_MAX ? c->row_count : CAUSE_DRAW_GROUPS_MAX;
	c->verdict = CAUSE_LIKELY;
	if (c->before_compared < CAUSE_REQUESTS_MIN || c->after_compared < CAUSE_REQUESTS_MIN)
		c->verdict = CAUSE_NOT_ENOUGH;
	if (groups == 0 || w->pair.block_counts[0] == 0 || w->pair.block_counts[1] == 0)
		return;
	for (size_t side = 0; side < 2; side++) {
		sides[side] = cause_numbers_make(w->pair.block_counts[side],
		                                 c->tail ? ROLLUP_BANDS : 1, groups);
		numbers_fill(w, side, rank_of, &sides[side]);
	}
	cause_draw(&sides[0], &sides[1], c->tail_share, seed, &draws);
	for (size_t i = 0; i < groups && i + 1 < CAUSE_DRAW_GROUPS_MAX; i++) {
		c->rows[i].share_low = fmin(draws.shares[i].low, c->rows[i].share);
		c->rows[i].share_high = fmax(draws.shares[i].high, c->rows[i].share);
	}
	if (c->verdict == CAUSE_LIKELY && c->before_blocks >= CAUSE_BLOCKS_MIN &&
	    c->after_blocks >= CAUSE_BLOCKS_MIN && stands_clear(&draws, c->growth_ns))
		c->verdict = CAUSE_NAMED;
	cause_numbers_free(&sides[0]);
	cause_numbers_free(&sides[1]);
}

/* --- the whole --------------- */

static void
head_fill(const struct cause_pair *pair, struct cause *c)
{
	const struct rollup *b = pair->totals[0], *a = pair->totals[1];
	uint64_t sent = b->sent + a->sent, joined = b->joined + a->joined;
	uint64_t joined_ns = b->joined_ns + a->joined_ns;
	c->alone = !pair->joined;
	c->before_requests = b->requests;
	c->after_requests = a->requests;
	c->before_compared = pair->compared[0];
	c->after_compared = pair->compared[1];
	c->before_blocks = pair->block_counts[0];
	c->after_blocks = pair->block_counts[1];
	c->dropped = b->dropped + a->dropped;
	c->coverage = sent > 0 ? (double)joined / (double)sent : 1;
	c->estimated_share =
	    joined_ns > 0 ? (double)(b->estimated_ns + a->estimated_ns) / (double)joined_ns : 0;
}

/* The mean, unless it hardly grew and the detector saw the tail. */
static double
tail_share(const struct cause_pair *pair, const struct cause_options *options)
{
	double means[2] = {0, 0};
	if (options->quantile < CAUSE_TAIL_QUANTILE || options->quantile >= 1)
		return 1;
	for (size_t side = 0; side < 2; side++)
		for (size_t i = 0; i < pair->row_count; i++)
			means[side] += mean(pair, side, pair->rows[i].sums[side].ns);
	return means[1] - means[0] < options->min_effect * means[0] ? 1 - options->quantile : 1;
}

struct cause *
cause_compute(const struct cause_side *before, const struct cause_side *after,
              const struct cause_options *options, struct flame *names)
{
	struct work w = {.names = names};
	struct cause *c = xcalloc(1, sizeof(*c));
	cause_pair_make(&w.pair, before, after, options, names);
	cause_pair_sum(&w.pair, 1);
	c->tail_share = tail_share(&w.pair, options);
	c->tail = c->tail_share < 1;
	if (c->tail)
		cause_pair_sum(&w.pair, c->tail_share);
	cause_pair_moved(&w.pair, names, c);
	groups_make(&w);
	head_fill(&w.pair, c);
	c->growth_ns = deltas_make(&w);
	size_t *rank_of = xcalloc(w.group_count + 1, sizeof(*rank_of));
	rank(&w, c, rank_of);
	for (size_t i = 0; i < c->row_count; i++) {
		c->before_ns += c->rows[i].before_ns;
		c->after_ns += c->rows[i].after_ns;
	}
	judge(&w, c, rank_of, options->seed);
	free(rank_of);
	free(w.groups);
	free(w.of_row);
	cause_pair_clear(&w.pair);
	return c;
}

void
cause_free(struct cause *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->row_count; i++) {
		free(c->rows[i].frame);
		free(c->rows[i].stack);
	}
	for (size_t i = 0; i < c->moved_count; i++) {
		free(c->moved[i].from);
		free(c->moved[i].to);
	}
	free(c->rows);
	free(c->moved);
	free(c);
}
