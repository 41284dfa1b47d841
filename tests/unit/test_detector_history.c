/* detector_history, detector_clock: sums by hour and block, forgetting, references, tempering,
 * stepping clocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "detector_kit.h"
#include "model/detector_clock.h"

#define NEAR 1e-9
#define UNIT 2e-3 /* of counts in 1024ths */

/* `n` requests in `bucket` in every 5-minute block from t_s to end_s. */
static void
fill(struct detector_history *history, int64_t t_s, int64_t end_s, unsigned bucket, uint64_t n)
{
	struct detector_cell cell = {bucket, n};

	for (; t_s < end_s; t_s += DETECTOR_BLOCK_S) {
		detector_history_turn(history, t_s, 0);
		detector_history_count(history, n);
		detector_history_add(history, &cell, 1);
	}
	detector_history_turn(history, end_s, 0);
}

static void
test_hours_mix_with_their_neighbours_and_forget(void **state)
{
	static struct detector_history history;
	double row[DETECTOR_BUCKETS];

	(void)state;
	detector_history_init(&history, KIT_START_S, DETECTOR_BLOCK_S);
	fill(&history, KIT_START_S, KIT_START_S + 3600, 100, 10); /* hour 0 */
	assert_float_equal(detector_history_smoothed(&history, 0, row), 60, NEAR);
	assert_float_equal(row[100], 60, NEAR);
	assert_float_equal(detector_history_smoothed(&history, 23, row), 30, NEAR);
	assert_float_equal(detector_history_smoothed(&history, 1, row), 30, NEAR);
	assert_float_equal(detector_history_smoothed(&history, 2, row), 0, NEAR);
	fill(&history, KIT_START_S + 3600, KIT_START_S + 7200, 600, 1); /* hour 1, a wider span */
	assert_float_equal(detector_history_smoothed(&history, 0, row), 60 * exp(-1 / 168.0) + 3,
	                   UNIT);
	assert_float_equal(row[600], 3, UNIT);
	detector_history_turn(&history, KIT_START_S + 8 * 86400, 0);
	assert_float_equal(detector_history_pooled(&history, row),
	                   120 * exp(-191 / 168.0) + 12 * exp(-190 / 168.0), UNIT);
	detector_history_clear(&history);
}

/* Years at the same rate: what is kept neither grows nor dies away. */
static void
test_forgetting_for_ever(void **state)
{
	static struct detector_history history;
	double row[DETECTOR_BUCKETS];
	struct detector_cell cell = {100, 1000};
	int64_t t_s = KIT_START_S;

	(void)state;
	detector_history_init(&history, t_s, DETECTOR_BLOCK_S);
	for (int day = 0; day < 900; day++, t_s += DETECTOR_DAY_S) {
		detector_history_turn(&history, t_s, 0);
		detector_history_add(&history, &cell, 1);
		detector_history_turn(&history, t_s + DETECTOR_HOUR_S, 0);
	}
	/* A day is worth e^(-1/7) of the next. */
	assert_float_equal(detector_history_pooled(&history, row), 1000 / (1 - exp(-1 / 7.0)),
	                   7 * UNIT);
	detector_history_clear(&history);
}

static void
test_requests_of_a_day(void **state)
{
	static struct detector_history history;

	(void)state;
	detector_history_init(&history, KIT_START_S, DETECTOR_BLOCK_S);
	fill(&history, KIT_START_S, KIT_START_S + 2 * 86400, 100, 10);
	assert_int_equal(detector_history_day_requests(&history), 24 * 120);
	detector_history_turn(&history, KIT_START_S + 2 * 86400 + 23 * 3600, 0);
	assert_int_equal(detector_history_day_requests(&history), 120);
	detector_history_turn(&history, KIT_START_S + 3 * 86400, 0);
	assert_int_equal(detector_history_day_requests(&history), 0);
	detector_history_clear(&history);
}

static void
test_reference_reaches_back_for_enough(void **state)
{
	static struct detector_history history;
	double row[DETECTOR_BUCKETS];
	int64_t end_s = KIT_START_S + 12 * 3600;

	(void)state;
	detector_history_init(&history, KIT_START_S, DETECTOR_BLOCK_S);
	fill(&history, KIT_START_S, KIT_START_S + 6 * 3600, 100, 10);
	fill(&history, KIT_START_S + 6 * 3600, end_s, 200, 1);
	/* 12 an hour: the six quiet hours but the gap's ten minutes give 70, the rest comes from
	 * before. */
	assert_float_equal(detector_history_reference(&history, end_s, 3600, 600, row), 400, 0);
	assert_float_equal(row[200], 70, 0);
	assert_float_equal(row[100], 330, 0);
	assert_float_equal(detector_history_reference(&history, end_s, 6 * 3600, 600, row), 400, 0);
	/* A long reference is not cut short where it has enough. */
	assert_float_equal(detector_history_reference(&history, end_s, 12 * 3600, 600, row), 790,
	                   0);
	/* Later only 24 h count. */
	detector_history_turn(&history, end_s + 18 * 3600, 0);
	assert_true(detector_history_reference(&history, end_s + 18 * 3600, 3600, 600, row) < 400);
	detector_history_clear(&history);
}

static double
tempering_of(double swing, bool young)
{
	static struct detector_history history;
	static uint16_t edges[DETECTOR_HOURS][DETECTOR_QUANTILES];
	double phi[DETECTOR_QUANTILES];
	int64_t t_s = KIT_START_S, end_s = t_s + 2 * 86400;

	for (unsigned h = 0; h < DETECTOR_HOURS; h++)
		for (unsigned q = 0; q < DETECTOR_QUANTILES; q++)
			edges[h][q] = 150;
	detector_history_init(&history, t_s, DETECTOR_BLOCK_S);
	for (int block = 0; t_s < end_s; t_s += DETECTOR_BLOCK_S, block++) {
		struct detector_cell cells[2] = {{100, 0}, {200, 0}};
		double share = 0.3 + (block % 2 ? swing : -swing);

		for (int i = 0; i < 1000; i++)
			cells[kit_uniform() < share].count++;
		detector_history_turn(&history, t_s, 0);
		detector_history_add(&history, cells, 2);
	}
	detector_history_turn(&history, end_s, 0);
	detector_history_tempering(&history, end_s, young, 0, edges, phi);
	detector_history_clear(&history);
	return phi[0];
}

static void
test_tempering_is_the_excess_variance(void **state)
{
	(void)state;
	/* Independent requests: 1. The clipping takes a little, the estimated share a twelfth. */
	assert_true(tempering_of(0, false) >= 1 && tempering_of(0, false) < 1.1);
	/* 30 % +- 5 points in turn: (50 / sqrt(1000 * .3 * .7))^2 = 11.9, and 1. */
	assert_true(fabs(tempering_of(0.05, false) - 12.9) < 1.2);
	/* A young route's is at least 1 + 0.007 per request in 5 minutes. */
	assert_float_equal(tempering_of(0, true), 8, NEAR);
}

static void
test_nothing_is_no_reason_to_temper(void **state)
{
	static struct detector_history history;
	static const uint16_t edges[DETECTOR_HOURS][DETECTOR_QUANTILES];
	double phi[DETECTOR_QUANTILES];

	(void)state;
	detector_history_init(&history, 0, DETECTOR_BLOCK_S);
	detector_history_tempering(&history, 0, true, 0, edges, phi);
	assert_float_equal(phi[3], 1, 0);
	detector_history_clear(&history);
}

/* --- clock ----------------------------------------------------------------- */

static void
test_a_step_moves_the_hour_only_after_a_day(void **state)
{
	struct detector_clock clock = {0};
	int64_t boot_s = 1000, wall_s = KIT_START_S;

	(void)state;
	assert_int_equal(detector_clock_read(&clock, boot_s, wall_s), wall_s);
	wall_s += 5 * 3600; /* the date was wrong by five hours */
	for (int hour = 0; hour < 24; hour++) {
		assert_int_equal(
		    detector_clock_read(&clock, boot_s + hour * 3600, wall_s + hour * 3600),
		    KIT_START_S + hour * 3600); /* never steps */
		assert_int_equal(detector_clock_shift_hours(&clock), 0);
	}
	detector_clock_read(&clock, boot_s + 86400, wall_s + 86400);
	assert_int_equal(detector_clock_shift_hours(&clock), 5);
	/* Back again: another day. */
	boot_s += 86400;
	wall_s = KIT_START_S + 86400;
	detector_clock_read(&clock, boot_s + 10, wall_s + 10);
	detector_clock_read(&clock, boot_s + 86400, wall_s + 86400);
	assert_int_equal(detector_clock_shift_hours(&clock), 5);
	detector_clock_read(&clock, boot_s + 86410, wall_s + 86410);
	assert_int_equal(detector_clock_shift_hours(&clock), 0);
}

static void
test_a_clock_that_cannot_agree_with_itself_moves_nothing(void **state)
{
	struct detector_clock clock = {0};

	(void)state;
	for (int64_t s = 0; s < 4 * 86400; s += 600)
		detector_clock_read(&clock, s, KIT_START_S + s + (s / 600 % 3) * 7200);
	assert_int_equal(detector_clock_shift_hours(&clock), 0);
}

static void
test_a_restart_goes_on_and_never_back(void **state)
{
	struct detector_clock clock = {0};

	(void)state;
	detector_clock_resume(&clock, KIT_START_S, -7200, 50, KIT_START_S - 7200 + 300);
	assert_int_equal(detector_clock_read(&clock, 60, KIT_START_S - 7200 + 310),
	                 KIT_START_S + 310); /* five minutes were missed */
	assert_int_equal(detector_clock_shift_hours(&clock), -2);
	detector_clock_resume(&clock, KIT_START_S, 0, 50, KIT_START_S - 9999);
	assert_int_equal(detector_clock_read(&clock, 60, KIT_START_S - 9989), KIT_START_S + 10);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_hours_mix_with_their_neighbours_and_forget),
	    cmocka_unit_test(test_forgetting_for_ever),
	    cmocka_unit_test(test_requests_of_a_day),
	    cmocka_unit_test(test_reference_reaches_back_for_enough),
	    cmocka_unit_test(test_tempering_is_the_excess_variance),
	    cmocka_unit_test(test_nothing_is_no_reason_to_temper),
	    cmocka_unit_test(test_a_step_moves_the_hour_only_after_a_day),
	    cmocka_unit_test(test_a_clock_that_cannot_agree_with_itself_moves_nothing),
	    cmocka_unit_test(test_a_restart_goes_on_and_never_back),
	};

	return cmocka_run_group_tests_name("detector_history", tests, NULL, NULL);
}
