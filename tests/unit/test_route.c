/* route: names of exchanges, and the table at its maximum and beyond. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "model/route.h"

static void
expect(const char *told, const char *method, const char *config_name, const char *name)
{
	char buf[ROUTE_NAME_MAX + 1];
	route_name(told, method, strlen(method), config_name, buf);
	assert_string_equal(buf, name);
}

static void
test_names(void **state)
{
	(void)state;
	expect("GET /items/{id}", "GET", "api", "GET /items/{id}");
	expect(NULL, "GET", "api", "GET api");
	expect(NULL, "POST", NULL, "POST (no route)");
	expect("", "PATCH", NULL, "PATCH (no route)");
	expect(NULL, "", NULL, "OTHER (no route)");
	expect(NULL, "get", NULL, "OTHER (no route)");
	expect(NULL, "PROPFIND", "files", "OTHER files");
}

static void
test_long_names(void **state)
{
	char told[ROUTE_NAME_MAX + 64], buf[ROUTE_NAME_MAX + 1];
	(void)state;
	memset(told, 'a', sizeof(told) - 1);
	told[sizeof(told) - 1] = '\0';
	route_name(told, "GET", 3, NULL, buf);
	assert_int_equal(strlen(buf), ROUTE_NAME_MAX);
	/* Two-byte characters from an odd place on: none is cut in half. */
	for (size_t i = 1; i + 2 < sizeof(told); i += 2)
		memcpy(told + i, "\xc3\xa9", 2);
	told[sizeof(told) - 1] = '\0';
	route_name(told, "GET", 3, NULL, buf);
	assert_int_equal(strlen(buf), ROUTE_NAME_MAX - 1);
	assert_int_equal((unsigned char)buf[ROUTE_NAME_MAX - 2], 0xa9);
}

static void
test_table(void **state)
{
	char name[32];
	struct routes *routes = routes_new(3);
	(void)state;
	assert_int_equal(routes_index(routes, "other"), ROUTE_OTHER);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "GET /%d", i);
		assert_int_equal(routes_index(routes, name), i + 1);
	}
	assert_int_equal(routes_overflowed(routes), 0);
	assert_int_equal(routes_index(routes, "GET /3"), ROUTE_OTHER);
	assert_int_equal(routes_overflowed(routes), 1);
	assert_int_equal(routes_index(routes, "GET /1"), 2);
	assert_int_equal(routes_count(routes), 4);
	assert_string_equal(routes_name(routes, 2), "GET /1");
	assert_string_equal(routes_name(routes, 99), ROUTE_OTHER_NAME);
	routes_free(routes);
	routes_free(NULL);
}

static void
test_full_size(void **state)
{
	char name[32];
	struct routes *routes = routes_new(ROUTES_MAX);
	(void)state;
	for (int i = 0; i < ROUTES_MAX + 1; i++) {
		snprintf(name, sizeof(name), "GET /%d", i);
		size_t index = routes_index(routes, name);
		assert_int_equal(index, i < ROUTES_MAX ? i + 1 : ROUTE_OTHER);
	}
	assert_int_equal(routes_overflowed(routes), 1);
	routes_free(routes);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_long_names),
	    cmocka_unit_test(test_table),
	    cmocka_unit_test(test_full_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
