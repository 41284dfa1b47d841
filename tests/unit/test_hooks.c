/* hooks: who posted, latest first; at the limit and one past it; the silent are not shown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include "base/clock.h"
#include "collector/hooks.h"

static void
hear(struct hooks *hooks, uint32_t number, uint64_t now_ns)
{
	char python[] = "3.12.1", loop[] = "asyncio", engine[] = "steps", hook[] = "0.1.0";
	struct profile_process process = {
	    .pid = number, .python = python, .loop = loop, .engine = engine, .hook_version = hook};
	memcpy(process.instance, &number, sizeof(number));
	hooks_heard(hooks, &process, 2, now_ns);
}

static json_t *
written(const struct hooks *hooks, uint64_t now_ns)
{
	struct text text = {0};
	hooks_write(hooks, now_ns, &text);
	json_t *list = json_loadb(text.data, text.length, 0, NULL);
	text_free(&text);
	assert_non_null(list);
	return list;
}

static json_int_t
number_of(json_t *list, size_t index, const char *key)
{
	return json_integer_value(json_object_get(json_array_get(list, index), key));
}

static void
test_latest_first(void **state)
{
	struct hooks *hooks = hooks_new();
	(void)state;
	hear(hooks, 1, 10 * NS_PER_S);
	hear(hooks, 2, 11 * NS_PER_S);
	hear(hooks, 1, 12 * NS_PER_S);
	json_t *list = written(hooks, 20 * NS_PER_S);
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(number_of(list, 0, "pid"), 1);
	assert_int_equal(number_of(list, 0, "batches"), 2);
	assert_int_equal(number_of(list, 0, "profiles"), 4);
	assert_int_equal(number_of(list, 0, "since_s"), 10);
	assert_int_equal(number_of(list, 0, "heard_s"), 8);
	assert_true(json_is_null(json_object_get(json_array_get(list, 0), "version")));
	json_decref(list);
	list = written(hooks, 11 * NS_PER_S + HOOKS_SILENT_NS + 1);
	assert_int_equal(json_array_size(list), 1); /* the other is silent */
	json_decref(list);
	hooks_free(hooks);
}

static void
test_limit(void **state)
{
	struct hooks *hooks = hooks_new();
	(void)state;
	for (uint32_t i = 1; i <= HOOKS_MAX; i++)
		hear(hooks, i, i * NS_PER_MS);
	json_t *list = written(hooks, NS_PER_S);
	assert_int_equal(json_array_size(list), HOOKS_MAX);
	assert_int_equal(number_of(list, HOOKS_MAX - 1, "pid"), 1);
	json_decref(list);
	hear(hooks, HOOKS_MAX + 1, NS_PER_S); /* takes the place of the first */
	list = written(hooks, NS_PER_S);
	assert_int_equal(json_array_size(list), HOOKS_MAX);
	assert_int_equal(number_of(list, 0, "pid"), HOOKS_MAX + 1);
	assert_int_equal(number_of(list, HOOKS_MAX - 1, "pid"), 2);
	json_decref(list);
	hooks_free(hooks);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_latest_first),
	    cmocka_unit_test(test_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
