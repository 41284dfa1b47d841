/* rollup: sums to the nanosecond through merging, subtracting, folding, bytes and chunks; what is
 * no such form is refused and adds nothing. */
#include "rollup_kit.h"

#define STACKS 200

static struct flame *flame;
static uint64_t stacks[STACKS];

static int
set_up(void **state)
{
	char frames[128];
	(void)state;
	flame = flame_new(FLAME_STACKS_MAX, FLAME_FRAMES_MAX);
	for (unsigned i = 0; i < STACKS; i++) {
		snprintf(frames, sizeof(frames), "app:main/app:part%u/app:step%u/lib:wait%u",
		         i / 20, i / 4, i);
		stacks[i] = kit_stack(flame, frames);
		assert_true(stacks[i] != 0);
	}
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	flame_free(flame);
	return 0;
}

static struct rollup *
filled(uint64_t seed, size_t exchanges, size_t stack_count)
{
	struct rollup *r = rollup_new();
	for (size_t i = 0; i < exchanges; i++)
		kit_exchange(r, &seed, stacks, stack_count);
	return r;
}

static void
test_sums(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct rollup *r = filled(seed, 300, 40);
		assert_int_equal(r->requests, 300);
		kit_whole(r);
		rollup_free(r);
	}
}

/* The square is that of an exchange's row, in whole microseconds, and does not overflow. */
static void
test_squares(void **state)
{
	struct rollup *r = rollup_new();
	const struct rollup_key key = {stacks[0], PROFILE_WAIT, PROFILE_CAUSE_HTTP};
	struct rollup_part parts[2] = {{.key = key, .ns = 2000999, .count = 1},
	                               {.key = key, .ns = 1000001, .count = 2}};
	struct rollup_exchange x = {
	    .total_ns = 3001000, .joined = true, .parts = parts, .part_count = 2};
	(void)state;
	rollup_add(r, &x);
	const struct rollup_row *row = rollup_find(r, &key);
	assert_int_equal(row->cell_count, 1);
	assert_true(row->cells[0].us2 == 3001u * 3001u);
	assert_int_equal(row->count, 3);
	parts[0].ns = 24ull * 3600 * 1000000000ull;
	x = (struct rollup_exchange){
	    .total_ns = parts[0].ns, .joined = true, .parts = parts, .part_count = 1};
	for (int i = 0; i < 100; i++)
		rollup_add(r, &x);
	row = rollup_find(r, &key);
	unsigned __int128 day_us = 24ull * 3600 * 1000000ull;
	assert_true(row->cells[row->cell_count - 1].us2 == 100 * day_us * day_us);
	rollup_free(r);
}

/* a + b - b = a, a + b - a = b, and the order of adding does not matter. */
static void
test_merge_subtract(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct rollup *a = filled(seed, 100, 60), *b = filled(seed + 1000, 130, 90);
		struct rollup *ab = rollup_new(), *ba = rollup_new();
		rollup_merge(ab, a);
		rollup_merge(ab, b);
		rollup_merge(ba, b);
		rollup_merge(ba, a);
		kit_whole(ab);
		kit_equal(ab, ba);
		assert_int_equal(rollup_subtract(ab, b), 0);
		kit_equal(ab, a);
		assert_int_equal(rollup_subtract(ba, a), 0);
		kit_equal(ba, b);
		/* What is not a part changes nothing. */
		assert_int_equal(rollup_subtract(a, b), -1);
		kit_equal(ab, a);
		assert_int_equal(rollup_subtract(ab, a), 0);
		assert_int_equal(ab->row_count, 0);
		assert_int_equal(ab->requests, 0);
		rollup_free(a);
		rollup_free(b);
		rollup_free(ab);
		rollup_free(ba);
	}
}

static void
test_fold(void **state)
{
	const struct rollup_parents parents = {flame, flame_parent};
	static const size_t bounds[] = {128, 64, 20, 5};
	(void)state;
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct rollup *r = filled(seed, 400, STACKS);
		struct rollup before = *r;
		assert_true(r->row_count > 128);
		for (size_t i = 0; i < 4; i++) {
			size_t rows = r->row_count;
			size_t folded = rollup_fold(r, bounds[i], &parents);
			assert_true(folded >= rows - bounds[i]);
			assert_int_equal(r->row_count, bounds[i]);
			kit_whole(r);
			assert_int_equal(r->total.sum_ns, before.total.sum_ns);
		}
		rollup_free(r);
	}
}

/* The smallest go first, into the row of the parent frame, which says so. */
static void
test_fold_parent(void **state)
{
	const struct rollup_parents parents = {flame, flame_parent};
	struct rollup *r = rollup_new();
	struct rollup_part parts[3] = {
	    {.key = {stacks[0], PROFILE_WAIT, 0}, .ns = 10, .count = 1},
	    {.key = {stacks[1], PROFILE_WAIT, 0}, .ns = 5, .count = 2},
	    {.key = {stacks[100], PROFILE_WAIT, 0}, .ns = 1000, .count = 3}};
	struct rollup_exchange x = {
	    .total_ns = 1015, .joined = true, .parts = parts, .part_count = 3};
	(void)state;
	rollup_add(r, &x);
	assert_int_equal(rollup_fold(r, 3, &parents), 0);
	assert_true(rollup_fold(r, 2, &parents) > 0);
	struct rollup_key parent = {flame_parent(flame, stacks[0]), PROFILE_WAIT, 0};
	const struct rollup_row *row = rollup_find(r, &parent);
	assert_non_null(row);
	assert_true(row->folded);
	assert_int_equal(row->ns, 15);
	assert_int_equal(row->count, 3);
	assert_false(rollup_find(r, &parts[2].key)->folded);
	kit_whole(r);
	rollup_free(r);
}

static void
test_bytes(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct rollup *a = filled(seed, seed * 20, 60), *b = rollup_new();
		struct text bytes = {0};
		rollup_encode(a, &bytes);
		assert_int_equal(rollup_decode(bytes.data, bytes.length, b), 0);
		kit_equal(a, b);
		assert_int_equal(a->total.min_ns, b->total.min_ns);
		assert_int_equal(rollup_decode(bytes.data, bytes.length, b), 0); /* adds */
		assert_int_equal(b->requests, 2 * a->requests);
		assert_int_equal(rollup_subtract(b, a), 0);
		kit_equal(a, b);
		text_free(&bytes);
		rollup_free(a);
		rollup_free(b);
	}
}

/* Every cut and many flipped bytes: refused with nothing added, or another sum, never a crash. */
static void
test_damage(void **state)
{
	struct rollup *a = filled(7, 50, 30), *b = rollup_new(), *empty = rollup_new();
	struct text bytes = {0};
	uint64_t random = 1;
	(void)state;
	rollup_encode(a, &bytes);
	for (size_t i = 0; i < bytes.length; i++) {
		assert_int_equal(rollup_decode(bytes.data, i, b), -1);
		kit_equal(b, empty);
	}
	for (size_t i = 0; i < 3000; i++) {
		size_t at = kit_random(&random) % bytes.length;
		char was = bytes.data[at];
		bytes.data[at] = (char)kit_random(&random);
		if (rollup_decode(bytes.data, bytes.length, b) != 0)
			kit_equal(b, empty);
		rollup_reset(b);
		bytes.data[at] = was;
	}
	assert_int_equal(rollup_decode(bytes.data, bytes.length, b), 0);
	kit_equal(a, b);
	text_free(&bytes);
	rollup_free(a);
	rollup_free(b);
	rollup_free(empty);
}

static void
test_chunk(void **state)
{
	struct text chunk = {0};
	struct rollup_window window;
	size_t at = 0;
	(void)state;
	for (uint64_t i = 0; i < 6; i++) {
		struct rollup *r = filled(i, 10 * i, 5);
		rollup_chunk_add(&chunk, 1000 + i, 10, r);
		rollup_free(r);
	}
	for (uint64_t i = 0; i < 6; i++) {
		struct rollup *r = rollup_new();
		assert_int_equal(rollup_chunk_next(chunk.data, chunk.length, &at, &window), 1);
		assert_int_equal(window.start_ms, 1000 + i);
		assert_int_equal(window.span_ms, 10);
		assert_int_equal(rollup_decode(window.bytes, window.length, r), 0);
		assert_int_equal(r->requests, 10 * i);
		rollup_free(r);
	}
	assert_int_equal(rollup_chunk_next(chunk.data, chunk.length, &at, &window), 0);
	at = 0;
	assert_int_equal(rollup_chunk_next(chunk.data, 5, &at, &window), -1);
	text_free(&chunk);
}

static void
test_bands(void **state)
{
	uint64_t low, high, last = 0;
	(void)state;
	for (unsigned band = 0; band < ROLLUP_BANDS; band++) {
		rollup_band_edges(band, &low, &high);
		assert_int_equal(low, last);
		assert_true(high > low);
		assert_int_equal(rollup_band(low + 1), band);
		assert_int_equal(rollup_band(high), band);
		if (band > 0 && band + 1 < ROLLUP_BANDS) /* a fourth of an octave */
			assert_in_range(high * 10000 / low, 11880, 11900);
		last = high;
	}
	assert_true(last == UINT64_MAX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sums),           cmocka_unit_test(test_squares),
	    cmocka_unit_test(test_merge_subtract), cmocka_unit_test(test_fold),
	    cmocka_unit_test(test_fold_parent),    cmocka_unit_test(test_bytes),
	    cmocka_unit_test(test_damage),         cmocka_unit_test(test_chunk),
	    cmocka_unit_test(test_bands),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
