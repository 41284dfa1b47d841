/* config: limits of routes, trailer fields, error pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include "config_kit.h"

static void
test_bounds_of_routes(void **state)
{
	struct config *config = load(
	    "{" BASE ", \"limits\": {\"body_bytes\": 7, \"body_idle_timeout_ms\": 8}, \"routes\": ["
	    "{}, {\"body_bytes\": 0, \"body_idle_timeout_ms\": 9, \"response_timeout_ms\": 10}]}");

	(void)state;
	assert_int_equal(config->upstreams[0].bounds.body_bytes, 7);
	assert_int_equal(config->routes[0].bounds.body_bytes, 7);
	assert_int_equal(config->routes[0].bounds.body_idle_timeout_ms, 8);
	assert_int_equal(config->routes[0].bounds.response_timeout_ms, 60000);
	assert_int_equal(config->routes[1].bounds.body_bytes, 0);
	assert_int_equal(config->routes[1].bounds.body_idle_timeout_ms, 9);
	assert_int_equal(config->routes[1].bounds.response_timeout_ms, 10);
	config_free(config);
}

static void
test_trailers(void **state)
{
	static const char *const refused[] = {"Content-Length",    "host",   "x_y",       "a b",
	                                      "X-Forwarded-Proto", "cookie", "x-tailrace"};
	struct config *config =
	    load("{" BASE ", \"limits\": {\"trailers\": [\"X-Sum\", \"server-timing\"]}}");
	char text[1024];

	(void)state;
	assert_string_equal(config->limits.trailers[0], "x-sum");
	assert_string_equal(config->limits.trailers[1], "server-timing");
	config_free(config);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		snprintf(text, sizeof(text),
		         "{" BASE ", \"limits\": {\"trailers\": [\"x\", \"%s\"]}}", refused[i]);
		assert_refused(text, "/limits/trailers/1");
	}
}

static void
test_error_pages(void **state)
{
	static const char *const refused[] = {"200", "40", "4x4", "6xx", "xxx", "404x"};
	struct config *config =
	    load("{" BASE ", \"error_pages\": {\"404\": \"/a\", \"5xx\": {\"file\": \"/b\"}}}");
	char text[1024];

	(void)state;
	assert_int_equal(config->error_page_count, 2);
	assert_string_equal(config->error_pages[0].name, "404");
	assert_string_equal(config->error_pages[0].file, "/a");
	assert_string_equal(config->error_pages[1].file, "/b");
	config_free(config);
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		snprintf(text, sizeof(text), "{" BASE ", \"error_pages\": {\"%s\": \"/a\"}}",
		         refused[i]);
		assert_refused(text, refused[i]);
	}
	assert_refused("{" BASE ", \"error_pages\": {\"404\": {}}}", "/error_pages/404/file");
	assert_refused("{" BASE ", \"error_pages\": {\"404\": 5}}", "/error_pages/404");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bounds_of_routes),
	    cmocka_unit_test(test_trailers),
	    cmocka_unit_test(test_error_pages),
	};

	return cmocka_run_group_tests_name("config_http", tests, NULL, NULL);
}
