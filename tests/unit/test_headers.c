/* headers: known names, lists, nominations, hop-by-hop, Accept, and the list at its maximum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "model/headers.h"

#define BYTES_MAX 8192

static struct head head;
static char bytes[BYTES_MAX];
static size_t used;

static int
begin(void **state)
{
	(void)state;
	used = 0;
	head_clear(&head, bytes);
	return 0;
}

static int
add(const char *name, const char *value)
{
	size_t name_length = strlen(name), value_length = strlen(value);
	size_t at = used;

	assert_true(used + name_length + value_length < BYTES_MAX);
	memcpy(bytes + at, name, name_length);
	memcpy(bytes + at + name_length, value, value_length);
	used += name_length + value_length;
	return head_add(&head, (uint32_t)at, (uint32_t)name_length, (uint32_t)(at + name_length),
	                (uint32_t)value_length);
}

static void
assert_text(struct text text, const char *expected)
{
	assert_int_equal(text.length, strlen(expected));
	assert_memory_equal(text.at, expected, text.length);
}

static void
known_names_are_found(void **state)
{
	(void)state;
	for (int id = HEADER_X_FORWARDED_OTHER + 1; id < HEADER_COUNT; id++) {
		const char *name = header_name((enum header_id)id);
		char upper[32] = "";

		assert_int_equal(header_id_of(name, strlen(name)), id);
		for (size_t i = 0; name[i]; i++)
			upper[i] =
			    name[i] >= 'a' && name[i] <= 'z' ? (char)(name[i] - 32) : name[i];
		assert_int_equal(header_id_of(upper, strlen(name)), id);
	}
	assert_int_equal(header_id_of("user-agent", 10), HEADER_OTHER);
	assert_int_equal(header_id_of("x-forwarded-port", 16), HEADER_X_FORWARDED_OTHER);
	assert_int_equal(header_id_of("Proxy-Authorization", 19), HEADER_PROXY_OTHER);
	assert_int_equal(header_id_of("content_length", 14), HEADER_UNDERSCORE);
	assert_int_equal(header_id_of("X_Tailrace", 10), HEADER_UNDERSCORE);
	assert_int_equal(header_id_of("x-tailrac", 9), HEADER_OTHER);
}

static void
values_are_trimmed_and_counted(void **state)
{
	(void)state;
	assert_int_equal(add("Host", " \t a.example \t "), 0);
	assert_int_equal(add("Accept", ""), 0);
	assert_int_equal(add("host", "b"), 0);
	assert_text(head_value(&head, HEADER_HOST), "a.example");
	assert_text(head_value(&head, HEADER_ACCEPT), "");
	assert_text(head_value(&head, HEADER_TE), "");
	assert_true(head_has(&head, HEADER_ACCEPT));
	assert_false(head_has(&head, HEADER_TE));
	assert_true(head.twice & HEADER_BIT(HEADER_HOST));
	assert_false(head.twice & HEADER_BIT(HEADER_ACCEPT));
}

static void
list_ends_at_its_maximum(void **state)
{
	(void)state;
	for (int i = 0; i < HEADERS_MAX; i++)
		assert_int_equal(add("x", "y"), 0);
	assert_int_equal(add("x", "y"), -1);
	assert_int_equal(head.count, HEADERS_MAX);
}

static void
lists_are_walked(void **state)
{
	struct text list = {" a ,, b\t,c , ", 13}, token;
	size_t cursor = 0;

	(void)state;
	assert_true(text_next(list, &cursor, &token));
	assert_text(token, "a");
	assert_true(text_next(list, &cursor, &token));
	assert_text(token, "b");
	assert_true(text_next(list, &cursor, &token));
	assert_text(token, "c");
	assert_false(text_next(list, &cursor, &token));
}

static void
nominated_fields_are_hops(void **state)
{
	(void)state;
	add("Connection", "close, X-Secret");
	add("X-Secret", "1");
	add("x-secret", "2");
	add("X-Other", "3");
	add("connection", "x-Last");
	add("X-Last", "4");
	assert_int_equal(head_nominate(&head), 0);
	assert_true(field_is_hop(&head.fields[0]));
	assert_true(field_is_hop(&head.fields[1]));
	assert_true(field_is_hop(&head.fields[2]));
	assert_false(field_is_hop(&head.fields[3]));
	assert_true(field_is_hop(&head.fields[5]));
}

static void
some_may_not_be_nominated(void **state)
{
	static const char *const protected[] = {
	    "Host",       "content-length",  "Transfer-Encoding", "traceparent",
	    "X-Tailrace", "x-trace-id",      "X-Forwarded-For",   "x-forwarded-proto",
	    "tracestate", "x-request-start", "forwarded",
	};

	for (size_t i = 0; i < sizeof protected / sizeof protected[0]; i++) {
		begin(state);
		add("Connection", protected[i]);
		if (head_nominate(&head) != -1)
			fail_msg("%s", protected[i]);
	}
}

static void
hop_by_hop_fields(void **state)
{
	static const char *const hops[] = {"Connection",
	                                   "Keep-Alive",
	                                   "Proxy-Connection",
	                                   "Proxy-Authenticate",
	                                   "Proxy-Authorization",
	                                   "TE",
	                                   "Trailer",
	                                   "Transfer-Encoding",
	                                   "Upgrade",
	                                   "HTTP2-Settings"};
	static const char *const others[] = {"Host", "Cookie", "Authorization", "X-A", "Accept"};

	for (size_t i = 0; i < sizeof hops / sizeof hops[0]; i++) {
		begin(state);
		add(hops[i], "x");
		if (!field_is_hop(&head.fields[0]))
			fail_msg("%s", hops[i]);
	}
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
		begin(state);
		add(others[i], "x");
		if (field_is_hop(&head.fields[0]))
			fail_msg("%s", others[i]);
	}
}

static void
accept_decides_the_reply(void **state)
{
	static const struct {
		const char *value;
		bool json;
	} vectors[] = {
	    {"", true},
	    {"*/*", true},
	    {"application/json", true},
	    {"application/*;q=0.5", true},
	    {"Application/JSON ; q=1", true},
	    {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false},
	    {"text/plain", false},
	    {"image/png", false},
	    {"image/png, application/json", true},
	};

	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		begin(state);
		add("Accept", vectors[i].value);
		if (head_accepts_json(&head) != vectors[i].json)
			fail_msg("%s", vectors[i].value);
	}
	begin(state);
	assert_true(head_accepts_json(&head));
}

static bool
lower_of(char c, char lower)
{
	return (c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) == lower;
}

/* Each length, each place in it, each byte there: eight at a time says what one at a time does. */
static void
case_is_ignored_for_letters_only(void **state)
{
	static const char name[] = "x-forwarded-proto-a09z";

	(void)state;
	for (size_t length = 0; length < sizeof name; length++) {
		char text[sizeof name];

		for (size_t at = 0; at < length; at++) {
			for (int byte = 0; byte < 256; byte++) {
				memcpy(text, name, length);
				text[at] = (char)byte;
				if (text_is_lower(text, name, length) !=
				    lower_of((char)byte, name[at]))
					fail_msg("byte %d at %zu of %zu", byte, at, length);
			}
		}
	}
	assert_true(text_equals((struct text){"X-FORWARDED-PROTO-A09Z", 22}, name));
	assert_false(text_equals((struct text){"x-forwarded-proto-a09", 21}, name));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(known_names_are_found, begin),
	    cmocka_unit_test(case_is_ignored_for_letters_only),
	    cmocka_unit_test_setup(values_are_trimmed_and_counted, begin),
	    cmocka_unit_test_setup(list_ends_at_its_maximum, begin),
	    cmocka_unit_test_setup(lists_are_walked, begin),
	    cmocka_unit_test_setup(nominated_fields_are_hops, begin),
	    cmocka_unit_test_setup(some_may_not_be_nominated, begin),
	    cmocka_unit_test_setup(hop_by_hop_fields, begin),
	    cmocka_unit_test_setup(accept_decides_the_reply, begin),
	};

	return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
