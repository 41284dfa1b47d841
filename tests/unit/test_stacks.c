/* stacks: learning, resend, forgetting in the order of last hearing; each bound at its maximum and
 * beyond. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "model/stacks.h"

static const struct stacks_limits small = {.instances = 3, .stacks = 6, .bytes = 1 << 20};

static struct stack *
stack_of(size_t length)
{
	struct stack *stack = xcalloc(1, sizeof(*stack) + length + 1);
	stack->references = 1;
	stack->length = (uint32_t)length;
	memset(stack->text, 'x', length);
	return stack;
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
	    cmocka_unit_test(test_learn),         cmocka_unit_test(test_rows_keep_theirs),
	    cmocka_unit_test(test_instances_max), cmocka_unit_test(test_stacks_max),
	    cmocka_unit_test(test_bytes_max),     cmocka_unit_test(test_dropped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
