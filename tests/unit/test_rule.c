/* rule: thresholds that hold in each part of for_s, burn rates over two windows, their ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "model/rule.h"

#define WINDOW_S 10
#define START_S 1800000000

static const struct config_rule p95 = {
    .metric = CONFIG_METRIC_P95, .above_ms = 100, .for_s = 300, .min_requests = 20};

/* Windows of n requests, `slow` of them of 200 ms, the others of 10 ms, `errors` beside them.
 * Returns the time of the first change from then on; 0 = none. */
static int64_t
run(struct rule_track *track, int64_t *t_s, int64_t span_s, unsigned n, unsigned slow,
    unsigned errors, enum rule_change *ret)
{
	int64_t end_s = *t_s + span_s;

	for (; *t_s < end_s; *t_s += WINDOW_S) {
		struct detector_cell cells[2] = {{detector_bucket(10), n - slow},
		                                 {detector_bucket(200), slow}};
		struct ticks_row row = {.requests = n + errors,
		                        .errors = errors,
		                        .sent = n,
		                        .joined = n - slow,
		                        .cells = cells,
		                        .cell_count = 2};

		*ret = rule_track_judge(track, *t_s);
		if (*ret != RULE_SAME)
			return *t_s;
		rule_track_add(track, *t_s, &row);
	}
	return 0;
}

static void
test_quantile(void **state)
{
	struct rule_track track;
	enum rule_change change;
	int64_t t_s = START_S, fired_s;

	(void)state;
	rule_track_init(&track, &p95, WINDOW_S);
	/* Just allowed: 5 % may be slower. */
	assert_int_equal(run(&track, &t_s, 3600, 20, 1, 0, &change), 0);
	/* A burst of two minutes is no five minutes. */
	assert_int_equal(run(&track, &t_s, 120, 20, 20, 0, &change), 0);
	assert_int_equal(run(&track, &t_s, 600, 20, 0, 0, &change), 0);
	fired_s = run(&track, &t_s, 600, 20, 2, 0, &change);
	assert_int_equal(change, RULE_FIRED);
	assert_in_range(fired_s - (START_S + 4320), 300, 360);
	assert_in_range(track.since_s - (START_S + 4320), 0, 60);
	assert_true(track.value > 0.09 && track.value < 0.11);
	/* It goes on while any part is above, and ends when none is. */
	t_s += WINDOW_S;
	assert_int_equal(run(&track, &t_s, 240, 20, 0, 0, &change), 0);
	assert_true(run(&track, &t_s, 200, 20, 0, 0, &change) > 0);
	assert_int_equal(change, RULE_ENDED);
	rule_track_clear(&track);
}

static void
test_few_requests_say_nothing(void **state)
{
	struct rule_track track;
	enum rule_change change;
	int64_t t_s = START_S;

	(void)state;
	rule_track_init(&track, &p95, 60);
	for (int i = 0; i < 100; i++, t_s += 100)
		assert_int_equal(run(&track, &t_s, WINDOW_S, 3, 3, 0, &change), 0);
	rule_track_clear(&track);
}

static void
test_silence_ends_nothing(void **state)
{
	struct rule_track track;
	enum rule_change change;
	int64_t t_s = START_S;

	(void)state;
	rule_track_init(&track, &p95, WINDOW_S);
	assert_true(run(&track, &t_s, 600, 20, 20, 0, &change) > 0);
	for (int i = 0; i < 100; i++, t_s += 60)
		assert_int_equal(rule_track_judge(&track, t_s), RULE_SAME);
	assert_true(track.firing);
	rule_track_clear(&track);
}

static void
test_ratios(void **state)
{
	static const struct config_rule errors = {
	    .metric = CONFIG_METRIC_ERROR_RATIO, .above = 0.1, .for_s = 60, .min_requests = 20};
	static const struct config_rule missing = {.metric = CONFIG_METRIC_MISSING_PROFILES,
	                                           .above = 0.5,
	                                           .for_s = 60,
	                                           .min_requests = 20};
	struct rule_track track;
	enum rule_change change;
	int64_t t_s = START_S;

	(void)state;
	rule_track_init(&track, &errors, WINDOW_S);
	assert_int_equal(run(&track, &t_s, 600, 18, 0, 2, &change), 0); /* exactly a tenth */
	assert_true(run(&track, &t_s, 600, 17, 0, 3, &change) > 0);
	assert_int_equal(change, RULE_FIRED);
	rule_track_clear(&track);
	rule_track_init(&track, &missing, WINDOW_S);
	assert_int_equal(run(&track, &t_s, 600, 20, 10, 0, &change), 0);
	assert_true(run(&track, &t_s, 600, 20, 11, 0, &change) > 0);
	rule_track_clear(&track);
}

static void
test_burn_rate(void **state)
{
	static const struct config_rule burn = {
	    .metric = CONFIG_METRIC_BURN_RATE, .objective = 0.99, .for_s = 300, .min_requests = 20};
	struct rule_track track;
	enum rule_change change;
	int64_t t_s = START_S, from_s;

	(void)state;
	rule_track_init(&track, &burn, WINDOW_S);
	/* 5 times the budget's speed is under both factors, for as long as it likes. */
	assert_int_equal(run(&track, &t_s, 8 * 3600, 95, 0, 5, &change), 0);
	/* 10 times: over 6 h and 30 min, as soon as the six hours are above 6 times. */
	from_s = t_s;
	assert_true(run(&track, &t_s, 6 * 3600, 90, 0, 10, &change) > 0);
	assert_int_equal(change, RULE_FIRED);
	assert_in_range(t_s - from_s, 3600, 2 * 3600);
	assert_int_equal(track.burn_s, 6 * 3600);
	rule_track_clear(&track);
	/* 50 times after a clean hour: over 1 h and 5 min. */
	t_s = START_S;
	rule_track_init(&track, &burn, WINDOW_S);
	assert_int_equal(run(&track, &t_s, 7 * 3600, 100, 0, 0, &change), 0);
	from_s = t_s;
	assert_true(run(&track, &t_s, 3600, 50, 0, 50, &change) > 0);
	assert_in_range(t_s - from_s, 960, 1200); /* 14.4 / 50 of an hour */
	assert_int_equal(track.burn_s, 3600);
	t_s += WINDOW_S;
	/* Over when the short windows are clean. */
	from_s = t_s;
	assert_true(run(&track, &t_s, 3 * 3600, 100, 0, 0, &change) > 0);
	assert_int_equal(change, RULE_ENDED);
	assert_in_range(t_s - from_s, 1200, 1900);
	rule_track_clear(&track);
}

static void
test_whose(void **state)
{
	struct config_rule rule = p95;
	char route[] = "GET /x";

	(void)state;
	assert_true(rule_is_about(&rule, "GET /y"));
	rule.route = route;
	assert_true(rule_is_about(&rule, "GET /x"));
	assert_false(rule_is_about(&rule, "GET /y"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_quantile),
	    cmocka_unit_test(test_few_requests_say_nothing),
	    cmocka_unit_test(test_silence_ends_nothing),
	    cmocka_unit_test(test_ratios),
	    cmocka_unit_test(test_burn_rate),
	    cmocka_unit_test(test_whose),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
