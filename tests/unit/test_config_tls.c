/* The TLS sections of the configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/config.h"
#include "base/config_env.h"
#include "base/config_errors.h"
#include "base/config_table.h"
#include "base/config_text.h"

#define HEAD "\"listeners\": [{\"address\": \"127.0.0.1:8080\"}]"
#define APP "\"upstreams\": {\"app\": {\"servers\": [\"127.0.0.1:8000\"]}}"
#define CONTROL "\"control\": {\"listeners\": [{\"address\": \"unix:/tmp/t.sock\"}]}"
#define BASE HEAD ", " APP ", " CONTROL

static struct config *
load(const char *text)
{
	struct config_errors errs = {0};
	struct config *config = NULL;

	if (config_load_bytes("t", text, strlen(text), &config, &errs) == -1)
		fail_msg("%s", errs.lines[0]);
	assert_int_equal(errs.count, 0);
	return config;
}

/* The text must be refused, with exactly one line, which contains `part`. */
static void
assert_refused(const char *text, const char *part)
{
	struct config_errors errs = {0};
	struct config *config = NULL;

	if (config_load_bytes("t", text, strlen(text), &config, &errs) != -1)
		fail_msg("accepted: %s", text);
	if (strstr(errs.lines[0], part) == NULL || errs.count != 1)
		fail_msg("%s: %zu errors, the first: %s", text, errs.count, errs.lines[0]);
	config_errors_free(&errs);
}

#define CERTIFICATE "{\"certificate_file\": \"/c\", \"key_file\": \"/k\"}"

static void
test_tls_sections(void **state)
{
	struct config *config;

	(void)state;
	config = load("{\"listeners\": [{\"address\": \"127.0.0.1:1\", \"tls\": "
	              "{\"certificates\": [" CERTIFICATE "]}, \"proxy_protocol\": true}],"
	              "\"upstreams\": {\"app\": {\"servers\": [\"127.0.0.1:8000\","
	              "{\"address\": \"[::1]:1\", \"tls_name\": \"own.example\"}],"
	              "\"tls\": {}}}, " CONTROL "}");
	assert_true(config->listeners[0].tls.on && config->listeners[0].proxy_protocol);
	assert_int_equal(config->listeners[0].tls.certificate_count, 1);
	assert_string_equal(config->listeners[0].tls.certificates[0].key_file, "/k");
	assert_null(config->listeners[0].tls.client_ca_file);
	assert_true(config->upstreams[0].tls.on && config->upstreams[0].tls.verify);
	assert_string_equal(config->upstreams[0].servers[0].tls_name, "127.0.0.1");
	assert_string_equal(config->upstreams[0].servers[1].tls_name, "own.example");
	config_free(config);
	config = load("{" BASE "}");
	assert_false(config->listeners[0].tls.on || config->listeners[0].proxy_protocol);
	assert_false(config->upstreams[0].tls.on);
	assert_null(config->upstreams[0].servers[0].tls_name);
	config_free(config);
}

static void
test_tls_sections_refused(void **state)
{
	(void)state;
	assert_refused("{\"listeners\": [{\"address\": \"127.0.0.1:1\", \"tls\": {}}]," APP
	               "," CONTROL "}",
	               "/listeners/0/tls/certificates: found nothing");
	assert_refused("{\"listeners\": [{\"address\": \"127.0.0.1:1\", \"tls\": "
	               "{\"certificates\": [{\"certificate_file\": \"/c\"}]}}]," APP "," CONTROL
	               "}",
	               "/listeners/0/tls/certificates/0/key_file: found nothing");
	assert_refused("{" HEAD ", \"upstreams\": {\"app\": {\"servers\": [{\"address\":"
	               "\"127.0.0.1:1\", \"tls_name\": \"x\"}]}}, " CONTROL "}",
	               "/upstreams/app/servers/0/tls_name: the upstream has no tls section");
	assert_refused("{" HEAD ", \"upstreams\": {\"app\": {\"servers\": [\"unix:/x\"],"
	               "\"tls\": {}}}, " CONTROL "}",
	               "/upstreams/app/servers/0/tls_name: found nothing");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_tls_sections),
	    cmocka_unit_test(test_tls_sections_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
