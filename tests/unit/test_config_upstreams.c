/* config: keys of upstreams, servers, health checks, and what routes put in their place. */
#include "config_kit.h"

#define UPSTREAM(rest) "{" HEAD ", " CONTROL ", \"upstreams\": {\"a\": {" rest "}}}"
#define ONE "\"servers\": [\"1.1.1.1:1\"], "

static void
test_defaults(void **state)
{
	struct config *config = load("{" BASE ", \"routes\": [{}]}");
	const struct config_upstream *upstream = &config->upstreams[0];

	(void)state;
	assert_int_equal(upstream->servers[0].weight, 1);
	assert_int_equal(upstream->queue_max, 1024);
	assert_int_equal(upstream->queue_timeout_ms, 5000);
	assert_int_equal(upstream->balance, CONFIG_LEAST_OUTSTANDING);
	assert_int_equal(upstream->resolve_interval_ms, 10000);
	assert_null(upstream->health.path);
	assert_int_equal(config->routes[0].queue_timeout_ms, CONFIG_INHERIT);
	assert_int_equal(config->routes[0].retries, CONFIG_INHERIT);
	config_free(config);
}

static void
test_values(void **state)
{
	struct config *config = load(
	    UPSTREAM("\"servers\": [\"1.1.1.1:1\", {\"address\": \"1.1.1.1:2\", \"weight\": 7}], "
	             "\"balance\": \"round_robin\", \"queue_max\": 0, "
	             "\"health\": {\"path\": \"/h?x\", \"fall\": 9}"));
	const struct config_upstream *upstream = &config->upstreams[0];

	(void)state;
	assert_int_equal(upstream->servers[0].weight, 1);
	assert_int_equal(upstream->servers[1].weight, 7);
	assert_int_equal(upstream->balance, CONFIG_ROUND_ROBIN);
	assert_int_equal(upstream->queue_max, 0);
	assert_string_equal(upstream->health.path, "/h?x");
	assert_int_equal(upstream->health.interval_ms, 2000);
	assert_int_equal(upstream->health.timeout_ms, 1000);
	assert_int_equal(upstream->health.rise, 2);
	assert_int_equal(upstream->health.fall, 9);
	config_free(config);
	config = load("{" BASE ", \"routes\": [{\"retries\": 0, \"queue_timeout_ms\": 9}]}");
	assert_int_equal(config->routes[0].retries, 0);
	assert_int_equal(config->routes[0].queue_timeout_ms, 9);
	config_free(config);
}

static void
test_refused(void **state)
{
	(void)state;
	assert_refused(UPSTREAM("\"servers\": [{\"address\": \"1.1.1.1:1\", \"weight\": 0}]"),
	               "/upstreams/a/servers/0/weight: found 0, allowed: an integer from 1 to 256");
	assert_refused(UPSTREAM("\"servers\": [\"1.1.1.1:1\", {\"address\": \"1.1.1.1:1\"}]"),
	               "/upstreams/a/servers/1: this server is listed twice");
	assert_refused(UPSTREAM(ONE "\"health\": {\"rise\": 1}"),
	               "/upstreams/a/health/path: found nothing, allowed: ");
	assert_refused(UPSTREAM(ONE "\"health\": {\"path\": \"/a b\"}"),
	               "/upstreams/a/health/path: a path begins with /");
	assert_refused(UPSTREAM(ONE "\"health\": {\"path\": \"a\"}"),
	               "/upstreams/a/health/path: a path begins with /");
	assert_refused(UPSTREAM(ONE "\"balance\": \"random\""),
	               "/upstreams/a/balance: found \"random\", allowed: one of least_outstanding");
	assert_refused("{" BASE ", \"routes\": [{\"retries\": 4}]}",
	               "/routes/0/retries: found 4, allowed: an integer from 0 to 3");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_values),
	    cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
