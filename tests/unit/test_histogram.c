/* histogram: buckets at their edges, quantiles against exact ones, sums of parts, compact form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "model/histogram.h"

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t
random_u64(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 0x2545f4914f6cdd1dull;
}

static void
test_edges(void **state)
{
	(void)state;
	assert_int_equal(histogram_bucket(0), 0);
	/* Whole octaves are exact: 2^-4 ms doubled k times is the upper edge of bucket 32 k - 1. */
	for (unsigned octave = 1; octave < 20; octave++) {
		uint64_t edge = 62500ull << octave;
		assert_int_equal(histogram_edge_ns(32 * octave - 1), edge);
		assert_int_equal(histogram_bucket(edge), 32 * octave - 1);
		assert_int_equal(histogram_bucket(edge + 1), 32 * octave);
	}
	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		assert_int_equal(histogram_bucket(histogram_edge_ns(i)), i);
		assert_int_equal(histogram_bucket(histogram_edge_ns(i) + 1), i + 1);
		if (i > 0) {
			double ratio =
			    (double)histogram_edge_ns(i) / (double)histogram_edge_ns(i - 1);
			assert_true(ratio > 1.0218 && ratio < 1.0220);
		}
	}
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static int
ascending(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

/* Durations spread over all octaves, the ends included. */
static uint64_t
random_ns(void)
{
	unsigned shift = (unsigned)(random_u64() % 20);
	return (62500ull << shift) + random_u64() % (62500ull << shift);
}

static void
test_quantiles(void **state)
{
	static uint64_t values[5000];
	static const double quantiles[] = {0, 0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
	(void)state;
	for (int round = 0; round < 60; round++) {
		struct histogram h = {0};
		size_t count = 1 + random_u64() % 5000;
		for (size_t i = 0; i < count; i++)
			histogram_add(&h, values[i] = random_ns());
		qsort(values, count, sizeof(values[0]), ascending);
		for (size_t q = 0; q < sizeof(quantiles) / sizeof(quantiles[0]); q++) {
			double place = quantiles[q] * (double)count;
			size_t rank = (size_t)place + ((double)(size_t)place < place);
			uint64_t exact = values[rank > 0 ? rank - 1 : 0];
			uint64_t told = histogram_quantile(&h, quantiles[q]);
			double error = (double)told / (double)exact - 1;
			if (error > 0.0112 || error < -0.0112)
				fail_msg("q %f: %llu, exact %llu", quantiles[q],
				         (unsigned long long)told, (unsigned long long)exact);
		}
		assert_int_equal(histogram_quantile(&h, 1), values[count - 1]);
		assert_int_equal(histogram_quantile(&h, 0), values[0]);
		assert_int_equal(h.count, count);
	}
}

static void
test_outside(void **state)
{
	struct histogram h = {0};
	(void)state;
	assert_int_equal(histogram_quantile(&h, 0.5), 0);
	histogram_add(&h, 10);
	assert_int_equal(histogram_quantile(&h, 0.5), 10);
	for (int i = 0; i < 10; i++)
		histogram_add(&h, 3600000000000ull);
	assert_int_equal(h.max_ns, 3600000000000ull);
	assert_int_equal(histogram_quantile(&h, 1), 3600000000000ull);
	assert_true(histogram_quantile(&h, 0.5) <= h.max_ns);
	assert_int_equal(h.sum_ns, 36000000000010ull);
}

static void
test_merge(void **state)
{
	struct histogram whole = {0}, left = {0}, right = {0}, empty = {0};
	(void)state;
	for (int i = 0; i < 3000; i++) {
		uint64_t ns = random_ns();
		histogram_add(&whole, ns);
		histogram_add(i % 3 ? &left : &right, ns);
	}
	histogram_merge(&left, &right);
	histogram_merge(&left, &empty);
	assert_memory_equal(&left, &whole, sizeof(whole));
	histogram_merge(&empty, &whole);
	assert_memory_equal(&empty, &whole, sizeof(whole));
	/* A bucket stops at its maximum, it does not wrap. */
	struct histogram full = {.count = 1, .buckets = {[5] = UINT32_MAX}};
	histogram_merge(&full, &full);
	assert_int_equal(full.buckets[5], UINT32_MAX);
}

static void
test_encode(void **state)
{
	static uint8_t bytes[HISTOGRAM_ENCODED_MAX];
	struct histogram h = {0}, back = {0};
	(void)state;
	size_t length = histogram_encode(&h, bytes);
	assert_int_equal(histogram_decode(bytes, length, &back), 0);
	assert_memory_equal(&h, &back, sizeof(h));
	for (int i = 0; i < 1000; i++)
		histogram_add(&h, random_ns());
	length = histogram_encode(&h, bytes);
	assert_int_equal(histogram_decode(bytes, length, &back), 0);
	assert_memory_equal(&h, &back, sizeof(h));
	for (size_t cut = 0; cut < length;
	     cut++) { /* a cut form is refused or shorter, never a crash */
		struct histogram part = {.count = 77};
		if (histogram_decode(bytes, cut, &part) != 0)
			assert_int_equal(part.count, 77);
	}
	/* The longest form fits. */
	struct histogram full = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, {0}};
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		full.buckets[i] = UINT32_MAX;
	length = histogram_encode(&full, bytes);
	assert_true(length <= HISTOGRAM_ENCODED_MAX);
	assert_int_equal(histogram_decode(bytes, length, &back), 0);
	assert_memory_equal(&full, &back, sizeof(full));
	static const uint8_t beyond[] = {0, 0, 0, 0, 0x80, 0x05, 1}; /* bucket 640 */
	assert_int_equal(histogram_decode(beyond, sizeof(beyond), &back), -1);
	for (int i = 0; i < 20000; i++) { /* any bytes */
		uint8_t noise[40];
		for (size_t k = 0; k < sizeof(noise); k++)
			noise[k] = (uint8_t)random_u64();
		histogram_decode(noise, random_u64() % sizeof(noise), &back);
	}
}

/* Encoded parts added and taken away again: what is left is the rest. */
static void
test_encoded_sums(void **state)
{
	struct histogram sum = {0}, rest = {0}, part;
	uint8_t bytes[HISTOGRAM_ENCODED_MAX];
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		part = (struct histogram){0};
		for (unsigned k = 0; k < 50; k++)
			histogram_add(&part, random_ns());
		size_t length = histogram_encode(&part, bytes);
		assert_int_equal(histogram_merge_encoded(&sum, bytes, length), 0);
		histogram_merge(&rest, &part);
		assert_memory_equal(&sum, &rest, sizeof(sum));
	}
	size_t length = histogram_encode(&part, bytes);
	histogram_add(&sum, 7 * 62500);
	assert_int_equal(histogram_subtract_encoded(&sum, bytes, length), 0);
	assert_int_equal(sum.count, 19 * 50 + 1);
	assert_int_equal(sum.sum_ns, rest.sum_ns - part.sum_ns + 7 * 62500);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		assert_int_equal(sum.buckets[i], rest.buckets[i] - part.buckets[i] +
		                                     (i == histogram_bucket(7 * 62500)));
	rest = sum;
	assert_int_equal(histogram_merge_encoded(&sum, bytes, length - 1), -1);
	assert_int_equal(histogram_subtract_encoded(&sum, bytes, 2), -1);
	assert_memory_equal(&sum, &rest, sizeof(sum));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_edges),   cmocka_unit_test(test_quantiles),
	    cmocka_unit_test(test_outside), cmocka_unit_test(test_merge),
	    cmocka_unit_test(test_encode),  cmocka_unit_test(test_encoded_sums),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
