/* config_show: every key of the file with its value, defaults filled in, secrets cut; what is shown
 * can be read again. */
#include "config_kit.h"

#include "base/config_show.h"

static const char *
text_at(json_t *object, const char *a, const char *b, const char *c, const char *key)
{
	json_t *at = json_object_get(json_object_get(json_object_get(object, a), b), c);
	return json_string_value(json_object_get(at, key));
}

static void
test_defaults(void **state)
{
	struct config *config = load("{" BASE "}");
	json_t *shown = config_show(config), *limits = json_object_get(shown, "limits");
	json_t *upstream = json_object_get(json_object_get(shown, "upstreams"), "app");

	(void)state;
	assert_int_equal(json_integer_value(json_object_get(limits, "head_bytes")), 32768);
	assert_int_equal(json_integer_value(json_object_get(upstream, "queue_max")), 1024);
	assert_string_equal(json_string_value(json_object_get(upstream, "balance")),
	                    "least_outstanding");
	assert_true(json_is_null(json_object_get(upstream, "tls")));
	assert_true(
	    json_is_true(json_object_get(json_object_get(shown, "trace"), "response_header")));
	assert_string_equal(
	    json_string_value(json_object_get(json_object_get(shown, "trace"), "trust")), "never");
	json_decref(shown);
	config_free(config);
}

static void
test_values(void **state)
{
	struct config *config = load(
	    "{" BASE ", \"trace\": {\"trust\": [\"10.0.0.0/8\", \"::1\"]},"
	    "\"routes\": [{\"name\": \"a\", \"methods\": [\"GET\", \"PUT\"], \"retries\": 2}],"
	    "\"alerts\": {\"min_effect\": 0.25, \"receivers\": {\"chat\": {\"type\": \"slack\","
	    "\"url\": \"https://hooks.example/services/T0/secret\"},"
	    "\"plain\": {\"type\": \"webhook\", \"url\": \"http://[::1]:9\"}}}}");
	json_t *shown = config_show(config);
	json_t *route = json_array_get(json_object_get(shown, "routes"), 0);
	json_t *trust = json_object_get(json_object_get(shown, "trace"), "trust");

	(void)state;
	assert_string_equal(json_string_value(json_array_get(trust, 0)), "10.0.0.0/8");
	assert_string_equal(json_string_value(json_array_get(trust, 1)), "::1/128");
	assert_int_equal(json_integer_value(json_object_get(route, "retries")), 2);
	assert_true(json_is_null(json_object_get(route, "queue_timeout_ms"))); /* the upstream's */
	assert_int_equal(json_integer_value(json_object_get(route, "body_bytes")),
	                 0); /* that of limits */
	assert_string_equal(json_string_value(json_object_get(route, "upstream")), "app");
	assert_string_equal(json_string_value(json_array_get(json_object_get(route, "methods"), 1)),
	                    "PUT");
	assert_float_equal(
	    json_real_value(json_object_get(json_object_get(shown, "alerts"), "min_effect")), 0.25,
	    0);
	assert_string_equal(text_at(shown, "alerts", "receivers", "chat", "url"),
	                    "https://hooks.example/…");
	assert_string_equal(text_at(shown, "alerts", "receivers", "plain", "url"),
	                    "http://[::1]:9");
	json_decref(shown);
	config_free(config);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
