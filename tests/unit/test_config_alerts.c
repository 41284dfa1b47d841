/* config, section `alerts`: defaults, numbers that are no integers, what does not fit together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/config.h"
#include "base/config_table.h"
#include "model/detector.h"

#define BASE                                                              \
	"\"listeners\": [{\"address\": \"127.0.0.1:8080\"}], "            \
	"\"upstreams\": {\"app\": {\"servers\": [\"127.0.0.1:8000\"]}}, " \
	"\"control\": {\"listeners\": [{\"address\": \"unix:/tmp/t.sock\"}]}"

static struct config *
load(const char *alerts)
{
	struct config_errors errs = {0};
	struct config *config = NULL;
	char text[12288];

	snprintf(text, sizeof(text), "{" BASE ", \"alerts\": {%s}}", alerts);
	if (config_load_bytes("t", text, strlen(text), &config, &errs) == -1)
		fail_msg("%s: %s", alerts, errs.lines[0]);
	return config;
}

/* Exactly one error, which contains `part`. */
static void
assert_refused_with(const char *more, const char *alerts, const char *part)
{
	struct config_errors errs = {0};
	struct config *config = NULL;
	char text[12288];

	snprintf(text, sizeof(text), "{" BASE "%s, \"alerts\": {%s}}", more, alerts);
	if (config_load_bytes("t", text, strlen(text), &config, &errs) != -1)
		fail_msg("accepted: %s", alerts);
	if (errs.count != 1 || strstr(errs.lines[0], part) == NULL)
		fail_msg("%s: %zu errors, the first: %s", alerts, errs.count, errs.lines[0]);
	config_errors_free(&errs);
}

static void
assert_refused(const char *alerts, const char *part)
{
	assert_refused_with("", alerts, part);
}

static void
test_defaults(void **state)
{
	struct config *config = load("");
	struct detector_params params, expected;

	(void)state;
	detector_params_default(&expected);
	detector_params_configured(&params, &config->alerts);
	assert_memory_equal(&params, &expected, sizeof(params));
	assert_int_equal(config->alerts.latency, CONFIG_LATENCY_SERVER);
	assert_int_equal(config->alerts.rule_count, 0);
	assert_int_equal(config->alerts.receiver_count, 0);
	assert_null(config->alerts.dashboard_url);
	config_free(config);
}

static void
test_everything(void **state)
{
	struct config *config = load(
	    "\"window_ms\": 1000, \"min_duration_s\": 10, \"reference_s\": 60,"
	    "\"reference_gap_s\": 10, \"latency\": \"first_byte\", \"false_alarm_budget\": 0.5,"
	    "\"min_effect\": 0.25, \"min_effect_ms\": 2.5, \"dashboard_url\": \"https://d/x\","
	    "\"rules\": [{\"metric\": \"p99\", \"route\": \"GET /items/{id}\", \"above_ms\": 300,"
	    "\"for_s\": 60, \"receivers\": [\"ops\"]}, {\"metric\": \"error_ratio\", \"above\":"
	    "0.05, \"name\": \"errors\"}, {\"metric\": \"burn_rate\", \"objective\": 0.999}],"
	    "\"receivers\": {\"ops\": {\"type\": \"webhook\", \"url\": \"https://h:8443/p?q\"},"
	    "\"l\": {\"type\": \"log\"}}");
	const struct config_alerts *alerts = &config->alerts;

	(void)state;
	assert_int_equal(alerts->window_ms, 1000);
	assert_int_equal(alerts->latency, CONFIG_LATENCY_FIRST_BYTE);
	assert_true(alerts->false_alarm_budget == 0.5 && alerts->min_effect == 0.25);
	assert_true(alerts->min_effect_ms == 2.5);
	assert_int_equal(alerts->rule_count, 3);
	assert_string_equal(alerts->rules[0].name, "p99 of GET /items/{id} above 300 ms");
	assert_string_equal(alerts->rules[0].receivers[0], "ops");
	assert_int_equal(alerts->rules[0].for_s, 60);
	assert_string_equal(alerts->rules[1].name, "errors");
	assert_null(alerts->rules[1].receivers);
	assert_true(alerts->rules[2].objective == 0.999);
	assert_int_equal(alerts->receiver_count, 2);
	assert_int_equal(alerts->receivers[0].type, CONFIG_RECEIVER_WEBHOOK);
	assert_string_equal(alerts->receivers[0].url, "https://h:8443/p?q");
	config_free(config);
}

static void
test_windows(void **state)
{
	(void)state;
	assert_refused("\"window_ms\": 1500", "/alerts/window_ms: windows are whole seconds");
	assert_refused("\"window_ms\": 7000", "/alerts/window_ms: windows are whole seconds");
	assert_refused("\"window_ms\": 999", "/alerts/window_ms: found 999");
	assert_refused("\"window_ms\": 20000, \"min_duration_s\": 19", "/alerts/min_duration_s:");
	assert_refused("\"window_ms\": 20000, \"reference_s\": 19", "/alerts/reference_s: shorter");
	assert_refused("\"window_ms\": 20000, \"reference_gap_s\": 19", "/alerts/reference_gap_s:");
	assert_refused("\"reference_gap_s\": 605", "/alerts/reference_gap_s: no multiple");
}

static void
test_rules(void **state)
{
	static const char routes[] =
	    ", \"routes\": [{\"path_prefix\": \"/api\", \"methods\": [\"GET\"]},"
	    "{\"path_prefix\": \"/quiet\", \"alerts\": false},"
	    "{\"name\": \"site\", \"host\": \"s\"}]";
	static const char narrow[] =
	    ", \"routes\": [{\"path_prefix\": \"/api\", \"methods\": [\"GET\"]},"
	    "{\"path_prefix\": \"/quiet\", \"alerts\": false}]";

	(void)state;
	assert_refused("\"rules\": [{\"above_ms\": 1}]", "/alerts/rules/0/metric: found nothing");
	assert_refused("\"rules\": [{\"metric\": \"p98\", \"above_ms\": 1}]",
	               "/alerts/rules/0/metric: found \"p98\"");
	assert_refused("\"rules\": [{\"metric\": \"p95\"}]",
	               "/alerts/rules/0/above_ms: found nothing");
	assert_refused("\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1, \"above\": 0.1}]",
	               "/alerts/rules/0/above: only");
	assert_refused("\"rules\": [{\"metric\": \"error_ratio\"}]",
	               "/alerts/rules/0/above: found nothing");
	assert_refused("\"rules\": [{\"metric\": \"error_ratio\", \"above\": 1.5}]",
	               "/alerts/rules/0/above: found 1.5");
	assert_refused("\"rules\": [{\"metric\": \"burn_rate\", \"objective\": 0.4}]",
	               "/alerts/rules/0/objective:");
	assert_refused(
	    "\"rules\": [{\"metric\": \"burn_rate\", \"objective\": 0.9, \"for_s\": 60}]",
	    "/alerts/rules/0/for_s:");
	assert_refused("\"window_ms\": 20000, \"rules\": [{\"metric\": \"p95\", \"above_ms\": 1,"
	               "\"for_s\": 10}]",
	               "/alerts/rules/0/for_s: shorter");
	assert_refused(
	    "\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1, \"receivers\": [\"x\"]}]",
	    "/alerts/rules/0/receivers/0: unknown receiver");
	assert_refused("\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1}, {\"metric\": \"p95\","
	               "\"above_ms\": 1}]",
	               "/alerts/rules/1/name: an earlier rule");
	assert_refused("\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1, \"route\": \"/x\"}]",
	               "/alerts/rules/0/route: a route is a method");
	assert_refused("\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1, \"route\": \"GET x\"}]",
	               "/alerts/rules/0/route: unknown route");
	assert_refused_with(narrow,
	                    "\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1, \"route\":"
	                    "\"GET /other\"}]",
	                    "/alerts/rules/0/route: unknown route");
	assert_refused_with(narrow,
	                    "\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1, \"route\":"
	                    "\"POST /api/x\"}]",
	                    "/alerts/rules/0/route: unknown route");
	assert_refused_with(narrow,
	                    "\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1, \"route\":"
	                    "\"GET /quiet\"}]",
	                    "/alerts/rules/0/route: unknown route");
	/* What may be there: below a prefix, a parameter, a name, the last resorts. */
	struct config_errors errs = {0};
	static const char *const good[] = {"GET /api/x", "GET /{any}", "POST site", "other",
	                                   "GET (no route)"};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct config *config = NULL;
		char text[2048];
		snprintf(text, sizeof(text),
		         "{" BASE
		         "%s, \"alerts\": {\"rules\": [{\"metric\": \"p95\", \"above_ms\": 1,"
		         "\"route\": \"%s\"}]}}",
		         routes, good[i]);
		if (config_load_bytes("t", text, strlen(text), &config, &errs) == -1)
			fail_msg("%s: %s", good[i], errs.lines[0]);
		config_free(config);
	}
}

static void
test_receivers(void **state)
{
	static const struct {
		const char *url, *part;
	} urls[] = {{"ftp://h/", "begins with http://"}, {"http://", "names a host"},
	            {"h:80/x", "begins with http://"},   {"http://a b/", "no URL"},
	            {"http://u:p@h/", "token_file"},     {"http://h/#x", "no fragment"},
	            {"http://h:0/", "ports go from"},    {"http://h:70000/", "UR"}};
	char text[512];

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		snprintf(text, sizeof(text),
		         "\"receivers\": {\"a\": {\"type\": \"webhook\", \"url\": \"%s\"}}",
		         urls[i].url);
		assert_refused(text, urls[i].part);
	}
	assert_refused("\"receivers\": {\"a\": {\"url\": \"http://h/\"}}",
	               "/alerts/receivers/a/type: found nothing");
	assert_refused("\"receivers\": {\"a\": {\"type\": \"slack\"}}",
	               "/alerts/receivers/a/url: exactly one");
	assert_refused("\"receivers\": {\"a\": {\"type\": \"slack\", \"url\": \"http://h/\","
	               "\"url_file\": \"/f\"}}",
	               "/alerts/receivers/a/url: exactly one");
	assert_refused("\"receivers\": {\"a\": {\"type\": \"log\", \"url\": \"http://h/\"}}",
	               "/alerts/receivers/a: a receiver of type log");
	assert_refused("\"dashboard_url\": \"h\"", "/alerts/dashboard_url:");
}

/* Of every number that is no integer: the ends of its range are taken, one beyond is not. */
static void
test_reals_at_their_limits(void **state)
{
	static const struct {
		enum config_object object;
		const char *before, *after;
	} places[] = {{CONFIG_OBJECT_ALERTS, "", ""}};
	char text[512];
	size_t seen = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const struct config_key *key = config_object_keys(places[i].object);

		for (; key->object == places[i].object; key++) {
			const double values[] = {key->real_min, key->real_max,
			                         key->real_min - 0.001, key->real_max + 0.001};

			if (key->kind != CONFIG_KIND_REAL)
				continue;
			seen++;
			for (size_t j = 0; j < 4; j++) {
				snprintf(text, sizeof(text), "%s\"%s\": %.6f%s", places[i].before,
				         key->name, values[j], places[i].after);
				if (j < 2)
					config_free(load(text));
				else
					assert_refused(text, key->name);
			}
		}
	}
	assert_int_equal(seen, 3);
	assert_refused("\"min_effect\": \"0.1\"",
	               "/alerts/min_effect: found \"0.1\", allowed: a number");
}

static void
test_lists_at_their_limits(void **state)
{
	char text[8192];

	(void)state;
	for (size_t extra = 0; extra < 2; extra++) {
		size_t n = (size_t)snprintf(text, sizeof(text), "\"rules\": [");

		for (size_t i = 0; i < CONFIG_RULES_MAX + extra; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n,
			                      "%s{\"metric\":\"p95\",\"above_ms\":%zu}",
			                      i > 0 ? "," : "", i + 1);
		snprintf(text + n, sizeof(text) - n, "]");
		if (extra == 0)
			config_free(load(text));
		else
			assert_refused(text, "/alerts/rules: found");
		n = (size_t)snprintf(text, sizeof(text), "\"receivers\": {");
		for (size_t i = 0; i < CONFIG_RECEIVERS_MAX + extra; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n,
			                      "%s\"r%zu\":{\"type\":\"log\"}", i > 0 ? "," : "", i);
		snprintf(text + n, sizeof(text) - n, "}");
		if (extra == 0)
			config_free(load(text));
		else
			assert_refused(text, "/alerts/receivers: found");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_everything),
	    cmocka_unit_test(test_windows),
	    cmocka_unit_test(test_rules),
	    cmocka_unit_test(test_receivers),
	    cmocka_unit_test(test_reals_at_their_limits),
	    cmocka_unit_test(test_lists_at_their_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
