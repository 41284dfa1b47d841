/* profile_batch: what is well-formed is taken whole, each kind of malformed is named by its
 * pointer, what cannot be true is refused alone; every bound at its maximum and one past it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "batch_kit.h"
#include "model/text.h"

static struct text json;

static const char *
batch(const char *process, const char *stacks, const char *profiles, const char *tails)
{
	text_reset(&json);
	text_printf(&json, "{\"v\":1,\"process\":%s,\"stacks\":%s,\"profiles\":%s,\"tails\":%s}",
	            process, stacks, profiles, tails);
	return json.data;
}

static void
test_example(void **state)
{
	(void)state;
	struct profile_batch *b = good(batch(PROCESS, STACKS, "[" PROFILE "]", "[[" KEY ",250]]"));
	assert_int_equal(b->process->pid, 7);
	assert_string_equal(b->process->loop, "uvloop");
	assert_int_equal(b->process->time_namespace, 4026531834);
	assert_int_equal(b->process->dropped, 3);
	assert_int_equal(b->stack_count, 1);
	struct text frames = {0};
	stack_write(b->stacks[0].stack, &frames);
	assert_string_equal(frames.data,
	                    "[{\"module\":\"app\",\"function\":\"f\",\"file\":\"app.py\",\"line\":"
	                    "31,\"in_app\":true},{\"module\":\"lib\",\"function\":\"g\",\"file\":"
	                    "\"lib.py\",\"line\":0,\"in_app\":false}]");
	text_free(&frames);
	assert_int_equal(b->profile_count, 1);
	assert_int_equal(b->refused_count, 0);
	const struct profile *p = b->profiles[0];
	assert_int_equal(p->key.trace_id[0], 0x4b);
	assert_int_equal(p->key.span_id[7], 0xb7);
	assert_true(p->final && p->has_start && p->has_task_queue);
	assert_false(p->has_tail || p->has_cpu || p->truncated);
	assert_int_equal(p->parts, 1);
	assert_int_equal(p->start_ns, 1205);
	assert_int_equal(p->breakdown.count, 1);
	assert_int_equal(p->breakdown.rows[0].kind, PROFILE_WAIT);
	assert_int_equal(p->breakdown.rows[0].cause, PROFILE_CAUSE_SLEEP);
	assert_int_equal(p->breakdown.rows[0].ns, 101);
	assert_int_equal(b->tail_count, 1);
	assert_int_equal(b->tails[0].tail_ns, 250);
	profile_batch_free(b);
}

static void
test_optional(void **state)
{
	(void)state;
	/* Unknown keys are ignored, and lists that may be missing are. */
	struct profile_batch *b =
	    good("{\"v\":1,\"process\":" PROCESS ",\"profiles\":[],\"later\":{\"x\":[1]}}");
	assert_int_equal(b->profile_count, 0);
	profile_batch_free(b);
	b = good(batch("{\"instance\":\"c3b1a0f25e7d4c6f9a0b1c2d3e4f5061\",\"pid\":1,"
	               "\"python\":\"3\",\"loop\":\"x\",\"engine\":\"totals\","
	               "\"hook_version\":\"0\",\"boot_id\":null,\"time_namespace\":null,"
	               "\"dropped\":0}",
	               "[]", "[]", "[]"));
	assert_string_equal(b->process->boot_id, "");
	assert_int_equal(b->process->time_namespace, 0);
	profile_batch_free(b);
}

static void
test_not_json(void **state)
{
	(void)state;
	bad("", "");
	bad("{", "");
	bad("null", "");
	bad("[]", "");
	bad("{\"v\":1,\"process\":{\"pid\":}}", "/process/pid");
	bad("{\"v\":1,\"profiles\":[1,2,tru]}", "/profiles/2");
	bad("{\"v\":1,\"v\":1}", "/v");
	bad("{\"v\":1,\"process\":{\"pid\":1,\"pid\":2}}", "/process/pid");
	bad("{\"v\":1} x", "");
	bad("{\"v\":99999999999999999999}", "/v");
	bad("{\"v\":\"\\u0000\"}", "/v");
	bad("{\"v\":\"\xff\"}", "/v");
	const char *whole = batch(PROCESS, STACKS, "[" PROFILE "]", "[]");
	struct profile_batch *result = NULL;
	struct read_error error;
	for (size_t cut = 0; cut < strlen(whole); cut++) /* truncated anywhere */
		assert_int_equal(profile_batch_parse(whole, cut, &result, &error), -1);
}

static void
test_nesting(void **state)
{
	(void)state;
	/* The object and seven arrays are eight; one more is too deep, before any parser sees it.
	 */
	struct profile_batch *b =
	    good("{\"v\":1,\"process\":" PROCESS ",\"profiles\":[],\"x\":[[[[[[[]]]]]]]}");
	profile_batch_free(b);
	bad("{\"v\":1,\"x\":[[[[[[[[]]]]]]]]}", "/x/0/0/0/0/0/0/0");
	bad("{\"v\":1,\"a\":\"[[[[[[[[[[[\",\"v\":2}", "/v"); /* brackets in strings do not count */
	size_t length = PROFILE_BODY_MAX;
	char *deep = malloc(length);
	memset(deep, '[', length);
	bad_bytes(deep, length, "/0/0/0/0/0/0/0/0");
	free(deep);
}

static void
test_size(void **state)
{
	(void)state;
	const char *text = batch(PROCESS, "[]", "[]", "[]");
	size_t length = strlen(text);
	char *padded = malloc(PROFILE_BODY_MAX + 1);
	memset(padded, ' ', PROFILE_BODY_MAX + 1);
	memcpy(padded, text, length);
	struct profile_batch *result = NULL;
	struct read_error error;
	assert_int_equal(profile_batch_parse(padded, PROFILE_BODY_MAX, &result, &error), 0);
	profile_batch_free(result);
	bad_bytes(padded, PROFILE_BODY_MAX + 1, "");
	free(padded);
}

static void
test_process(void **state)
{
	static const struct {
		const char *from, *to, *pointer;
	} cases[] = {
	    {"\"c3b1a0f25e7d4c6f9a0b1c2d3e4f5061\"", "\"c3b1\"", "/process/instance"},
	    {"c3b1a0f2", "C3B1A0F2", "/process/instance"},
	    {"\"c3b1a0f25e7d4c6f9a0b1c2d3e4f5061\"", "5", "/process/instance"},
	    {"\"instance\"", "\"instanze\"", "/process/instance"},
	    {"\"pid\":7", "\"pid\":-1", "/process/pid"},
	    {"\"pid\":7", "\"pid\":1.5", "/process/pid"},
	    {"\"pid\":7", "\"pid\":4294967296", "/process/pid"},
	    {"\"pid\":7", "\"pid\":null", "/process/pid"},
	    {"\"python\":\"3.11.7\"", "\"python\":3", "/process/python"},
	    {"\"loop\":\"uvloop\"", "\"loop\":null", "/process/loop"},
	    {"\"steps\"", "\"hops\"", "/process/engine"},
	    {"\"hook_version\":\"0.1.0\"", "\"hook\":0", "/process/hook_version"},
	    {"\"boot_id\":\"", "\"boot_id\":\"x", "/process/boot_id"},
	    {"\"boot_id\":\"c181387b-f975-4f1d-b700-466102bad21a\"", "\"boot_id\":1",
	     "/process/boot_id"},
	    {"4026531834", "\"4026531834\"", "/process/time_namespace"},
	    {"\"dropped\":3", "\"dropped\":true", "/process/dropped"},
	    {",\"dropped\":3", "", "/process/dropped"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char process[512];
		const char *at = strstr(PROCESS, cases[i].from);
		assert_non_null(at);
		snprintf(process, sizeof(process), "%.*s%s%s", (int)(at - PROCESS), PROCESS,
		         cases[i].to, at + strlen(cases[i].from));
		bad(batch(process, "[]", "[]", "[]"), cases[i].pointer);
	}
	bad(batch("[]", "[]", "[]", "[]"), "/process");
	bad("{\"v\":1,\"profiles\":[]}", "/process");
	bad("{\"v\":2,\"process\":" PROCESS ",\"profiles\":[]}", "/v");
	bad("{\"process\":" PROCESS ",\"profiles\":[]}", "/v");
	bad("{\"v\":1,\"process\":" PROCESS "}", "/profiles");
}

static void
test_stacks(void **state)
{
	static const struct {
		const char *stacks, *pointer;
	} cases[] = {
	    {"{}", "/stacks"},
	    {"[5]", "/stacks/0"},
	    {"[[0]]", "/stacks/0"},
	    {"[[0,[],1]]", "/stacks/0"},
	    {"[[-1,[]]]", "/stacks/0/0"},
	    {"[[\"0\",[]]]", "/stacks/0/0"},
	    {"[[0,{}]]", "/stacks/0/1"},
	    {"[[0,[]],[1,[7]]]", "/stacks/1/1/0"},
	    {"[[0,[[\"m\",\"f\",\"p\",1]]]]", "/stacks/0/1/0"},
	    {"[[0,[[5,\"f\",\"p\",1,0]]]]", "/stacks/0/1/0/0"},
	    {"[[0,[[\"m\",null,\"p\",1,0]]]]", "/stacks/0/1/0/1"},
	    {"[[0,[[\"m\",\"f\",[],1,0]]]]", "/stacks/0/1/0/2"},
	    {"[[0,[[\"m\",\"f\",\"p\",-1,0]]]]", "/stacks/0/1/0/3"},
	    {"[[0,[[\"m\",\"f\",\"p\",1,2]]]]", "/stacks/0/1/0/4"},
	    {"[[0,[[\"m\",\"f\",\"p\",1,true]]]]", "/stacks/0/1/0/4"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		bad(batch(PROCESS, cases[i].stacks, "[]", "[]"), cases[i].pointer);
}

/* The fields of PROFILE, one replaced. */
static const char *
profile_with(unsigned field, const char *value)
{
	static const char *const fields[] = {
	    KEY,    "0",    "1",    "\"GET /a\"",   "30",  "1000",
	    "1205", "1300", "null", "\"response\"", "0",   "[" ROW "]",
	    "104",  "[]",   "95",   "[]",           "null"};
	static struct text out;
	text_reset(&out);
	for (unsigned i = 0; i < 17; i++)
		text_printf(&out, "%s%s", i == 0 ? "[[" : ",", i == field ? value : fields[i]);
	text_puts(&out, "]]");
	return out.data;
}

static void
test_profile_fields(void **state)
{
	static const struct {
		unsigned field;
		const char *value;
	} cases[] = {
	    {0, "5"},
	    {0, "\"4bf92f3577b34da6a3ce929d0e0e4736\""},
	    {0, "\"4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7\""},
	    {0, "\"4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7\""},
	    {0, "\"00000000000000000000000000000000-00f067aa0ba902b7\""},
	    {0, "\"4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000\""},
	    {1, "-1"},
	    {1, "null"},
	    {1, "2147483647"},
	    {2, "2"},
	    {2, "true"},
	    {3, "5"},
	    {4, "-1"},
	    {4, "\"\""},
	    {5, "null"},
	    {5, "1.0"},
	    {6, "-5"},
	    {6, "[]"},
	    {7, "null"},
	    {8, "\"x\""},
	    {9, "\"gone\""},
	    {9, "null"},
	    {10, "null"},
	    {11, "null"},
	    {11, "{}"},
	    {12, "-1"},
	    {12, "null"},
	    {13, "5"},
	    {14, "null"},
	    {15, "null"},
	    {15, "{}"},
	    {16, "\"1\""},
	};
	char pointer[64];
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(pointer, sizeof(pointer), "/profiles/0/%u", cases[i].field);
		bad(batch(PROCESS, STACKS, profile_with(cases[i].field, cases[i].value), "[]"),
		    pointer);
	}
	bad(batch(PROCESS, STACKS, "{}", "[]"), "/profiles");
	bad(batch(PROCESS, STACKS, "[" PROFILE ",[]]", "[]"), "/profiles/1");
	bad(batch(PROCESS, STACKS, "[" PROFILE ",{}]", "[]"), "/profiles/1");
}

static void
test_rows(void **state)
{
	static const struct {
		unsigned field;
		const char *value, *pointer;
	} cases[] = {
	    {11, "[[\"wait\"]]", "/11/0"},
	    {11, "[[\"nap\",null,0,1,1,1,0,null,null]]", "/11/0/0"},
	    {11, "[[\"wait\",null,0,1,1,1,0,null,null]]", "/11/0/1"},
	    {11, "[[\"wait\",\"tea\",0,1,1,1,0,null,null]]", "/11/0/1"},
	    {11, "[[\"run\",\"sleep\",0,1,1,1,0,null,null]]", "/11/0/1"},
	    {11, "[[\"run\",null,-2,1,1,1,0,null,null]]", "/11/0/2"},
	    {11, "[[\"run\",null,\"0\",1,1,1,0,null,null]]", "/11/0/2"},
	    {11, "[[\"run\",null,0,-1,1,1,0,null,null]]", "/11/0/3"},
	    {11, "[[\"run\",null,0,1,1.5,1,0,null,null]]", "/11/0/4"},
	    {11, "[[\"run\",null,0,1,1,7,0,null,null]]", "/11/0/5"},
	    {11, "[[\"run\",null,0,1,1,1,null,null,null]]", "/11/0/6"},
	    {11, "[[\"run\",null,0,1,1,1,0,\"zz\",null]]", "/11/0/7"},
	    {11, "[[\"run\",null,0,1,1,1,0,null,5]]", "/11/0/8"},
	    {13, "[" ROW ",[\"nap\",null,0,1,1,1,0,null,null]]", "/13/1/0"},
	    {15, "[[null]]", "/15/0"},
	    {15, "[[\"x\",null,\"step\",\"busy\",1,1,0]]", "/15/0/0"},
	    {15, "[[null,1,\"step\",\"busy\",1,1,0]]", "/15/0/1"},
	    {15, "[[null,null,\"leap\",\"busy\",1,1,0]]", "/15/0/2"},
	    {15, "[[null,null,\"step\",\"bored\",1,1,0]]", "/15/0/3"},
	    {15, "[[null,null,\"step\",null,-1,1,0]]", "/15/0/4"},
	    {15, "[[null,null,\"step\",\"blocked\",1,9,0]]", "/15/0/5"},
	    {15, "[[null,null,\"io_callback\",\"busy\",1,1,-7]]", "/15/0/6"},
	};
	char pointer[64];
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(pointer, sizeof(pointer), "/profiles/0%s", cases[i].pointer);
		bad(batch(PROCESS, STACKS, profile_with(cases[i].field, cases[i].value), "[]"),
		    pointer);
	}
	bad(batch(PROCESS, STACKS, "[]", "{}"), "/tails");
	bad(batch(PROCESS, STACKS, "[]", "[[" KEY "]]"), "/tails/0");
	bad(batch(PROCESS, STACKS, "[]", "[[" KEY ",1],[5,1]]"), "/tails/1/0");
	bad(batch(PROCESS, STACKS, "[]", "[[" KEY ",-1]]"), "/tails/0/1");
}

static void
test_impossible(void **state)
{
	static const struct {
		unsigned field;
		const char *value;
	} cases[] = {
	    {5, "1001"}, /* sum does not hold */
	    {5, "1206"}, /* enter > start */
	    {6, "1301"}, /* start > end */
	    {12, "105"},
	    {12, "103"},
	    {14, "94"},
	    {7, "86400000001001"}, /* over 24 hours */
	    {9, "\"open\""},       /* final, but open */
	    {2, "0"},              /* not final, but ended */
	    {1, "1"},              /* a later part has no breakdown */
	    {11, "[[\"run\",null,0,9223372036854775807,1,1,0,null,null],"
	         "[\"run\",null,0,9223372036854775807,1,1,0,null,null],"
	         "[\"run\",null,0,207,1,1,0,null,null]]"}, /* wraps round to 205 */
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct profile_batch *b = good(
		    batch(PROCESS, STACKS, profile_with(cases[i].field, cases[i].value), "[]"));
		if (b->profile_count != 0 || b->refused_count != 1)
			fail_msg("case %zu was taken", i);
		assert_int_equal(b->refused[0].trace_id[0], 0x4b);
		profile_batch_free(b);
	}
	/* One that cannot be true does not take the others with it. */
	struct profile_batch *b = good(batch(
	    PROCESS, STACKS,
	    "[[" KEY ",0,1,null,null,9,1,2,null,\"response\",0,[],0,[],1,[],null]," PROFILE "]",
	    "[]"));
	assert_int_equal(b->profile_count, 1);
	assert_int_equal(b->refused_count, 1);
	profile_batch_free(b);
}

static void
test_no_start(void **state)
{
	(void)state;
	/* Without a response start the breakdown covers all up to the end. */
	struct profile_batch *b = good(batch(
	    PROCESS, STACKS,
	    "[[" KEY ",0,1,null,null,1000,null,1300,5,\"disconnect\",1,[" ROW "],199,[],0,[],7]]",
	    "[]"));
	assert_int_equal(b->profile_count, 1);
	assert_false(b->profiles[0]->has_start);
	assert_true(b->profiles[0]->has_tail && b->profiles[0]->has_cpu &&
	            b->profiles[0]->truncated);
	profile_batch_free(b);
}

/* `count` copies of `item` in brackets. */
static const char *
list(struct text *out, const char *item, size_t count)
{
	text_reset(out);
	text_puts(out, "[");
	for (size_t i = 0; i < count; i++) {
		text_puts(out, i > 0 ? "," : "");
		text_puts(out, item);
	}
	text_puts(out, "]");
	return out->data;
}

static void
test_bounds(void **state)
{
	struct text items = {0}, inner = {0};
	(void)state;
	profile_batch_free(
	    good(batch(PROCESS, list(&items, "[0,[]]", PROFILE_BATCH_MAX), "[]", "[]")));
	bad(batch(PROCESS, list(&items, "[0,[]]", PROFILE_BATCH_MAX + 1), "[]", "[]"), "/stacks");
	const char *small = "[" KEY ",0,1,null,null,1,1,1,null,\"response\",0,[],0,[],0,[],null]";
	struct profile_batch *b =
	    good(batch(PROCESS, "[]", list(&items, small, PROFILE_BATCH_MAX), "[]"));
	assert_int_equal(b->profile_count, PROFILE_BATCH_MAX);
	profile_batch_free(b);
	bad(batch(PROCESS, "[]", list(&items, small, PROFILE_BATCH_MAX + 1), "[]"), "/profiles");
	profile_batch_free(
	    good(batch(PROCESS, "[]", "[]", list(&items, "[" KEY ",1]", PROFILE_BATCH_MAX))));
	bad(batch(PROCESS, "[]", "[]", list(&items, "[" KEY ",1]", PROFILE_BATCH_MAX + 1)),
	    "/tails");
	const char *frame = "[\"m\",\"f\",\"p\",1,0]";
	for (size_t over = 0; over < 2; over++) {
		text_reset(&items);
		text_printf(&items, "[[0,%s]]", list(&inner, frame, PROFILE_FRAMES_MAX + over));
		if (over)
			bad(batch(PROCESS, items.data, "[]", "[]"), "/stacks/0/1");
		else
			profile_batch_free(good(batch(PROCESS, items.data, "[]", "[]")));
	}
	text_free(&items);
	text_free(&inner);
}

static void
test_row_bounds(void **state)
{
	struct text rows = {0};
	const char *row = "[\"run\",null,-1,0,1,1,0,null,null]";
	(void)state;
	list(&rows, row, PROFILE_ROWS_MAX);
	text_reset(&json);
	for (int over = 0; over < 2; over++) {
		text_reset(&json);
		text_printf(&json,
		            "{\"v\":1,\"process\":" PROCESS ",\"profiles\":[[" KEY
		            ",0,1,null,null,1,1,1,null,\"response\",0,%s,0,%s,0,[],null]]}",
		            rows.data, over ? "[[\"run\",null,-1,0,1,1,0,null,null]]" : "[]");
		if (over)
			bad(json.data, "/profiles/0/13");
		else
			profile_batch_free(good(json.data));
	}
	text_free(&rows);
}

static void
test_string_bounds(void **state)
{
	char text[PROFILE_FILE_MAX + 8], stacks[2 * PROFILE_FILE_MAX];
	static const struct {
		const char *format, *pointer;
		size_t max;
	} cases[] = {
	    {"[[0,[[\"%s\",\"f\",\"p\",1,0]]]]", "/stacks/0/1/0/0", PROFILE_STRING_MAX},
	    {"[[0,[[\"m\",\"%s\",\"p\",1,0]]]]", "/stacks/0/1/0/1", PROFILE_STRING_MAX},
	    {"[[0,[[\"m\",\"f\",\"%s\",1,0]]]]", "/stacks/0/1/0/2", PROFILE_FILE_MAX},
	};
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		for (size_t over = 0; over < 2; over++) {
			memset(text, 'a', cases[i].max + over);
			text[cases[i].max + over] = '\0';
			const char *hole = strstr(cases[i].format, "%s");
			snprintf(stacks, sizeof(stacks), "%.*s%s%s", (int)(hole - cases[i].format),
			         cases[i].format, text, hole + 2);
			if (over)
				bad(batch(PROCESS, stacks, "[]", "[]"), cases[i].pointer);
			else
				profile_batch_free(good(batch(PROCESS, stacks, "[]", "[]")));
		}
	}
}

/* Bytes changed, cut out and doubled at random: taken or refused, with a pointer that is text,
 * never a crash. */
static void
test_mutations(void **state)
{
	uint64_t seed = 88172645463325252ull;
	const char *whole = batch(PROCESS, STACKS, "[" PROFILE "," PROFILE "]", "[[" KEY ",250]]");
	size_t length = strlen(whole);
	char *copy = malloc(2 * length);
	unsigned taken = 0;
	(void)state;
	for (int round = 0; round < 30000; round++) {
		size_t size = length;
		memcpy(copy, whole, length);
		for (int change = 0; change < 1 + round % 3; change++) {
			seed ^= seed << 13;
			seed ^= seed >> 7;
			seed ^= seed << 17;
			size_t at = (seed >> 8) % size, count = (seed >> 40) % 8;
			if (seed % 3 == 0)
				copy[at] = "0-9\"[]{},:ntf\\x"[(seed >> 50) % 14];
			else if (seed % 3 == 1 && at + count < size)
				memmove(copy + at, copy + at + count, (size -= count) - at);
			else if (size + count < 2 * length && at + count < size)
				memmove(copy + at + count, copy + at, (size += count) - at - count);
		}
		struct profile_batch *result = NULL;
		struct read_error error;
		if (profile_batch_parse(copy, size, &result, &error) == 0)
			taken++;
		else
			assert_true(strlen(error.pointer) < sizeof(error.pointer));
		profile_batch_free(result);
	}
	assert_true(taken > 100 && taken < 29000);
	free(copy);
}

static int
tear_down(void **state)
{
	(void)state;
	text_free(&json);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_example),    cmocka_unit_test(test_optional),
	    cmocka_unit_test(test_not_json),   cmocka_unit_test(test_nesting),
	    cmocka_unit_test(test_size),       cmocka_unit_test(test_process),
	    cmocka_unit_test(test_stacks),     cmocka_unit_test(test_profile_fields),
	    cmocka_unit_test(test_rows),       cmocka_unit_test(test_impossible),
	    cmocka_unit_test(test_no_start),   cmocka_unit_test(test_bounds),
	    cmocka_unit_test(test_row_bounds), cmocka_unit_test(test_string_bounds),
	    cmocka_unit_test(test_mutations),
	};
	return cmocka_run_group_tests(tests, NULL, tear_down);
}
