/* retention: all of a quiet window, exactly the slowest and a fair sample of a busy one, all
 * errors; windows out of order; what the hook is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "model/retention.h"

#define MANY 2000

static bool kept[MANY];

static struct profile_key
key_of(unsigned n)
{
	struct profile_key key = {{0}, {0}};
	memcpy(key.trace_id, &n, sizeof(n));
	key.span_id[0] = 1;
	return key;
}

/* Adds number `n` and writes down who is kept. */
static void
add(struct retention *r, uint64_t window, unsigned n, uint64_t total_ns, bool error)
{
	struct profile_key key = key_of(n);
	unsigned dropped;
	struct retention_verdict v = retention_add(r, 3, window, &key, total_ns, error);
	kept[n] = v.keep;
	if (!v.drops)
		return;
	memcpy(&dropped, v.dropped.trace_id, sizeof(dropped));
	assert_true(kept[dropped]); /* nobody is taken away twice, or who never was there */
	kept[dropped] = false;
}

static unsigned
count(unsigned from, unsigned to)
{
	unsigned n = 0;
	for (unsigned i = from; i < to; i++)
		n += kept[i];
	return n;
}

static void
test_quiet(void **state)
{
	struct retention *r = retention_new(4, 5, 7, 1);
	uint64_t over_ns;
	double rate;
	(void)state;
	for (unsigned i = 0; i < 12; i++)
		add(r, 1, i, 1000 - i, false);
	assert_int_equal(count(0, 12), 12);
	retention_forecast(r, 3, &over_ns, &rate); /* all of it is kept */
	assert_true(over_ns == 0 && rate == 1);
	add(r, 1, 12, 1, false); /* one past */
	assert_int_equal(count(0, 13), 12);
	for (unsigned i = 13; i < 25; i++)
		add(r, 2, i, 1000, false); /* the next window has room again */
	assert_int_equal(count(13, 25), 12);
	retention_forecast(r, 0, &over_ns, &rate); /* a route of which nothing is known */
	assert_true(over_ns == UINT64_MAX && rate == 0);
	retention_free(r);
}

static void
test_slowest(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed < 20; seed++) {
		struct retention *r = retention_new(4, 10, 20, seed);
		unsigned order[MANY];
		uint64_t random = seed;
		for (unsigned i = 0; i < MANY; i++)
			order[i] = i;
		for (unsigned i = MANY; i-- > 1;) { /* any order */
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			unsigned k = (unsigned)(random >> 33) % (i + 1), was = order[i];
			order[i] = order[k];
			order[k] = was;
		}
		for (unsigned i = 0; i < MANY; i++)
			add(r, 1, order[i], order[i] * 10, false);
		assert_int_equal(count(0, MANY), 30);
		assert_int_equal(count(MANY - 10, MANY), 10);
		retention_free(r);
	}
}

/* Each of the others is in the sample with the same chance, whenever it came. */
static void
test_fair(void **state)
{
	unsigned halves[2] = {0, 0};
	(void)state;
	for (uint64_t seed = 1; seed <= 400; seed++) {
		struct retention *r = retention_new(4, 2, 10, seed * 7919);
		for (unsigned i = 0; i < 200; i++)
			add(r, 1, i, i == 50 || i == 150 ? 9000 : 100, false);
		halves[0] += count(0, 100) - 1;
		halves[1] += count(100, 200) - 1;
		retention_free(r);
	}
	assert_int_equal(halves[0] + halves[1], 4000);
	assert_in_range(halves[0], 1850, 2150); /* 2000 +- 5 standard deviations */
}

/* Behind a busy window about as many are taken, and none of them loses its place. */
static void
test_busy(void **state)
{
	struct retention *r = retention_new(4, 0, 20, 11);
	unsigned sum = 0;
	(void)state;
	for (unsigned window = 1; window <= 21; window++) {
		for (unsigned i = 0; i < 1000; i++) {
			struct profile_key key = key_of(i);
			struct retention_verdict v = retention_add(r, 3, window, &key, 5, false);
			sum += window > 1 && v.keep;
			assert_false(window > 1 && v.drops);
		}
	}
	assert_in_range(sum, 300, 500); /* 20 windows of 20 +- 5 standard deviations */
	retention_free(r);
}

static void
test_errors(void **state)
{
	struct retention *r = retention_new(4, 3, 3, 1);
	(void)state;
	for (unsigned i = 0; i < 500; i++)
		add(r, 1, i, i, i % 2 == 0);
	assert_int_equal(count(0, 500), 250 + 6);
	for (unsigned i = 0; i < 500; i += 2)
		assert_true(kept[i]);
	retention_free(r);
}

/* Exchanges come out of order by the time a profile may take. */
static void
test_out_of_order(void **state)
{
	struct retention *r = retention_new(4, 2, 2, 1);
	(void)state;
	for (unsigned i = 0; i < 300; i++)
		add(r, 10 + (i * 7) % RETENTION_WINDOWS, i, i, false);
	assert_int_equal(count(294, 300), 6); /* the two slowest of each */
	assert_in_range(count(0, 294), 3, RETENTION_WINDOWS * 4);
	retention_free(r);
}

static void
test_none(void **state)
{
	struct retention *r = retention_new(4, 0, 0, 1);
	uint64_t over_ns;
	double rate;
	(void)state;
	for (unsigned i = 0; i < 100; i++)
		add(r, i / 50, i, i, i == 7);
	assert_int_equal(count(0, 100), 1);
	assert_true(kept[7]);
	retention_forecast(r, 3, &over_ns, &rate);
	assert_true(over_ns == UINT64_MAX && rate == 0);
	retention_free(r);
}

static void
test_forecast(void **state)
{
	struct retention *r = retention_new(4, 10, 20, 1);
	uint64_t over_ns;
	double rate;
	(void)state;
	for (unsigned i = 0; i < 410; i++)
		add(r, 1, i, i * 100, false);
	retention_forecast(r, 3, &over_ns, &rate); /* busy, though no window is whole yet */
	assert_true(over_ns == 400 * 100 && rate == 20.0 / 400);
	add(r, 2, 500, 1, false);
	retention_forecast(r, 3, &over_ns, &rate);
	assert_true(over_ns == 400 * 100 && rate == 20.0 / 400);
	for (unsigned i = 0; i < 1010; i++) /* busier than the whole one before */
		add(r, 2, 900 + i, 1000 + i, false);
	retention_forecast(r, 3, &over_ns, &rate);
	assert_true(over_ns == 2000 && rate == 20.0 / 1001);
	retention_free(r);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_quiet),    cmocka_unit_test(test_slowest),
	    cmocka_unit_test(test_fair),     cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_none),     cmocka_unit_test(test_out_of_order),
	    cmocka_unit_test(test_forecast), cmocka_unit_test(test_busy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
