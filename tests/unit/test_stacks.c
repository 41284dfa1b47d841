/* stacks: learning, resend, forgetting in the order of last hearing; each bound at its maximum and
 * beyond. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "model/stacks.h"

static const struct stacks_limits small = {.instances = 3, .stacks = 6, .bytes = 1 << 20};

static struct stack *
stack_of(size_t length)
{
	/* Numbered, for two of the same frames would be one. */
	static unsigned number;
	char text[4096];
	memset(text, 'x', length);
	snprintf(text, sizeof(text), "%u", ++number);
	return stack_new(NULL, text, length, 1);
}

/* A batch of instance `instance` that tells stacks `first` to `last` and names stack `named` (-2 =
 * no profile). */
static struct profile_batch *
batch_of(unsigned instance, int first, int last, int named)
{
	struct profile_batch *batch = xcalloc(1, sizeof(*batch));
	batch->process = xcalloc(1, sizeof(*batch->process));
	batch->process->references = 1;
	batch->process->instance[0] = (uint8_t)instance;
	batch->stacks =
	    xcalloc(1 + (last >= first ? (size_t)(last - first + 1) : 0), sizeof(*batch->stacks));
	for (int id = last; id >= first; id--) {
		batch->stacks[batch->stack_count].id = id;
		batch->stacks[batch->stack_count++].stack = stack_of(10);
	}
	batch->profiles = xcalloc(2, sizeof(*batch->profiles));
	if (named >= -1) {
		struct profile *p = xcalloc(1, sizeof(*p));
		p->breakdown.rows = xcalloc(1, sizeof(*p->breakdown.rows));
		p->breakdown.count = 1;
		p->breakdown.rows[0].stack_id = named;
		p->stalls = xcalloc(1, sizeof(*p->stalls));
		p->stall_count = 1;
		p->stalls[0].stack_id = named;
		batch->profiles[batch->profile_count++] = p;
	}
	return batch;
}

static enum stacks_result
take(struct stacks *stacks, unsigned instance, int first, int last, int named)
{
	uint64_t dropped;
	struct profile_batch *batch = batch_of(instance, first, last, named);
	enum stacks_result result = stacks_take(stacks, batch, &dropped);
	if (named >= 0)
		assert_int_equal(batch->profiles[0]->breakdown.rows[0].stack != NULL,
		                 result == STACKS_OK);
	profile_batch_free(batch);
	return result;
}

static void
test_learn(void **state)
{
	struct stacks *stacks = stacks_new(&small);
	(void)state;
	assert_int_equal(take(stacks, 1, 1, 0, 0), STACKS_RESEND);
	assert_int_equal(stacks_instances(stacks), 0); /* nothing was taken */
	assert_int_equal(take(stacks, 1, 1, 0, -1), STACKS_OK);
	assert_int_equal(take(stacks, 1, 0, 2, 1), STACKS_OK);
	assert_int_equal(stacks_count(stacks), 3);
	assert_int_equal(take(stacks, 1, 1, 0, 2), STACKS_OK);
	assert_int_equal(take(stacks, 1, 1, 0, 3), STACKS_RESEND);
	assert_int_equal(take(stacks, 2, 1, 0, 1), STACKS_RESEND); /* IDs are the instance's own */
	assert_int_equal(take(stacks, 1, 0, 2, 2), STACKS_OK);     /* told again: the same */
	assert_int_equal(stacks_count(stacks), 3);
	stacks_free(stacks);
}

static void
test_rows_keep_theirs(void **state)
{
	uint64_t dropped;
	struct stacks *stacks = stacks_new(&small);
	struct profile_batch *batch = batch_of(1, 0, 0, 0);
	(void)state;
	assert_int_equal(stacks_take(stacks, batch, &dropped), STACKS_OK);
	struct stack *stack = batch->profiles[0]->breakdown.rows[0].stack;
	assert_ptr_equal(batch->profiles[0]->stalls[0].stack, stack);
	stacks_free(stacks); /* forgotten, but the row holds its own */
	assert_int_equal(stack->length, 10);
	profile_batch_free(batch);
}

static void
test_instances_max(void **state)
{
	struct stacks *stacks = stacks_new(&small);
	(void)state;
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(take(stacks, i, 0, 0, 0), STACKS_OK);
	assert_int_equal(stacks_forgotten(stacks), 0);
	assert_int_equal(take(stacks, 1, 1, 0, 0),
	                 STACKS_OK); /* 1 is heard again: 2 is the oldest */
	assert_int_equal(take(stacks, 4, 0, 0, 0), STACKS_OK);
	assert_int_equal(stacks_forgotten(stacks), 1);
	assert_int_equal(stacks_instances(stacks), 3);
	assert_int_equal(take(stacks, 2, 1, 0, 0), STACKS_RESEND);
	assert_int_equal(take(stacks, 1, 1, 0, 0), STACKS_OK);
	assert_int_equal(take(stacks, 3, 1, 0, 0), STACKS_OK);
	stacks_free(stacks);
}

static void
test_stacks_max(void **state)
{
	struct stacks *stacks = stacks_new(&small);
	(void)state;
	assert_int_equal(take(stacks, 1, 0, 2, 0), STACKS_OK);
	assert_int_equal(take(stacks, 2, 0, 2, 0), STACKS_OK);
	assert_int_equal(stacks_count(stacks), 6);
	assert_int_equal(stacks_forgotten(stacks), 0);
	assert_int_equal(take(stacks, 2, 3, 3, 3), STACKS_OK);
	assert_int_equal(stacks_forgotten(stacks), 1); /* instance 1 made room */
	assert_int_equal(stacks_count(stacks), 4);
	assert_int_equal(take(stacks, 2, 4, 5, 5), STACKS_OK);
	assert_int_equal(stacks_forgotten(stacks), 1);
	/* Alone past the bound: this batch still has its stacks, the next one is told to resend. */
	assert_int_equal(take(stacks, 2, 6, 6, 0), STACKS_OK);
	assert_int_equal(stacks_count(stacks), 0);
	assert_int_equal(stacks_bytes(stacks), 0);
	assert_int_equal(take(stacks, 2, 1, 0, 0), STACKS_RESEND);
	assert_int_equal(take(stacks, 2, 0, 3, 0), STACKS_OK);
	stacks_free(stacks);
}

static void
test_bytes_max(void **state)
{
	uint64_t dropped;
	struct stacks_limits limits = {.instances = 3, .stacks = 100, .bytes = 4000};
	struct stacks *stacks = stacks_new(&limits);
	(void)state;
	assert_int_equal(take(stacks, 1, 0, 3, 0), STACKS_OK);
	size_t before = stacks_bytes(stacks);
	assert_true(before > 40 && before < 4000);
	struct profile_batch *batch = batch_of(2, 0, 0, 0);
	stack_unref(batch->stacks[0].stack);
	batch->stacks[0].stack = stack_of(3800);
	assert_int_equal(stacks_take(stacks, batch, &dropped), STACKS_OK);
	profile_batch_free(batch);
	assert_int_equal(stacks_instances(stacks), 1);
	assert_true(stacks_bytes(stacks) <= 4000);
	stacks_free(stacks);
}

/* --- stacks themselves ------------------------------------------------------------------- */

static struct stack *
chain(const char *const *frames, size_t count)
{
	struct stack *stack = NULL;
	for (size_t i = 0; i < count; i++) {
		struct stack *longer = stack_new(stack, frames[i], strlen(frames[i]), i + 1);
		stack_unref(stack);
		stack = longer;
	}
	return stack;
}

static void
assert_written(const struct stack *stack, const char *expected)
{
	struct text text = {0};
	stack_write(stack, &text);
	assert_string_equal(text.data, expected);
	text_free(&text);
}

static void
test_frames_are_shared(void **state)
{
	static const char *const one[] = {"{1}", "{2}", "{3}"}, *const other[] = {"{1}", "{2}",
	                                                                          "{4}"};
	static const char *const moved[] = {"{1}", "{5}", "{3}"};
	struct stack_pool *pool = stack_pool_new();
	struct stack *told[] = {chain(one, 3),   chain(other, 3), chain(one, 3),
	                        chain(moved, 3), chain(one, 2),   stack_new(NULL, "", 0, 0)};
	struct stack *shared[6];
	(void)state;
	for (size_t i = 0; i < 6; i++) {
		shared[i] = stack_share(pool, told[i]);
		stack_unref(told[i]);
	}
	assert_written(shared[0], "[{1},{2},{3}]");
	assert_written(shared[1], "[{1},{2},{4}]");
	assert_written(shared[3], "[{1},{5},{3}]");
	assert_written(shared[5], "[]");
	assert_written(NULL, "[]");
	assert_ptr_equal(shared[2], shared[0]);
	assert_ptr_equal(shared[1]->id.parent, shared[0]->id.parent);
	assert_ptr_equal(shared[4], shared[0]->id.parent);
	assert_ptr_not_equal(shared[3], shared[0]);
	assert_int_not_equal(shared[3]->form, shared[0]->form);
	assert_int_equal(shared[1]->key, 3);
	/* One frame of its own is what a stack costs beyond another. */
	size_t before = stack_pool_bytes(pool);
	stack_unref(shared[1]);
	assert_int_equal(before - stack_pool_bytes(pool), sizeof(struct stack) + 4);
	stack_unref(shared[0]);
	assert_written(shared[2], "[{1},{2},{3}]");
	for (size_t i = 2; i < 5; i++)
		stack_unref(shared[i]);
	assert_int_equal(stack_pool_bytes(pool), sizeof(struct stack) + 1);
	stack_pool_free(pool);
	assert_written(shared[5], "[]"); /* outlives it */
	stack_unref(shared[5]);
}

/* A thousand routes of 30 rows and 20 frames in eight processes: within the bounds. */
static void
test_default_bounds_hold_what_they_should(void **state)
{
	struct stacks_limits limits = {STACKS_INSTANCES_MAX, STACKS_MAX, STACKS_BYTES_MAX};
	struct stacks *stacks = stacks_new(&limits);
	(void)state;
	for (unsigned instance = 1; instance <= 8; instance++) {
		for (int first = 0; first < 30000; first += 1000) {
			uint64_t dropped;
			struct profile_batch *batch = batch_of(instance, first, first + 999, -2);
			for (int i = 0; i < 1000; i++) {
				char text[20][160];
				const char *at[20];
				int number = first + i;
				for (int k = 0; k < 20; k++) {
					snprintf(
					    text[k], sizeof(text[k]),
					    "{\"module\":\"app.module%d\",\"function\":\"f%d_%d\","
					    "\"file\":\"/srv/app/releases/current/app/module.py\","
					    "\"line\":12,\"in_app\":true}",
					    k, k,
					    k < 17   ? 0
					    : k < 19 ? number / 30
					             : number);
					at[k] = text[k];
				}
				stack_unref(batch->stacks[i].stack);
				batch->stacks[i].id = number;
				batch->stacks[i].stack = chain(at, 20);
			}
			assert_int_equal(stacks_take(stacks, batch, &dropped), STACKS_OK);
			profile_batch_free(batch);
		}
	}
	assert_int_equal(stacks_forgotten(stacks), 0);
	assert_int_equal(stacks_count(stacks), 240000);
	assert_in_range(stacks_bytes(stacks), 20 << 20, 30 << 20);
	stacks_free(stacks);
}

static void
test_dropped(void **state)
{
	uint64_t dropped, told[] = {5, 5, 9, 0}, expected[] = {5, 0, 4, 0};
	struct stacks *stacks = stacks_new(&small);
	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct profile_batch *batch = batch_of(1, 1, 0, -2);
		batch->process->dropped = told[i];
		assert_int_equal(stacks_take(stacks, batch, &dropped), STACKS_OK);
		assert_int_equal(dropped, expected[i]);
		profile_batch_free(batch);
	}
	stacks_free(stacks);
	stacks_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_learn),
	    cmocka_unit_test(test_rows_keep_theirs),
	    cmocka_unit_test(test_instances_max),
	    cmocka_unit_test(test_stacks_max),
	    cmocka_unit_test(test_bytes_max),
	    cmocka_unit_test(test_dropped),
	    cmocka_unit_test(test_frames_are_shared),
	    cmocka_unit_test(test_default_bounds_hold_what_they_should),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
