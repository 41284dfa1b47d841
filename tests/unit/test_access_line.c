/* access_line: both formats, and nothing that a client sends can break a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "model/access_line.h"
#include "model/close_reason.h"

/* A record with every text at its longest, filled with `fill`. Owned; *ret_size is its size. */
static struct exchange_record *
make(int fill, size_t *ret_size)
{
	struct exchange_record *record = calloc(1, RECORD_SIZE_MAX);

	assert_non_null(record);
	record->method_length = RECORD_METHOD_MAX;
	record->path_length = RECORD_PATH_MAX;
	record->user_agent_length = RECORD_USER_AGENT_MAX;
	record->referer_length = RECORD_REFERER_MAX;
	record->died_in = PHASE_COUNT;
	record->client_family = AF_INET;
	record->client_ip[0] = 127;
	record->client_ip[3] = 1;
	record->start_wall_ns = 1700000000u * NS_PER_S;
	for (size_t i = 0; i < MARK_COUNT; i++)
		record->marks_ns[i] = 1000 + i * i;
	*ret_size = RECORD_SIZE_MAX - sizeof(struct record_tcp);
	memset(record + 1, fill, *ret_size - sizeof(*record));
	return record;
}

static void
every_byte_makes_valid_json(void **state)
{
	const struct access_names names = {.route = "r\"", .upstream = NULL, .server = "s\\"};

	(void)state;
	for (int fill = 0; fill < 256; fill++) {
		struct text out = {0};
		size_t size;
		struct exchange_record *record = make(fill, &size);
		json_t *json, *phase;
		const char *key;
		json_int_t sum = 0;

		access_line_json(&out, record, size, &names);
		assert_false(out.failed);
		assert_int_equal(out.data[out.length - 1], '\n');
		assert_ptr_equal(memchr(out.data, '\n', out.length), out.data + out.length - 1);
		json =
		    json_loadb(out.data, out.length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
		assert_non_null(json);
		json_object_foreach(json_object_get(json, "phases_ns"), key, phase) sum +=
		    json_integer_value(phase);
		assert_int_equal(sum, json_integer_value(json_object_get(json, "total_ns")));
		assert_int_equal(sum, (MARK_COUNT - 1) * (MARK_COUNT - 1));
		assert_true(json_is_null(json_object_get(json, "upstream")));
		assert_string_equal(json_string_value(json_object_get(json, "route")), "r\"");
		json_decref(json);
		text_free(&out);
		free(record);
	}
}

static void
every_byte_stays_in_its_field(void **state)
{
	(void)state;
	for (int fill = 0; fill < 256; fill++) {
		struct text out = {0};
		size_t size, quotes = 0;
		struct exchange_record *record = make(fill, &size);

		access_line_combined(&out, record, size);
		for (size_t i = 0; i < out.length; i++) {
			unsigned char c = (unsigned char)out.data[i];

			quotes += c == '"';
			assert_true((c >= 0x20 && c < 0x7f) || i == out.length - 1);
		}
		assert_int_equal(quotes, 6);
		assert_int_equal(out.data[out.length - 1], '\n');
		text_free(&out);
		free(record);
	}
}

static void
combined_as_others_write_it(void **state)
{
	static const char texts[] = "GET/a?bagentref";
	struct exchange_record *record;
	struct text out = {0};
	size_t size;

	(void)state;
	setenv("TZ", "UTC+3:30", 1);
	tzset();
	record = make('x', &size);
	record->method_length = 3;
	record->path_length = 4;
	record->user_agent_length = 5;
	record->referer_length = 3;
	record->status = 200;
	record->response_body_bytes = 1234;
	memcpy(record + 1, texts, sizeof(texts) - 1);
	size = sizeof(*record) + sizeof(texts) - 1;
	access_line_combined(&out, record, size);
	assert_string_equal(out.data,
	                    "127.0.0.1 - - [14/Nov/2023:18:43:20 -0330] \"GET /a?b HTTP/1.1\" "
	                    "200 1234 \"ref\" \"agent\"\n");
	text_reset(&out);
	record->method_length = record->path_length = 0;
	record->user_agent_length = record->referer_length = 0;
	record->client_family = AF_UNIX;
	record->status = 0;
	access_line_combined(&out, record, sizeof(*record));
	assert_string_equal(out.data,
	                    "- - - [14/Nov/2023:18:43:20 -0330] \"-\" 000 1234 \"-\" \"-\"\n");
	text_free(&out);
	free(record);
}

static void
lengths_that_do_not_fit_write_nothing(void **state)
{
	const struct access_names names = {0};
	struct text out = {0};
	size_t size;
	struct exchange_record *record = make('x', &size);

	(void)state;
	access_line_json(&out, record, size - 1, &names);
	access_line_combined(&out, record, size - 1);
	record->referer_length++;
	access_line_json(&out, record, size + 1, &names);
	assert_int_equal(out.length, 0);
	text_free(&out);
	free(record);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_byte_makes_valid_json),
	    cmocka_unit_test(every_byte_stays_in_its_field),
	    cmocka_unit_test(combined_as_others_write_it),
	    cmocka_unit_test(lengths_that_do_not_fit_write_nothing),
	};

	return cmocka_run_group_tests_name("access_line", tests, NULL, NULL);
}
