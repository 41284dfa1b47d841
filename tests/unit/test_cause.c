/* cause: deltas that sum to the growth to the nanosecond, the right frame on top in simulated
 * regressions, tails in proportion, intervals that repeat, moved code, folding on both sides. */
#include <math.h>
#include "model/cause.h"
#include "rollup_kit.h"

#define FRAMES 8
#define REPEATS 300
#define SIDE 1000 /* exchanges */
#define BLOCKS 20
#define MS 1000000.0

static struct flame *flame;
static uint64_t stacks[FRAMES];
/* Like an endpoint: two queries, an HTTP call, a cache, CPU in three places, a pool. */
static const struct {
	const char *frames;
	uint8_t kind, cause;
	double median_ms;
} frames[FRAMES] = {
    {"app:main/app:user/lib:fetch", PROFILE_WAIT, PROFILE_CAUSE_DATABASE, 12},
    {"app:main/app:orders/lib:fetch", PROFILE_WAIT, PROFILE_CAUSE_DATABASE, 20},
    {"app:main/app:rates/lib:get", PROFILE_WAIT, PROFILE_CAUSE_HTTP, 40},
    {"app:main/app:session/lib:get", PROFILE_WAIT, PROFILE_CAUSE_CACHE, 2},
    {"app:main/app:render", PROFILE_RUN, PROFILE_CAUSE_COUNT, 5},
    {"app:main/app:price", PROFILE_RUN, PROFILE_CAUSE_COUNT, 3},
    {"app:main/app:user/lib:acquire", PROFILE_WAIT, PROFILE_CAUSE_POOL, 1},
    {"app:main/app:audit", PROFILE_THREAD_RUN, PROFILE_CAUSE_COUNT, 8},
};

static int
set_up(void **state)
{
	(void)state;
	flame = flame_new(FLAME_STACKS_MAX, FLAME_FRAMES_MAX);
	for (size_t i = 0; i < FRAMES; i++)
		stacks[i] = kit_stack(flame, frames[i].frames);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	flame_free(flame);
	return 0;
}

static double
normal(uint64_t *state)
{
	double u = kit_uniform(state), v = kit_uniform(state);
	return sqrt(-2 * log(u > 0 ? u : 1e-300)) * cos(6.283185307179586 * v);
}

enum change { SAME, SCALE, SUBPOPULATION, SMALL, LOOP_BLOCKED, CHANGES };

/* One exchange: log-normal frames that share a part of their noise; *ret_added_ns: what the change
 * added to its row. Row FRAMES is `ready`. */
static void
exchange(struct rollup *r, uint64_t *random, enum change change, double *ret_added_ns)
{
	struct rollup_part parts[FRAMES + 1];
	struct rollup_exchange x = {.joined = true, .sent = true, .parts = parts};
	double load = 0.15 * normal(random);
	*ret_added_ns = 0;
	for (size_t i = 0; i < FRAMES; i++) {
		double ns = frames[i].median_ms * MS * exp(load + 0.35 * normal(random));
		double was = ns;
		if (i == 1 && change == SCALE)
			ns *= 2.2;
		if (i == 2 && change == SUBPOPULATION && kit_uniform(random) < 0.2)
			ns += 180 * MS;
		if (i == 0 && change == SMALL)
			ns *= 1.3;
		*ret_added_ns += ns - was;
		parts[i] = (struct rollup_part){.key = {stacks[i], frames[i].kind, frames[i].cause},
		                                .ns = (uint64_t)ns,
		                                .count = 1};
	}
	double ready = 0.3 * MS * exp(0.5 * normal(random));
	if (change == LOOP_BLOCKED && kit_uniform(random) < 0.4) {
		*ret_added_ns = 80 * MS * kit_uniform(random);
		ready += *ret_added_ns;
	}
	parts[FRAMES] = (struct rollup_part){
	    .key = {0, PROFILE_READY, PROFILE_CAUSE_COUNT}, .ns = (uint64_t)ready, .count = 3};
	x.part_count = FRAMES + 1;
	for (size_t i = 0; i < x.part_count; i++)
		x.total_ns += parts[i].ns;
	rollup_add(r, &x);
}

struct sides {
	struct rollup *blocks[2][BLOCKS];
	struct cause_side before, after;
	double added_ns; /* mean of what the change added */
};

static void
sides_make(struct sides *s, uint64_t seed, enum change change, size_t count)
{
	uint64_t random = seed * 7919 + change;
	*s = (struct sides){.before = {s->blocks[0], BLOCKS}, .after = {s->blocks[1], BLOCKS}};
	for (size_t side = 0; side < 2; side++) {
		for (size_t b = 0; b < BLOCKS; b++)
			s->blocks[side][b] = rollup_new();
		for (size_t i = 0; i < count; i++) {
			double added;
			exchange(s->blocks[side][i * BLOCKS / count], &random, side ? change : SAME,
			         &added);
			s->added_ns += side ? added / (double)count : 0;
		}
	}
}

static void
sides_free(struct sides *s)
{
	for (size_t side = 0; side < 2; side++)
		for (size_t b = 0; b < BLOCKS; b++)
			rollup_free(s->blocks[side][b]);
}

static void
sums_hold(const struct cause *c)
{
	int64_t sum = 0;
	for (size_t i = 0; i < c->row_count; i++) {
		const struct cause_row *row = &c->rows[i];
		sum += row->delta_ns;
		assert_true(fabs((double)row->delta_ns - (row->after_ns - row->before_ns)) < 1.5);
		assert_true(fabs((double)row->delta_ns - row->more_ns - row->longer_ns) < 2);
		assert_true(row->share_low <= row->share && row->share <= row->share_high);
	}
	assert_int_equal(sum, c->growth_ns);
	assert_true(fabs((double)c->growth_ns - (c->after_ns - c->before_ns)) < 1);
}

static int
ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Four ways to get slower, 300 times each. */
static void
test_simulation(void **state)
{
	static const char *const guilty[CHANGES] = {NULL, "app:orders", "app:rates", "app:user",
	                                            NULL};
	static const char *const names[CHANGES] = {"same", "scale", "subpopulation", "small",
	                                           "loop"};
	static double errors[REPEATS];
	const struct cause_options options = {.seed = 1};
	(void)state;
	for (enum change change = SCALE; change < CHANGES; change++) {
		unsigned right = 0, named = 0, covered = 0;
		for (uint64_t i = 0; i < REPEATS; i++) {
			struct sides s;
			sides_make(&s, i, change, SIDE);
			struct cause *c = cause_compute(&s.before, &s.after, &options, flame);
			const struct cause_row *top = &c->rows[0];
			double truth = s.added_ns / (double)c->growth_ns;
			sums_hold(c);
			assert_int_equal(c->after_compared, SIDE);
			if (change == LOOP_BLOCKED
			        ? top->kind == PROFILE_READY
			        : top->kind == PROFILE_WAIT && top->cause != PROFILE_CAUSE_POOL &&
			              top->frame != NULL && strcmp(top->frame, guilty[change]) == 0)
				right++;
			named += c->verdict == CAUSE_NAMED;
			covered += top->share_low <= truth && truth <= top->share_high;
			errors[i] = fabs(top->share - truth);
			cause_free(c);
			sides_free(&s);
		}
		qsort(errors, REPEATS, sizeof(errors[0]), ascending);
		print_message(
		    "%-14s right %u, named %u, covered %u of %d, share error median %.3f\n",
		    names[change], right, named, covered, REPEATS, errors[REPEATS / 2]);
		assert_true(right >= REPEATS * 99 / 100);
		assert_true(errors[REPEATS / 2] <= 0.05);
	}
}

/* Nothing changed: no row may be called the cause (a tenth by the interval's own width, twice over:
 * growth and lead must both stand clear). */
static void
test_nothing_changed(void **state)
{
	const struct cause_options options = {.seed = 1};
	unsigned named = 0;
	(void)state;
	for (uint64_t i = 0; i < 100; i++) {
		struct sides s;
		sides_make(&s, i + 50000, SAME, SIDE);
		struct cause *c = cause_compute(&s.before, &s.after, &options, flame);
		sums_hold(c);
		named += c->verdict == CAUSE_NAMED;
		cause_free(c);
		sides_free(&s);
	}
	assert_true(named <= 10);
}

static void
test_repeats(void **state)
{
	const struct cause_options options = {.seed = 42};
	struct sides s;
	(void)state;
	sides_make(&s, 3, SCALE, 500);
	struct cause *a = cause_compute(&s.before, &s.after, &options, flame);
	struct cause *b = cause_compute(&s.before, &s.after, &options, flame);
	assert_true(a->rows[0].share_low == b->rows[0].share_low);
	assert_true(a->rows[0].share_high == b->rows[0].share_high);
	assert_int_equal(a->verdict, CAUSE_NAMED);
	cause_free(a);
	cause_free(b);
	/* Under ten blocks a side it is never more than likely. */
	s.after.count = CAUSE_BLOCKS_MIN - 1;
	a = cause_compute(&s.before, &s.after, &options, flame);
	assert_int_equal(a->verdict, CAUSE_LIKELY);
	cause_free(a);
	sides_free(&s);
	sides_make(&s, 3, SCALE, CAUSE_REQUESTS_MIN - 1);
	a = cause_compute(&s.before, &s.after, &options, flame);
	assert_int_equal(a->verdict, CAUSE_NOT_ENOUGH);
	sums_hold(a);
	cause_free(a);
	sides_free(&s);
}

/* --- by hand --------------- */

/* `count` joined exchanges of one wait each. */
static void
add(struct rollup *r, unsigned count, uint64_t stack, uint64_t ns, uint64_t waits)
{
	struct rollup_part part = {
	    .key = {stack, PROFILE_WAIT, PROFILE_CAUSE_DATABASE}, .ns = ns, .count = waits};
	struct rollup_exchange x = {
	    .total_ns = ns, .joined = true, .sent = true, .parts = &part, .part_count = 1};
	for (unsigned i = 0; i < count; i++)
		rollup_add(r, &x);
}

static struct cause *
compare(struct rollup *before, struct rollup *after, const struct cause_options *options)
{
	struct cause_side b = {&before, 1}, a = {&after, 1};
	return cause_compute(&b, &a, options, flame);
}

/* Thirds of nanoseconds: the deltas still sum. */
static void
test_rounding(void **state)
{
	const struct cause_options options = {0};
	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct rollup *before = rollup_new(), *after = rollup_new();
		uint64_t random = seed;
		for (unsigned i = 0; i < 3 + seed % 5; i++)
			add(before, 1, stacks[kit_random(&random) % FRAMES],
			    kit_random(&random) % 1000, 1);
		for (unsigned i = 0; i < 7 + seed % 3; i++)
			add(after, 1, stacks[kit_random(&random) % FRAMES],
			    kit_random(&random) % 1000, 1);
		struct cause *c = compare(before, after, &options);
		sums_hold(c);
		cause_free(c);
		rollup_free(before);
		rollup_free(after);
	}
}

/* The slowest 5 % of each side: 5 of 100 lie in the band of 900 ms, of which 10 are there. */
static void
test_tail(void **state)
{
	const struct cause_options options = {.quantile = 0.95, .min_effect = 0.1};
	struct rollup *before = rollup_new(), *after = rollup_new();
	(void)state;
	add(before, 90, stacks[0], 100000000, 1);
	add(before, 10, stacks[1], 900000000, 1);
	add(after, 90, stacks[0], 99000000, 1);
	add(after, 8, stacks[1], 900000000, 1);
	add(after, 2, stacks[2], 2000000000, 1);
	struct cause *c = compare(before, after, &options);
	/* The mean grew by 11 %: it is looked at. */
	assert_false(c->tail);
	assert_int_equal(c->growth_ns, 21100000);
	cause_free(c);
	add(before, 900, stacks[0], 100000000, 1);
	add(after, 900, stacks[0], 100000000, 1);
	/* 990 : 10 a side, mean growth under 10 %; the slowest 5 % are 50 of 1000: all of the 10
	 * and 40 of the 990 in their band, in proportion. */
	c = compare(before, after, &options);
	assert_true(c->tail);
	assert_true(fabs(c->tail_share - 0.05) < 1e-9);
	sums_hold(c);
	assert_string_equal(c->rows[0].frame, "app:rates");
	assert_int_equal(c->rows[0].delta_ns, 2 * 2000000000ll / 50);
	assert_string_equal(c->rows[c->row_count - 1].frame, "app:orders");
	assert_int_equal(c->rows[c->row_count - 1].delta_ns, -2 * 900000000ll / 50);
	cause_free(c);
	rollup_free(before);
	rollup_free(after);
}

static void
test_more_or_longer(void **state)
{
	const struct cause_options options = {0};
	struct rollup *before = rollup_new(), *after = rollup_new();
	(void)state;
	add(before, 50, stacks[0], 10000000, 1);
	add(after, 50, stacks[0], 40000000, 4); /* four times as often, each as long */
	struct cause *c = compare(before, after, &options);
	assert_true(fabs(c->rows[0].more_ns - 30e6) < 1 && fabs(c->rows[0].longer_ns) < 1);
	assert_true(c->rows[0].before_count == 1 && c->rows[0].after_count == 4);
	cause_free(c);
	rollup_reset(after);
	add(after, 50, stacks[0], 40000000, 1); /* as often, four times as long */
	c = compare(before, after, &options);
	assert_true(fabs(c->rows[0].longer_ns - 30e6) < 1 && fabs(c->rows[0].more_ns) < 1);
	cause_free(c);
	rollup_free(before);
	rollup_free(after);
}

/* A function that got another name above it is no cause; what really grew is. */
static void
test_moved(void **state)
{
	const struct cause_options options = {0};
	struct rollup *before = rollup_new(), *after = rollup_new();
	uint64_t old = kit_stack(flame, "app:main/app:load/lib:query");
	uint64_t new = kit_stack(flame, "app:main/app:load_user/lib:query");
	(void)state;
	add(before, 50, old, 50000000, 1);
	add(after, 50, new, 52000000, 1);
	add(before, 50, stacks[2], 10000000, 1);
	add(after, 50, stacks[2], 20000000, 1);
	struct cause *c = compare(before, after, &options);
	sums_hold(c);
	assert_int_equal(c->moved_count, 1);
	assert_non_null(strstr(c->moved[0].from, "\"load\""));
	assert_non_null(strstr(c->moved[0].to, "\"load_user\""));
	assert_string_equal(c->rows[0].frame, "app:rates");
	assert_int_equal(c->rows[0].delta_ns, 5000000);
	assert_string_equal(c->rows[1].frame, "app:load_user");
	assert_int_equal(c->rows[1].delta_ns, 1000000);
	cause_free(c);
	/* Three times as long is not the same thing moved. */
	rollup_reset(after);
	add(after, 50, new, 150000000, 1);
	add(after, 50, stacks[2], 20000000, 1);
	c = compare(before, after, &options);
	sums_hold(c);
	assert_int_equal(c->moved_count, 0);
	cause_free(c);
	rollup_free(before);
	rollup_free(after);
}

/* One side had no room for a row: it is folded on the other, and nothing is lost. */
static void
test_folded(void **state)
{
	const struct cause_options options = {0};
	const struct rollup_parents parents = {flame, flame_parent};
	struct rollup *before = rollup_new(), *after = rollup_new();
	uint64_t parent = flame_parent(flame, stacks[0]);
	const struct rollup_key key = {stacks[0], PROFILE_WAIT, PROFILE_CAUSE_DATABASE};
	const struct rollup_key up = {parent, PROFILE_WAIT, PROFILE_CAUSE_DATABASE};
	(void)state;
	add(before, 40, stacks[0], 1000, 1);
	add(after, 40, stacks[0], 9000, 1);
	rollup_fold_row(before, &key, &parents);
	assert_null(rollup_find(before, &key));
	struct cause *c = compare(before, after, &options);
	sums_hold(c);
	assert_int_equal(c->row_count, 1);
	assert_int_equal(c->rows[0].delta_ns, 8000);
	cause_free(c);
	cause_fold_both(before, after, flame);
	assert_null(rollup_find(after, &key));
	assert_int_equal(rollup_find(after, &up)->ns, 40 * 9000);
	kit_whole(after);
	rollup_free(before);
	rollup_free(after);
}

/* Without profiles on either side the gateway's phases are compared; what is skipped counts not. */
static void
test_alone_and_skipped(void **state)
{
	struct rollup *sides[2] = {rollup_new(), rollup_new()};
	struct cause_options options = {.skip_phases = 1u << PHASE_DRAIN};
	(void)state;
	for (unsigned side = 0; side < 2; side++) {
		struct rollup_part parts[2] = {{.key = {0, ROLLUP_NO_PROFILE, PROFILE_CAUSE_COUNT},
		                                .ns = side ? 3000 : 1000,
		                                .count = 1},
		                               {.key = {0, ROLLUP_PHASE_ALONE, PHASE_DRAIN},
		                                .ns = side ? 900000 : 5000,
		                                .count = 1}};
		struct rollup_exchange x = {.total_ns = parts[0].ns + parts[1].ns,
		                            .sent = true,
		                            .parts = parts,
		                            .part_count = 2};
		for (int i = 0; i < 40; i++)
			rollup_add(sides[side], &x);
	}
	struct cause *c = compare(sides[0], sides[1], &options);
	assert_true(c->alone);
	assert_int_equal(c->row_count, 1);
	assert_int_equal(c->growth_ns, 2000);
	assert_string_equal(c->rows[0].kind_name, "no_profile");
	assert_true(c->coverage == 0);
	cause_free(c);
	options.skip_phases = 0;
	c = compare(sides[0], sides[1], &options);
	assert_int_equal(c->growth_ns, 897000);
	assert_string_equal(c->rows[0].kind_name, "phase");
	assert_string_equal(c->rows[0].cause_name, "drain");
	cause_free(c);
	rollup_free(sides[0]);
	rollup_free(sides[1]);
}

static void
test_empty(void **state)
{
	const struct cause_options options = {.quantile = 0.99, .min_effect = 0.1};
	struct cause_side none = {NULL, 0};
	struct rollup *some = rollup_new();
	struct cause_side one = {&some, 1};
	(void)state;
	struct cause *c = cause_compute(&none, &none, &options, flame);
	assert_int_equal(c->verdict, CAUSE_NOT_ENOUGH);
	assert_int_equal(c->row_count, 0);
	assert_int_equal(c->growth_ns, 0);
	cause_free(c);
	add(some, 40, stacks[0], 700, 1);
	c = cause_compute(&none, &one, &options, flame);
	assert_int_equal(c->verdict, CAUSE_NOT_ENOUGH);
	assert_int_equal(c->growth_ns, 700);
	cause_free(c);
	rollup_free(some);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_simulation),
	    cmocka_unit_test(test_nothing_changed),
	    cmocka_unit_test(test_repeats),
	    cmocka_unit_test(test_rounding),
	    cmocka_unit_test(test_tail),
	    cmocka_unit_test(test_more_or_longer),
	    cmocka_unit_test(test_moved),
	    cmocka_unit_test(test_folded),
	    cmocka_unit_test(test_alone_and_skipped),
	    cmocka_unit_test(test_empty),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
