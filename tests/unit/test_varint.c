/* varint: what was put comes back, and nothing is read beyond the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "model/varint.h"

static void
test_round_trip(void **state)
{
	static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0x3fff, 0x4000, UINT32_MAX, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		uint8_t buf[VARINT_BYTES_MAX];
		uint64_t back = ~edges[i];
		size_t size = varint_put(buf, edges[i]);

		assert_true(size >= 1 && size <= sizeof(buf));
		assert_int_equal(varint_get(buf, size, &back), size);
		assert_true(back == edges[i]);
		assert_int_equal(varint_get(buf, size - 1, &back), 0);
	}
}

static void
test_no_end(void **state)
{
	uint8_t buf[VARINT_BYTES_MAX + 1];
	uint64_t value = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = 0x80;
	assert_int_equal(varint_get(buf, sizeof(buf), &value), 0);
	assert_int_equal(value, 7);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_no_end),
	};

	return cmocka_run_group_tests_name("varint", tests, NULL, NULL);
}
