/* spans_rows: the rows of one exchange. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "collector/spans_rows.h"
#include "stack_kit.h"

/* What held the loop before the app was called is a row of its own, and the sum stays the same. */
static void
test_held_before_the_call(void **state)
{
	struct exchange_record record = {.attempts = 1, .status = 200, .died_in = PHASE_COUNT};
	struct join join = {.shared = true, .app_queue_ns = 900, .app_ns = 100};
	struct profile_stall stalls[] = {{.ns = 50}, /* within the app */
	                                 {.queued = true, .ns = 600, .stack = kit_step(1)},
	                                 {.queued = true, .ns = 40}, /* by nobody known */
	                                 {.queued = true, .ns = 700, .stack = kit_step(2)}};
	struct profile profile = {.unattributed_ns = 100, .stalls = stalls, .stall_count = 4};
	struct rollup_part parts[SPAN_PARTS_MAX];
	struct rollup_exchange x;
	uint64_t sum_ns = 0, queue_ns[3] = {0};
	size_t rows = 0;
	(void)state;
	for (unsigned i = MARK_READ_FIRST; i < MARK_COUNT; i++)
		record.marks_ns[i] = 1000;
	struct flame *flame = flame_new(FLAME_STACKS_MAX, FLAME_FRAMES_MAX);
	span_exchange(&record, &profile, &join, MISSING_NOT, flame, 1, parts, &x);
	for (size_t i = 0; i < x.part_count; i++) {
		const struct rollup_key *key = &parts[i].key;
		sum_ns += parts[i].ns;
		if (key->kind != ROLLUP_PHASE || key->cause != ROLLUP_PHASE_APP_QUEUE)
			continue;
		assert_true(rows < 3);
		assert_int_not_equal(key->stack, 0);
		queue_ns[rows++] = parts[i].ns;
	}
	assert_int_equal(sum_ns, x.total_ns);
	assert_int_equal(rows, 2); /* 900 are over with the second */
	assert_int_equal(queue_ns[0], 600);
	assert_int_equal(queue_ns[1], 300);
	stalls[3].ns = 200;
	span_exchange(&record, &profile, &join, MISSING_NOT, flame, 1, parts, &x);
	sum_ns = 0;
	for (size_t i = 0; i < x.part_count; i++)
		if (parts[i].key.kind == ROLLUP_PHASE && parts[i].key.stack == 0)
			sum_ns += parts[i].ns;
	assert_int_equal(sum_ns, 100); /* the rest is nobody's */
	flame_free(flame);
	stack_unref(stalls[1].stack);
	stack_unref(stalls[3].stack);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_held_before_the_call),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
