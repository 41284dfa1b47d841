/* json_arena: values lie in it while it is open and nowhere else, what does not fit is freed all
 * the same, threads have their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <cmocka.h>
#include "model/json_arena.h"

static void
test_before_installed(void **state)
{
	(void)state;
	json_arena_begin();
	json_t *root = json_loads("[1,2,3]", 0, NULL);
	assert_int_equal(json_array_size(root), 3);
	assert_int_equal(json_arena_used(), 0);
	json_arena_end(root);
}

static void
test_open_and_closed(void **state)
{
	(void)state;
	json_t *outside = json_loads("{\"a\":[1,2,3]}", 0, NULL);
	assert_int_equal(json_arena_used(), 0);
	for (int i = 0; i < 3; i++) {
		json_arena_begin();
		json_t *root = json_loads("{\"a\":[1,2,3],\"b\":\"text\"}", 0, NULL);
		assert_string_equal(json_string_value(json_object_get(root, "b")), "text");
		assert_true(json_arena_used() > 0);
		json_arena_end(root);
		assert_int_equal(json_arena_used(), 0);
	}
	/* What is refused half-way leaves nothing. */
	json_arena_begin();
	assert_null(json_loads("{\"a\":[1,2,", 0, NULL));
	json_arena_end(NULL);
	json_arena_begin();
	json_decref(outside); /* from before: freed as it was made */
	json_arena_end(NULL);
	char *text = json_dumps(json_true(), JSON_ENCODE_ANY);
	assert_string_equal(text, "true");
	free(text);
}

/* More than the arena holds: the rest comes from malloc() and is freed (the sanitizer looks). */
static void
test_spills(void **state)
{
	size_t count = 600000;
	char *text = malloc(3 * count + 2);
	(void)state;
	text[0] = '[';
	for (size_t i = 0; i < count; i++)
		memcpy(text + 1 + 3 * i, i + 1 < count ? "{}," : "{}]", 3);
	json_arena_begin();
	json_t *root = json_loadb(text, 3 * count + 1, 0, NULL);
	assert_int_equal(json_array_size(root), count);
	assert_true(json_arena_used() > JSON_ARENA_BYTES - 4096);
	json_arena_end(root);
	assert_int_equal(json_arena_used(), 0);
	free(text);
}

static void *
other(void *arg)
{
	json_t *root = json_loads("[1,2,3]", 0, NULL);
	*(size_t *)arg = json_arena_used();
	json_decref(root);
	return NULL;
}

static void
test_threads(void **state)
{
	pthread_t thread;
	size_t used = 1;
	(void)state;
	json_arena_begin();
	json_t *root = json_loads("[1]", 0, NULL);
	assert_int_equal(pthread_create(&thread, NULL, other, &used), 0);
	pthread_join(thread, NULL);
	assert_int_equal(used, 0);
	json_arena_end(root);
}

static int
install(void **state)
{
	(void)state;
	json_arena_install();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest before[] = {cmocka_unit_test(test_before_installed)};
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_open_and_closed),
	    cmocka_unit_test(test_spills),
	    cmocka_unit_test(test_threads),
	};
	int failed = cmocka_run_group_tests(before, NULL, NULL);
	return failed + cmocka_run_group_tests(tests, install, NULL);
}
