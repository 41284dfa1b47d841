/* clock: it goes on, it is formatted exactly, and it knows which clock it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "base/clock.h"

static void
test_never_goes_back(void **state)
{
	uint64_t last = clock_now_ns();

	(void)state;
	for (int i = 0; i < 10000; i++) {
		uint64_t now = clock_now_ns();

		assert_true(now >= last);
		last = now;
	}
}

static void
test_format(void **state)
{
	char buf[32];

	(void)state;
	clock_format(1, buf, sizeof(buf));
	assert_string_equal(buf, "1970-01-01T00:00:00.000000001Z");
	clock_format(1795428000ull * NS_PER_S + 1, buf, sizeof(buf));
	assert_string_equal(buf, "2026-11-23T10:00:00.000000001Z");
	clock_format(1709251199ull * NS_PER_S + 999999999, buf, sizeof(buf));
	assert_string_equal(buf, "2024-02-29T23:59:59.999999999Z");
}

static void
test_wall_is_this_century(void **state)
{
	(void)state;
	assert_in_range(clock_wall_ns() / NS_PER_S, 1700000000, 4102444800);
}

static void
test_identity_is_stable(void **state)
{
	char first[CLOCK_BOOT_ID_SIZE], second[CLOCK_BOOT_ID_SIZE];
	uint64_t first_ns = 1, second_ns = 2;

	(void)state;
	assert_int_equal(clock_identity(first, &first_ns), 0);
	assert_int_equal(clock_identity(second, &second_ns), 0);
	assert_int_equal(strlen(first), CLOCK_BOOT_ID_SIZE - 1);
	assert_string_equal(first, second);
	assert_int_equal(first_ns, second_ns);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_never_goes_back),
	    cmocka_unit_test(test_format),
	    cmocka_unit_test(test_wall_is_this_century),
	    cmocka_unit_test(test_identity_is_stable),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
