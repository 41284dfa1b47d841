/* request_start: every form that load balancers write, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "model/request_start.h"

static int
parse(const char *text, uint64_t *ret)
{
	*ret = 0;
	return request_start_parse(text, strlen(text), ret);
}

static void
forms(void **state)
{
	static const struct {
		const char *text;
		uint64_t wall_ns;
	} known[] = {
	    {"1700000000", 1700000000000000000u},
	    {"t=1700000000", 1700000000000000000u},
	    {"t=1700000000.123", 1700000000123000000u},
	    {"1700000000.123456789", 1700000000123456789u},
	    {"1700000000.1234567899", 1700000000123456789u},
	    {"1700000000123", 1700000000123000000u},
	    {"t=1700000000123.5", 1700000000123500000u},
	    {"t=1700000000123456", 1700000000123456000u},
	    {"1700000000123456.7", 1700000000123456700u},
	    {"t=1700000000123456789", 1700000000123456789u},
	    {"9999999999", 9999999999000000000u},
	    {"9999999999.999999999", 9999999999999999999u},
	    {"1000000000", 1000000000000000000u},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		uint64_t wall_ns;

		assert_int_equal(parse(known[i].text, &wall_ns), 0);
		assert_true(wall_ns == known[i].wall_ns);
	}
}

static void
none(void **state)
{
	static const char *const bad[] = {"",
	                                  "t=",
	                                  "t",
	                                  "now",
	                                  "-1700000000",
	                                  "+1700000000",
	                                  "170000000",
	                                  "17000000000",
	                                  "170000000012",
	                                  "0700000000",
	                                  "t=t=1700000000",
	                                  "1700000000.",
	                                  "1700000000.5x",
	                                  "1700000000 ",
	                                  "1700000000,5",
	                                  "1.7e9",
	                                  "17000000001234567890",
	                                  "99999999999999999999999999"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t wall_ns;

		assert_int_equal(parse(bad[i], &wall_ns), -1);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(forms),
	    cmocka_unit_test(none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
