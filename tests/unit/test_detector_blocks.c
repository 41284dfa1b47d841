/* detector_scale, detector_blocks: every bucket in its place, packed counts come back as they
 * were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "detector_kit.h"

static void
test_buckets_hold_what_their_edges_say(void **state)
{
	(void)state;
	assert_float_equal(detector_edge_ms(31), 0.125, 0);
	assert_float_equal(detector_edge_ms(DETECTOR_BUCKETS - 1), 65536, 0);
	for (unsigned i = 0; i < DETECTOR_BUCKETS - 1; i++) {
		assert_int_equal(detector_bucket(detector_edge_ms(i)), i);
		assert_int_equal(detector_bucket(nextafter(detector_edge_ms(i), 1e9)), i + 1);
	}
	assert_int_equal(detector_bucket(0), 0);
	assert_int_equal(detector_bucket(1e9), DETECTOR_BUCKETS - 1);
	assert_int_equal(detector_edge_ms(DETECTOR_BUCKETS), 65536);
}

/* The gateway's own histograms count in the same buckets, in whole nanoseconds. */
static void
test_same_buckets_as_histogram(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		uint64_t ns = (uint64_t)exp(kit_uniform() * 25.0);

		assert_int_equal(histogram_bucket(ns), detector_bucket((double)ns / 1e6));
	}
}

static void
assert_packs(const uint64_t counts[DETECTOR_BUCKETS])
{
	uint8_t packed[DETECTOR_BLOCK_BYTES_MAX];
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint64_t back[DETECTOR_BUCKETS] = {0};
	size_t size = detector_pack(counts, packed);
	int used = detector_unpack(packed, size, cells);

	assert_true(size <= sizeof(packed));
	assert_true(used >= 0);
	for (int i = 0; i < used; i++) {
		assert_true(i == 0 || cells[i].bucket > cells[i - 1].bucket);
		back[cells[i].bucket] = cells[i].count;
	}
	assert_memory_equal(back, counts, sizeof(back));
}

static void
test_packing_is_exact(void **state)
{
	static const uint64_t edges[] = {1, 31, 32, 33, 127, 128, 16384, UINT32_MAX, UINT64_MAX};
	uint64_t counts[DETECTOR_BUCKETS] = {0};

	(void)state;
	assert_packs(counts);
	for (size_t e = 0; e < sizeof(edges) / sizeof(edges[0]); e++) {
		for (unsigned i = 0; i < DETECTOR_BUCKETS; i++) {
			uint64_t one[DETECTOR_BUCKETS] = {0};

			one[i] = edges[e];
			assert_packs(one);
			counts[i] = edges[e];
		}
		assert_packs(counts); /* the longest there is, at UINT64_MAX */
	}
	for (int round = 0; round < 2000; round++) {
		double share = kit_uniform();

		for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
			counts[i] = kit_uniform() < share ? (uint64_t)exp(kit_uniform() * 12) : 0;
		assert_packs(counts);
	}
}

static void
test_bytes_that_are_no_packing_are_refused(void **state)
{
	static const struct {
		uint8_t bytes[8];
		size_t size;
	} bad[] = {
	    {{0x81, 1, 1}, 3},             /* an unknown form */
	    {{0x80}, 1},                   /* cut off */
	    {{0x80, 0x80}, 2},             /* in a number */
	    {{0x80, 1}, 2},                /* before the count */
	    {{0x80, 1, 0}, 3},             /* a count of nothing */
	    {{0x80, 0x80, 5, 1}, 4},       /* bucket 640 */
	    {{0x80, 0xff, 4, 1, 0x00}, 5}, /* one after the last */
	};
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint8_t too_many[DETECTOR_BUCKETS + 1] = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(detector_unpack(bad[i].bytes, bad[i].size, cells), -1);
	assert_int_equal(detector_unpack(too_many, DETECTOR_BUCKETS, cells), DETECTOR_BUCKETS);
	assert_int_equal(detector_unpack(too_many, DETECTOR_BUCKETS + 1, cells), -1);
}

static void
test_ring_keeps_48_hours(void **state)
{
	static struct detector_blocks blocks;
	uint64_t counts[DETECTOR_BUCKETS] = {0};

	(void)state;
	detector_blocks_init(&blocks);
	for (int64_t number = 0; number <= DETECTOR_BLOCKS; number++) {
		counts[5] = (uint64_t)number + 1;
		detector_blocks_put(&blocks, number, counts);
	}
	assert_int_equal(blocks.ring[0].number, DETECTOR_BLOCKS); /* in place of block 0 */
	assert_int_equal(blocks.ring[0].n, DETECTOR_BLOCKS + 1);
	assert_int_equal(blocks.ring[1].number, 1);
	detector_blocks_clear(&blocks);
	assert_int_equal(blocks.ring[1].number, -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_buckets_hold_what_their_edges_say),
	    cmocka_unit_test(test_same_buckets_as_histogram),
	    cmocka_unit_test(test_packing_is_exact),
	    cmocka_unit_test(test_bytes_that_are_no_packing_are_refused),
	    cmocka_unit_test(test_ring_keeps_48_hours),
	};

	return cmocka_run_group_tests_name("detector_blocks", tests, NULL, NULL);
}
