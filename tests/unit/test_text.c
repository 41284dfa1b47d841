/* text: numbers, JSON strings that are always valid JSON, hexadecimal, memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>
#include "base/xmem.h"
#include "model/text.h"

static void
json_is(const char *in, size_t length, const char *expected)
{
	struct text text = {0};
	text_json(&text, in, length);
	assert_string_equal(text.data, expected);
	text_free(&text);
}

static void
test_json(void **state)
{
	(void)state;
	json_is("", 0, "\"\"");
	json_is("a\"b\\c", 5, "\"a\\\"b\\\\c\"");
	json_is("\n\x7f\0", 3, "\"\\u000a\\u007f\\u0000\"");
	json_is("\xc3\xa9\xf0\x9f\x98\x80", 6, "\"\xc3\xa9\xf0\x9f\x98\x80\"");
	json_is("\xff\xc3", 2, "\"\\ufffd\\ufffd\"");
	json_is("\xc0\xaf", 2, "\"\\ufffd\\ufffd\"");            /* overlong */
	json_is("\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\""); /* surrogate */
	json_is("\xf4\x90\x80\x80", 4, "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
}

static void
test_json_any_bytes(void **state)
{
	uint64_t seed = 88172645463325252ull;
	(void)state;
	for (int round = 0; round < 5000; round++) {
		char bytes[24];
		for (size_t i = 0; i < sizeof(bytes); i++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			bytes[i] = (char)(seed >> 11);
		}
		struct text text = {0};
		text_json(&text, bytes, sizeof(bytes));
		json_t *value =
		    json_loadb(text.data, text.length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		assert_non_null(value);
		json_decref(value);
		text_free(&text);
	}
}

static void
test_numbers(void **state)
{
	struct text text = {0};
	(void)state;
	text_u64(&text, 0);
	text_puts(&text, " ");
	text_u64(&text, UINT64_MAX);
	text_printf(&text, " %d ", -5);
	text_hex(&text, (const uint8_t *)"\x00\xab\xff", 3);
	text_json_or_null(&text, NULL);
	assert_string_equal(text.data, "0 18446744073709551615 -5 00abffnull");
	text_reset(&text);
	assert_int_equal(text.length, 0);
	for (int i = 0; i < 5000; i++)
		text_puts(&text, "0123456789");
	assert_int_equal(text.length, 50000);
	assert_int_equal(strlen(text.data), 50000);
	text_free(&text);
}

static void
test_no_memory(void **state)
{
	(void)state;
	for (uint64_t nth = 1; nth < 12; nth++) {
		struct text text = {0};
		xmem_fail_after(nth, 0);
		for (int i = 0; i < 3000; i++)
			text_puts(&text, "0123456789");
		xmem_fail_after(0, 0);
		assert_true(text.failed ==
		            (nth <= 7)); /* 512 bytes doubled six times hold it all */
		assert_true(text.failed || text.length == 30000);
		text_free(&text);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_json),
	    cmocka_unit_test(test_json_any_bytes),
	    cmocka_unit_test(test_numbers),
	    cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
