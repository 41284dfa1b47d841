/* record and close_reason: text behind a record is trusted only within its size; every reason
 * is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "model/close_reason.h"
#include "model/record.h"

static struct exchange_record *
make(size_t method, size_t path)
{
	struct exchange_record *record = calloc(1, RECORD_SIZE_MAX + 16);

	assert_non_null(record);
	record->method_length = (uint16_t)method;
	record->path_length = (uint16_t)path;
	memset(record + 1, 'm', method);
	memset((char *)(record + 1) + method, 'p', path);
	return record;
}

static void
text_is_found(void **state)
{
	struct exchange_record *record = make(3, 5);
	const char *method, *path;

	(void)state;
	assert_int_equal(record_text(record, sizeof *record + 8, &method, &path), 0);
	assert_memory_equal(method, "mmm", 3);
	assert_memory_equal(path, "ppppp", 5);
	/* trailing padding is no harm, one byte short is */
	assert_int_equal(record_text(record, sizeof *record + 9, &method, &path), 0);
	assert_int_equal(record_text(record, sizeof *record + 7, &method, &path), -1);
	assert_int_equal(record_text(record, sizeof *record - 1, &method, &path), -1);
	assert_int_equal(record_text(record, 0, &method, &path), -1);
	free(record);
}

static void
maximum_and_one_past_it(void **state)
{
	struct exchange_record *record = make(RECORD_METHOD_MAX, RECORD_PATH_MAX);
	const char *method, *path;

	(void)state;
	assert_int_equal(record_text(record, RECORD_SIZE_MAX, &method, &path), 0);
	record->path_length++;
	assert_int_equal(record_text(record, RECORD_SIZE_MAX + 1, &method, &path), -1);
	record->path_length--;
	record->method_length++;
	assert_int_equal(record_text(record, RECORD_SIZE_MAX + 1, &method, &path), -1);
	free(record);
}

static void
every_reason_is_named_once(void **state)
{
	(void)state;
	for (int i = 0; i < CLOSE_REASON_COUNT; i++) {
		int status = close_reason_status((enum close_reason)i);

		assert_true(strlen(close_reason_name((enum close_reason)i)) > 0);
		assert_true(strlen(close_reason_text((enum close_reason)i)) > 0);
		assert_true(status == 0 || (status >= 400 && status <= 505));
		for (int j = 0; j < i; j++)
			assert_string_not_equal(close_reason_name((enum close_reason)i),
			                        close_reason_name((enum close_reason)j));
	}
	assert_string_equal(close_reason_name(CLOSE_REASON_COUNT), "unknown");
	assert_int_equal(close_reason_status(CLOSE_REASON_COUNT), 0);
	assert_int_equal(close_reason_status(CLOSE_BODY_TOO_LARGE), 413);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(text_is_found),
	    cmocka_unit_test(maximum_and_one_past_it),
	    cmocka_unit_test(every_reason_is_named_once),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
