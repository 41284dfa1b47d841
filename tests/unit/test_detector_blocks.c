/* detector_scale, detector_pack, detector_blocks: every bucket in its place, packed counts come
 * back as they were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "detector_kit.h"
#include "model/detector_blocks.h"
#include "model/detector_pack.h"

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
assert_packs(const uint32_t counts[DETECTOR_BUCKETS])
{
	uint8_t packed[DETECTOR_PACKED_MAX];
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint32_t back[DETECTOR_BUCKETS] = {0};
	size_t size = detector_pack(counts, packed);
	int used = detector_unpack(packed, size, cells);

	assert_true(size <= sizeof(packed));
	assert_true(used >= 0);
	for (int i = 0; i < used; i++) {
		assert_true(i == 0 || cells[i].bucket > cells[i - 1].bucket);
		back[cells[i].bucket] = (uint32_t)cells[i].count;
	}
	assert_memory_equal(back, counts, sizeof(back));
}

static void
test_packing_is_exact(void **state)
{
	static const uint32_t edges[] = {1,
	                                 2,
	                                 11,
	                                 12,
	                                 13,
	                                 31,
	                                 32,
	                                 127,
	                                 4095,
	                                 16384,
	                                 1u << 31,
	                                 UINT32_MAX / 20,
	                                 UINT32_MAX / 2,
	                                 UINT32_MAX - 1,
	                                 UINT32_MAX};
	uint32_t counts[DETECTOR_BUCKETS] = {0};

	(void)state;
	assert_packs(counts);
	for (size_t e = 0; e < sizeof(edges) / sizeof(edges[0]); e++) {
		for (unsigned i = 0; i < DETECTOR_BUCKETS; i++) {
			uint32_t one[DETECTOR_BUCKETS] = {0};

			one[i] = edges[e];
			assert_packs(one);
			one[0] = one[DETECTOR_BUCKETS - 1] = edges[e]; /* runs of any length */
			assert_packs(one);
			counts[i] = edges[e];
			assert_packs(counts);
		}
		/* What comes after nothing, and the longest there is. */
		for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
			counts[i] = i % 3 == 0 ? edges[e] : 0;
		assert_packs(counts);
	}
	for (int round = 0; round < 20000; round++) {
		double share = kit_uniform(), size = kit_uniform() * 22;

		for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
			counts[i] = kit_uniform() < share ? (uint32_t)exp(kit_uniform() * size) : 0;
		assert_packs(counts);
	}
}

/* What the memory of a thousand routes rests on: five minutes of 5 requests/s. */
static void
test_packing_is_small(void **state)
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint8_t packed[DETECTOR_PACKED_MAX];
	uint32_t counts[DETECTOR_BUCKETS] = {0};
	size_t used = kit_cells(cells, 1500, 40);

	(void)state;
	for (size_t i = 0; i < used; i++)
		counts[cells[i].bucket] = (uint32_t)cells[i].count;
	assert_in_range(detector_pack(counts, packed), used / 3, used * 3 / 4);
}

/* No bytes make it read or write where it must not; what is taken packs to itself. */
static void
test_bytes_that_are_no_packing_are_refused(void **state)
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint8_t bytes[64];
	unsigned refused = 0;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		size_t size = 1 + (size_t)(kit_uniform() * (sizeof(bytes) - 1));

		for (size_t i = 0; i < size; i++)
			bytes[i] = (uint8_t)(kit_uniform() * 256);
		if (round % 2) { /* a likely beginning */
			bytes[0] &= 0x07;
			bytes[1] &= 0xc1;
		}
		int used = detector_unpack(bytes, size, cells);
		assert_true(used >= -1 && used <= DETECTOR_BUCKETS);
		refused += used < 0;
		for (int i = 0; i < used; i++)
			assert_true(cells[i].bucket < DETECTOR_BUCKETS && cells[i].count > 0 &&
			            (i == 0 || cells[i].bucket > cells[i - 1].bucket));
	}
	assert_true(refused > 150000);
}

static void
test_packing_cut_short_is_refused(void **state)
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint8_t packed[DETECTOR_PACKED_MAX + 1];
	uint32_t counts[DETECTOR_BUCKETS] = {0};
	size_t used = kit_cells(cells, 1500, 40), size;

	(void)state;
	for (size_t i = 0; i < used; i++)
		counts[cells[i].bucket] = (uint32_t)cells[i].count;
	size = detector_pack(counts, packed);
	for (size_t cut = 1; cut < size; cut++)
		assert_int_equal(detector_unpack(packed, cut, cells), -1);
	packed[size] = 0;
	assert_int_equal(detector_unpack(packed, size + 1, cells), -1);
	assert_int_equal(detector_unpack(packed, size, cells), (int)used);
}

/* --- the ring ---------------------------------------------------------------------------- */

#define KEPT 576

static void
test_ring_keeps_48_hours(void **state)
{
	struct detector_blocks blocks;
	struct detector_walk walk = {0};
	struct detector_block block;
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint32_t counts[DETECTOR_BUCKETS] = {0};
	int64_t number = 1;

	(void)state;
	detector_blocks_init(&blocks, KEPT);
	assert_false(detector_blocks_next(&blocks, &walk, &block));
	for (; number <= 5 * KEPT; number++) {
		counts[5] = number % 7 == 0 ? 0 : (uint32_t)number; /* one in seven is empty */
		detector_blocks_put(&blocks, number, counts);
	}
	number = 4 * KEPT + 1;
	while (detector_blocks_next(&blocks, &walk, &block)) {
		number += number % 7 == 0;
		assert_int_equal(block.number, number);
		assert_int_equal(block.n, number);
		assert_int_equal(detector_block_cells(&block, cells), 1);
		assert_int_equal(cells[0].count, number);
		number++;
	}
	assert_int_equal(number, 5 * KEPT + 1);
	/* Long after: only what is new. */
	counts[5] = 1;
	detector_blocks_put(&blocks, 50 * KEPT, counts);
	walk = (struct detector_walk){0};
	assert_true(detector_blocks_next(&blocks, &walk, &block));
	assert_int_equal(block.number, 50 * KEPT);
	assert_false(detector_blocks_next(&blocks, &walk, &block));
	detector_blocks_clear(&blocks);
	walk = (struct detector_walk){0};
	assert_false(detector_blocks_next(&blocks, &walk, &block));
	detector_blocks_put(&blocks, 3, counts);
	assert_true(detector_blocks_next(&blocks, &walk, &block));
	detector_blocks_clear(&blocks);
}

static void
test_chunks_come_back(void **state)
{
	struct detector_blocks blocks, again;
	struct detector_walk walk = {0};
	struct detector_block block;
	uint32_t counts[DETECTOR_BUCKETS] = {0};

	(void)state;
	detector_blocks_init(&blocks, KEPT);
	detector_blocks_init(&again, KEPT);
	for (int64_t number = 120; number < 144; number++) {
		counts[number] = (uint32_t)number;
		detector_blocks_put(&blocks, number, counts);
	}
	struct detector_chunk *first = &blocks.chunks[10], *second = &blocks.chunks[11];
	assert_int_equal(first->number, 10);
	/* Begun before the route learned anew: left out. */
	assert_int_equal(detector_blocks_restore(&again, 121, 10, first->bytes, first->size), 0);
	assert_int_equal(again.newest, -1);
	assert_int_equal(detector_blocks_restore(&again, 120, 10, first->bytes, first->size), 0);
	assert_int_equal(detector_blocks_restore(&again, 0, 10, first->bytes, first->size), -1);
	assert_int_equal(detector_blocks_restore(&again, 0, 9, first->bytes, first->size), -1);
	assert_int_equal(detector_blocks_restore(&again, 0, 11, first->bytes, 7), -1);
	assert_int_equal(detector_blocks_restore(&again, 0, 11, second->bytes, second->size), 0);
	for (int64_t number = 120; number < 144; number++) {
		assert_true(detector_blocks_next(&again, &walk, &block));
		assert_int_equal(block.number, number);
	}
	assert_false(detector_blocks_next(&again, &walk, &block));
	detector_blocks_clear(&blocks);
	detector_blocks_clear(&again);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_buckets_hold_what_their_edges_say),
	    cmocka_unit_test(test_same_buckets_as_histogram),
	    cmocka_unit_test(test_packing_is_exact),
	    cmocka_unit_test(test_packing_is_small),
	    cmocka_unit_test(test_bytes_that_are_no_packing_are_refused),
	    cmocka_unit_test(test_packing_cut_short_is_refused),
	    cmocka_unit_test(test_ring_keeps_48_hours),
	    cmocka_unit_test(test_chunks_come_back),
	};

	return cmocka_run_group_tests_name("detector_blocks", tests, NULL, NULL);
}
