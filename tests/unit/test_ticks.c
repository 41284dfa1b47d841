/* ticks, recent: windows that fill while others are final, bounds, sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/clock.h"
#include "model/recent.h"
#include "model/ticks.h"

static struct ticks_event
event(size_t route, double ms)
{
	return (struct ticks_event){.route = route,
	                            .watched = true,
	                            .sent = true,
	                            .joined = true,
	                            .latency_ns = (uint64_t)(ms * NS_PER_MS)};
}

static void
test_rows_in_order_of_time(void **state)
{
	struct ticks *ticks = ticks_new(4, 100);
	struct ticks_event a = event(1, 10), b = event(2, 20), error = event(1, 0);
	struct ticks_row row;

	(void)state;
	error.watched = false;
	error.error = true;
	error.joined = false;
	assert_true(ticks_add(ticks, 101, &a));
	assert_true(ticks_add(ticks, 100, &b));
	assert_true(ticks_add(ticks, 101, &a));
	assert_true(ticks_add(ticks, 101, &error));
	assert_false(ticks_take(ticks, 100, &row)); /* nothing is final yet */
	assert_true(ticks_take(ticks, 102, &row));
	assert_int_equal(row.number, 100);
	assert_int_equal(row.route, 2);
	assert_int_equal(row.requests, 1);
	assert_true(ticks_take(ticks, 102, &row));
	assert_int_equal(row.number, 101);
	assert_int_equal(row.route, 1);
	assert_int_equal(row.requests, 3);
	assert_int_equal(row.errors, 1);
	assert_int_equal(row.sent, 3);
	assert_int_equal(row.joined, 2);
	assert_int_equal(row.cell_count, 1);
	assert_int_equal(row.cells[0].count, 2);
	assert_int_equal(row.cells[0].bucket, histogram_bucket(10 * NS_PER_MS));
	assert_false(ticks_take(ticks, 102, &row));
	/* What is final stays so; a slot used again is empty. */
	assert_false(ticks_add(ticks, 101, &a));
	assert_true(ticks_add(ticks, 105, &b));
	assert_true(ticks_add(ticks, 104, &b));
	assert_true(ticks_take(ticks, 106, &row));
	/* So does what waits to be taken. */
	assert_int_equal(row.number, 104);
	assert_false(ticks_add(ticks, 104, &a));
	assert_false(ticks_add(ticks, 105, &b));
	assert_true(ticks_take(ticks, 106, &row));
	assert_int_equal(row.number, 105);
	assert_int_equal(row.requests, 1);
	assert_int_equal(row.route, 2);
	assert_false(ticks_take(ticks, 106, &row));
	ticks_free(ticks);
}

static void
test_bounds(void **state)
{
	struct ticks *ticks = ticks_new(4, 100);
	struct ticks_event a = event(0, 1);
	struct ticks_row row;

	(void)state;
	assert_true(ticks_add(ticks, 103, &a));  /* the last that fits */
	assert_false(ticks_add(ticks, 104, &a)); /* one past it */
	assert_false(ticks_add(ticks, 99, &a));
	assert_true(ticks_take(ticks, 1000, &row));
	assert_false(ticks_take(ticks, 1000, &row));
	assert_true(ticks_add(ticks, 1003, &a)); /* after a silence */
	assert_false(ticks_add(ticks, 999, &a));
	ticks_free(ticks);
}

static void
test_cells_are_sorted(void **state)
{
	struct ticks *ticks = ticks_new(1, 0);
	struct ticks_row row;
	uint64_t n = 0;

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		struct ticks_event e = event(TICKS_ROUTES_MAX - 1, 0.1 + (i * 7919) % 1000);
		assert_true(ticks_add(ticks, 0, &e));
	}
	assert_true(ticks_take(ticks, 1, &row));
	for (size_t i = 0; i < row.cell_count; i++) {
		n += row.cells[i].count;
		assert_true(i == 0 || row.cells[i - 1].bucket < row.cells[i].bucket);
	}
	assert_int_equal(n, 2000);
	ticks_free(ticks);
}

static void
test_recent(void **state)
{
	static struct recent recent;
	uint64_t counts[DETECTOR_BUCKETS] = {0};
	struct detector_cell cells[2] = {{10, 3}, {200, 1}};

	(void)state;
	recent_init(&recent);
	for (int64_t i = 1000; i < 1000 + RECENT_WINDOWS; i++)
		recent_put(&recent, i, cells, 2);
	assert_int_equal(recent_sum(&recent, 1000, INT64_MAX, counts), 4 * RECENT_WINDOWS);
	assert_int_equal(counts[10], 3 * RECENT_WINDOWS);
	memset(counts, 0, sizeof(counts));
	assert_int_equal(recent_sum(&recent, 1010, 1012, counts), 8);
	/* One more: the oldest goes. */
	recent_put(&recent, 1000 + RECENT_WINDOWS, cells, 1);
	assert_int_equal(recent_sum(&recent, 0, 1001, counts), 0);
	assert_int_equal(recent_sum(&recent, 1000 + RECENT_WINDOWS, INT64_MAX, counts), 3);
	recent_clear(&recent);
	assert_int_equal(recent_sum(&recent, 0, INT64_MAX, counts), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rows_in_order_of_time),
	    cmocka_unit_test(test_bounds),
	    cmocka_unit_test(test_cells_are_sorted),
	    cmocka_unit_test(test_recent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
