/* trace_context: vectors of W3C Trace Context for traceparent and tracestate, and the ID pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/trace_context.h"

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

static int
parse(const char *value)
{
	struct trace_parent parent;

	return trace_parent_parse(value, strlen(value), &parent);
}

static void
traceparent_is_read(void **state)
{
	struct trace_parent parent;
	const char *value = "00-" TRACE "-" SPAN "-01";
	char back[TRACEPARENT_LENGTH];

	(void)state;
	assert_int_equal(trace_parent_parse(value, strlen(value), &parent), 0);
	assert_int_equal(parent.trace_id[0], 0x0a);
	assert_int_equal(parent.trace_id[15], 0x9c);
	assert_int_equal(parent.parent_id[7], 0x31);
	assert_int_equal(parent.flags, TRACE_FLAG_SAMPLED);
	trace_parent_format(back, parent.trace_id, parent.parent_id, parent.flags);
	assert_memory_equal(back, value, TRACEPARENT_LENGTH);
}

/* The cases of the W3C test suite (test_traceparent_*), and ours. */
static void
traceparent_vectors(void **state)
{
	static const struct {
		const char *value;
		int expected;
	} vectors[] = {
	    {"00-" TRACE "-" SPAN "-00", 0},
	    {"00-" TRACE "-" SPAN "-ff", 0},
	    {"cc-" TRACE "-" SPAN "-01", 0}, /* a future version is read by the 00 prefix */
	    {"cc-" TRACE "-" SPAN "-01-what-the-future-will-be-like", 0},
	    {"cc-" TRACE "-" SPAN "-01.what-the-future-will-not-be-like", -1},
	    {"00-" TRACE "-" SPAN "-01-what-the-future-will-be-like", -1},
	    {"00-" TRACE "-" SPAN "-01-", -1},
	    {"00-" TRACE "-" SPAN "-01.", -1},
	    {"ff-" TRACE "-" SPAN "-01", -1},
	    {".0-" TRACE "-" SPAN "-01", -1},
	    {"0.-" TRACE "-" SPAN "-01", -1},
	    {"00-00000000000000000000000000000000-" SPAN "-01", -1},
	    {"00-" TRACE "-0000000000000000-01", -1},
	    {"00-.af7651916cd43dd8448eb211c80319c-" SPAN "-01", -1},
	    {"00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01", -1},
	    {"00-" TRACE "-B7AD6B7169203331-01", -1},
	    {"00-" TRACE "-.7ad6b7169203331-01", -1},
	    {"00-0af7651916cd43dd8448eb211c80319-" SPAN "-01", -1},
	    {"00-" TRACE "0-" SPAN "-01", -1},
	    {"00-" TRACE "-" SPAN "-.0", -1},
	    {"00-" TRACE "-" SPAN "-0.", -1},
	    {"00-" TRACE "-" SPAN "-1", -1},
	    {"00_" TRACE "-" SPAN "-01", -1},
	    {"", -1},
	    {"00", -1},
	    {" 00-" TRACE "-" SPAN "-01", -1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
		if (parse(vectors[i].value) != vectors[i].expected)
			fail_msg("%s", vectors[i].value);
}

static void
tracestate_vectors(void **state)
{
	static const struct {
		const char *value;
		bool expected;
	} vectors[] = {
	    {"foo=1", true},
	    {"foo=1,bar=2", true},
	    {"foo=1 \t , \t bar=2, \t baz=3", true},
	    {"foo=1,", true},
	    {"foo=1,,bar=2", true},
	    {"foo-bar_baz*qux/9=1", true},
	    {"fw529a3039@dt=FfAAAA", true},
	    {"1a-2f@foo=bar1", true},
	    {"foo= 1", true},
	    {"foo=1=2", false},
	    {"foo=", false},
	    {"foo", false},
	    {"=1", false},
	    {"foo@=1", false},
	    {"@foo=1", false},
	    {"foo@@bar=1", false},
	    {"foo@bar@baz=1", false},
	    {"Foo=1", false},
	    {"1foo=1", false},
	    {"foo =1", false},
	    {"foo.bar=1", false},
	    {"foo=1,foo=1", false},
	    {"foo=b\xc3\xa4r", false},
	    {"foo@bar01234567890123=1", false},
	    {"", false},
	    {",", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
		if (trace_state_valid(vectors[i].value, strlen(vectors[i].value)) !=
		    vectors[i].expected)
			fail_msg("%s", vectors[i].value);
}

static void
tracestate_limits(void **state)
{
	char value[1024];
	size_t at = 0;

	(void)state;
	for (int i = 0; i < TRACESTATE_MEMBERS_MAX; i++)
		at += (size_t)sprintf(value + at, "%sk%02d=1", i ? "," : "", i);
	assert_true(trace_state_valid(value, at));
	at += (size_t)sprintf(value + at, ",k32=1");
	assert_false(trace_state_valid(value, at));

	at = (size_t)sprintf(value, "a=%0253d,b=", 1);
	memset(value + at, 'x', sizeof value - at);
	assert_true(trace_state_valid(value, TRACESTATE_MAX));
	assert_false(trace_state_valid(value, TRACESTATE_MAX + 1));
	assert_true(trace_state_valid(value + at - 2, 2 + 256)); /* longest value */
	assert_false(trace_state_valid(value + at - 2, 2 + 257));
}

static void
hex_there_and_back(void **state)
{
	uint8_t bytes[4];
	char text[9] = "";

	(void)state;
	assert_int_equal(hex_parse("00ff7a0f", bytes, 4), 0);
	hex_format(text, bytes, 4);
	assert_string_equal(text, "00ff7a0f");
	assert_int_equal(hex_parse("0g", bytes, 1), -1);
	assert_int_equal(hex_parse("0A", bytes, 1), -1);
	for (unsigned byte = 0; byte < 256; byte++) {
		char expected[3];

		bytes[0] = (uint8_t)byte;
		snprintf(expected, sizeof expected, "%02x", byte);
		hex_format(text, bytes, 1);
		assert_memory_equal(text, expected, 2);
		assert_int_equal(hex_parse(text, bytes + 1, 1), 0);
		assert_int_equal(bytes[1], byte);
	}
}

static int
compare(const void *a, const void *b)
{
	return memcmp(a, b, TRACE_ID_SIZE);
}

/* More IDs than one filling of the pool holds; a repeat in 10 000 random ones is a broken pool. */
static void
ids_are_new(void **state)
{
	static struct id_pool pool;
	static uint8_t ids[10000][TRACE_ID_SIZE];
	const uint8_t none[TRACE_ID_SIZE] = {0};

	(void)state;
	for (size_t i = 0; i < 10000; i++) {
		uint8_t span[SPAN_ID_SIZE];

		id_pool_take(&pool, ids[i], TRACE_ID_SIZE);
		id_pool_take(&pool, span, SPAN_ID_SIZE);
		assert_memory_not_equal(ids[i], none, TRACE_ID_SIZE);
		assert_memory_not_equal(span, none, SPAN_ID_SIZE);
	}
	qsort(ids, 10000, TRACE_ID_SIZE, compare);
	for (size_t i = 1; i < 10000; i++)
		assert_memory_not_equal(ids[i - 1], ids[i], TRACE_ID_SIZE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(traceparent_is_read), cmocka_unit_test(traceparent_vectors),
	    cmocka_unit_test(tracestate_vectors),  cmocka_unit_test(tracestate_limits),
	    cmocka_unit_test(hex_there_and_back),  cmocka_unit_test(ids_are_new),
	};

	return cmocka_run_group_tests_name("trace_context", tests, NULL, NULL);
}
