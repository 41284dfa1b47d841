/* target: what routing sees of a path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "model/target.h"

static void
normal_forms(void **state)
{
	static const char *const cases[][2] = {
	    {"/", "/"},
	    {"*", "*"},
	    {"?q=/../x", "/"},
	    {"/a/b?c/../d", "/a/b"},
	    {"/%61dmin", "/admin"},
	    {"/%41%2D%7e", "/A-~"},
	    {"/a%2Fb", "/a%2Fb"},
	    {"/a%zz%", "/a%zz%"},
	    {"/a/./b/../c", "/a/c"},
	    {"/a/..", "/"},
	    {"/..", "/"},
	    {"/../../x", "/x"},
	    {"/x/%2e%2E/admin", "/admin"},
	    {"/a/.", "/a/"},
	    {"/.hidden", "/.hidden"},
	    {"/...", "/..."},
	    {"/a//../b", "/a/b"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char buf[64];
		struct text target = {cases[i][0], strlen(cases[i][0])};
		struct text normal = target_normal(target, buf, target.length);

		if (normal.length != strlen(cases[i][1]) ||
		    memcmp(normal.at, cases[i][1], normal.length) != 0)
			fail_msg("%s: %.*s", cases[i][0], (int)normal.length, normal.at);
		if (target_is_normal(target))
			assert_true(normal.at != buf);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(normal_forms)};

	return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}
