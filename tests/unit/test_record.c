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
what_stands_behind_the_path(void **state)
{
	struct exchange_record *record = make(3, 5);
	struct record_tcp tcp = {.rtt_us = 77}, read_tcp;
	size_t size = sizeof *record + 3 + 5 + 2 + 4;
	struct record_head head;
	char *text = (char *)(record + 1);

	(void)state;
	record->user_agent_length = 2;
	record->referer_length = 4;
	memcpy(text + 8, "aarrrr", 6);
	assert_int_equal(record_head(record, size, &head), 0);
	assert_memory_equal(head.user_agent, "aa", 2);
	assert_memory_equal(head.referer, "rrrr", 4);
	assert_int_equal(record_head(record, size - 1, &head), -1);
	assert_int_equal(record_tcp(record, size, &read_tcp), -1);
	record->flags = RECORD_HAS_TCP;
	memcpy(text + 14, &tcp, sizeof tcp);
	assert_int_equal(record_head(record, size + sizeof tcp - 1, &head), -1);
	assert_int_equal(record_tcp(record, size + sizeof tcp, &read_tcp), 0);
	assert_int_equal(read_tcp.rtt_us, 77);
	free(record);
}

static void
longest_texts_and_one_past_each(void **state)
{
	struct exchange_record *record = make(RECORD_METHOD_MAX, RECORD_PATH_MAX);
	struct record_head head;

	(void)state;
	record->flags = RECORD_HAS_TCP;
	record->user_agent_length = RECORD_USER_AGENT_MAX;
	record->referer_length = RECORD_REFERER_MAX;
	assert_int_equal(record_head(record, RECORD_SIZE_MAX, &head), 0);
	record->user_agent_length++;
	assert_int_equal(record_head(record, RECORD_SIZE_MAX + 1, &head), -1);
	record->user_agent_length--;
	record->referer_length++;
	assert_int_equal(record_head(record, RECORD_SIZE_MAX + 1, &head), -1);
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
	    cmocka_unit_test(what_stands_behind_the_path),
	    cmocka_unit_test(longest_texts_and_one_past_each),
	    cmocka_unit_test(every_reason_is_named_once),
	};

	return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
