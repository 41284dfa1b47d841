/* Configurations as text, taken or refused: for the tests of config. */
#ifndef CONFIG_KIT_H
#define CONFIG_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/config.h"

#define HEAD "\"listeners\": [{\"address\": \"127.0.0.1:8080\"}]"
#define APP "\"upstreams\": {\"app\": {\"servers\": [\"127.0.0.1:8000\"]}}"
#define CONTROL "\"control\": {\"listeners\": [{\"address\": \"unix:/tmp/t.sock\"}]}"
#define BASE HEAD ", " APP ", " CONTROL

static inline struct config *
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
static inline void
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

#endif
