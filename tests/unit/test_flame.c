/* flame: what is one stack and what is not, IDs that follow from the names alone, parents, newest
 * lines, bounds, care. */
#include "rollup_kit.h"
#include "stack_kit.h"

static struct stack *
told(const char *json, uint64_t key, uint32_t form)
{
	struct stack *stack = kit_told(json, key);
	stack->form = form;
	return stack;
}

static uint64_t
intern(struct flame *flame, const char *json, uint64_t key, uint32_t form, uint64_t now_s)
{
	struct stack *stack = told(json, key, form);
	uint64_t id = flame_intern(flame, stack, now_s);
	stack_unref(stack);
	return id;
}

#define FRAME(module, function, file, line)                                         \
	"{\"module\":\"" module "\",\"function\":\"" function "\",\"file\":\"" file \
	"\",\"line\":" line ",\"in_app\":true}"

/* A deploy moves lines and the release's folder: the same stack, with the newest of both. */
static void
test_newest_line(void **state)
{
	struct flame *flame = flame_new(10, 10);
	uint64_t key = flame_key(flame_key(0, "app", "main"), "app.db", "fetch");
	struct flame_frame frame;
	(void)state;
	uint64_t a = intern(flame,
	                    "[" FRAME("app", "main", "/r1/app.py",
	                              "3") "," FRAME("app.db", "fetch", "/r1/db.py", "10") "]",
	                    key, 1, 100);
	uint64_t b = intern(flame,
	                    "[" FRAME("app", "main", "/r2/app.py",
	                              "3") "," FRAME("app.db", "fetch", "/r2/db.py", "12") "]",
	                    key, 2, 200);
	assert_int_equal(a, key);
	assert_int_equal(b, key);
	assert_int_equal(flame_count(flame), 1);
	frame = flame_frame(flame, key, 1);
	assert_string_equal(frame.file, "/r2/db.py");
	assert_int_equal(frame.line, 12);
	assert_string_equal(flame_frame(flame, key, 0).function, "main");
	/* Two releases beside each other: not parsed anew at every exchange. */
	intern(flame, "not even JSON", key, 1, 201);
	assert_int_equal(flame_frame(flame, key, 1).line, 12);
	flame_free(flame);
}

static void
test_keys(void **state)
{
	struct flame *flame = flame_new(100, 100);
	uint64_t ab = kit_stack(flame, "app:a/app:b"), ba = kit_stack(flame, "app:b/app:a");
	(void)state;
	assert_true(ab != ba && ab != 0 && ba != 0);
	assert_true(flame_key(0, "ab", "c") != flame_key(0, "a", "bc"));
	assert_int_equal(kit_stack(flame, "app:a/app:b"), ab);
	assert_int_equal(flame_parent(flame, ab), kit_stack(flame, "app:a"));
	assert_int_equal(flame_parent(flame, flame_parent(flame, ab)), 0);
	assert_int_equal(flame_parent(flame, 12345), 0);
	assert_int_equal(flame_depth(flame, ab), 2);
	assert_int_equal(flame_depth(flame, 12345), 0);
	assert_int_equal(flame_learn(flame, "[]", 2, 1), 0);
	assert_int_equal(flame_learn(flame, "[{}]", 4, 1), 0);
	assert_int_equal(flame_learn(flame, "nothing", 7, 1), 0);
	flame_free(flame);
}

static void
test_named(void **state)
{
	struct flame *flame = flame_new(100, 100);
	struct flame_frame frame;
	(void)state;
	assert_true(flame_named(flame, kit_stack(flame, "app:a/app:b/lib:c/lib:d"), &frame));
	assert_string_equal(frame.function, "b");
	assert_true(flame_named(flame, kit_stack(flame, "lib:c/lib:d"), &frame));
	assert_string_equal(frame.function, "d");
	assert_false(flame_named(flame, 99, &frame));
	flame_free(flame);
}

static void
test_written(void **state)
{
	struct flame *flame = flame_new(100, 100), *other = flame_new(100, 100);
	struct text text = {0};
	(void)state;
	uint64_t id = kit_stack(flame, "app:a/app:<lambda>/lib:c");
	flame_write(flame, id, &text);
	assert_int_equal(flame_learn(other, text.data, text.length, 1), id);
	text_reset(&text);
	flame_write(flame, 99, &text);
	assert_string_equal(text.data, "[]");
	text_free(&text);
	flame_free(flame);
	flame_free(other);
}

static void
test_bounds(void **state)
{
	struct flame *flame = flame_new(3, 100), *narrow = flame_new(100, 3);
	char frames[64];
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		snprintf(frames, sizeof(frames), "app:a/app:b%u", i);
		assert_true(kit_stack(flame, frames) != 0);
	}
	assert_int_equal(flame_overflowed(flame), 0);
	assert_int_equal(kit_stack(flame, "app:a/app:b3"), 0);
	assert_int_equal(flame_overflowed(flame), 1);
	assert_true(kit_stack(flame, "app:a/app:b2") != 0); /* known ones still are */
	assert_int_equal(flame_parent(flame, kit_stack(flame, "app:a/app:b2")), 0);
	assert_int_equal(flame_overflowed(flame), 2);
	assert_true(kit_stack(narrow, "app:a/app:b/app:c") != 0);
	assert_int_equal(kit_stack(narrow, "app:a/app:d"), 0);
	assert_true(kit_stack(narrow, "app:a/app:b") != 0);
	assert_int_equal(flame_overflowed(narrow), 1);
	flame_free(flame);
	flame_free(narrow);
}

static unsigned told_unsaved;

static bool
on_unsaved(void *arg, uint64_t stack)
{
	assert_true(arg == NULL && stack != 0);
	told_unsaved++;
	return true;
}

static void
test_care(void **state)
{
	struct flame *flame = flame_new(100, 100);
	uint64_t key = flame_key(0, "app", "a");
	(void)state;
	told_unsaved = 0;
	intern(flame, "[" FRAME("app", "a", "f", "1") "]", key, 1, 1000);
	kit_stack(flame, "app:b"); /* used at 1 */
	flame_each_unsaved(flame, 1000, 3600, on_unsaved, NULL);
	assert_int_equal(told_unsaved, 2);
	flame_each_unsaved(flame, 1001, 3600, on_unsaved, NULL);
	assert_int_equal(told_unsaved, 2);
	intern(flame, "[" FRAME("app", "a", "f", "2") "]", key, 2, 1500); /* a line moved */
	flame_each_unsaved(flame, 1500, 3600, on_unsaved, NULL);
	assert_int_equal(told_unsaved, 3);
	intern(flame, "", key, 2, 6000); /* still in use an hour later */
	flame_each_unsaved(flame, 6000, 3600, on_unsaved, NULL);
	assert_int_equal(told_unsaved, 4);
	flame_prune(flame, 2000);
	assert_int_equal(flame_count(flame), 1);
	assert_int_equal(flame_depth(flame, key), 1);
	flame_free(flame);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_newest_line), cmocka_unit_test(test_keys),
	    cmocka_unit_test(test_named),       cmocka_unit_test(test_written),
	    cmocka_unit_test(test_bounds),      cmocka_unit_test(test_care),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
