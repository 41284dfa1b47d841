/* profile_stalls: what held the loop before the ASGI call, read beside profiles and cut to the
 * app's queue; malformed rows named by their pointer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "batch_kit.h"
#include "model/profile_stalls.h"
#include "model/text.h"

#define HOLD(ns, begin) "[null,\"GET /block\",\"step\",\"blocked\"," #ns ",1,0," #begin "]"

static struct text json;

static const char *
with_holds(const char *holds)
{
	text_reset(&json);
	text_printf(&json, "{\"v\":1,\"process\":%s,\"stacks\":%s,\"profiles\":[%s],\"holds\":%s}",
	            PROCESS, STACKS, PROFILE, holds);
	return json.data;
}

static void
test_holds(void **state)
{
	(void)state;
	struct profile_batch *b = good(with_holds("[[" KEY ",[" HOLD(100, 1000) "]]]"));
	struct profile *p = b->profiles[0];
	assert_true(p->stall_count >= 1);
	const struct profile_stall *hold = &p->stalls[p->stall_count - 1];
	assert_true(hold->queued && hold->exact);
	assert_string_equal(hold->route, "GET /block");
	assert_int_equal(hold->begin_ns, 1000);
	assert_int_equal(hold->ns, 100);
	for (size_t i = 0; i + 1 < p->stall_count; i++)
		assert_false(p->stalls[i].queued); /* those of its row stay what they are */
	size_t count = p->stall_count;
	profile_batch_free(b);
	/* Of a profile that is not there; twice: read and left. */
	b = good(with_holds("[[\"00000000000000000000000000000001-0000000000000001\",[" HOLD(
	    1, 1) "]],[" KEY ",[" HOLD(1, 1) "]],[" KEY ",[" HOLD(2, 2) "]]]"));
	assert_int_equal(b->profiles[0]->stall_count, count);
	assert_int_equal(b->profiles[0]->stalls[count - 1].begin_ns, 1);
	profile_batch_free(b);
	bad(with_holds("{}"), "/holds");
	bad(with_holds("[[" KEY "]]"), "/holds/0");
	bad(with_holds("[[\"x\",[]]]"), "/holds/0/0");
	bad(with_holds("[[" KEY ",0]]"), "/holds/0/1");
	bad(with_holds("[[" KEY ",[[null,null,\"step\",null,1,1,0]]]]"), "/holds/0/1/0");
	bad(with_holds("[[" KEY ",[[null,null,\"walk\",null,1,1,0,1]]]]"), "/holds/0/1/0/2");
	bad(with_holds("[[" KEY ",[[null,null,\"step\",null,1,1,-2,1]]]]"), "/holds/0/1/0/6");
	bad(with_holds("[[" KEY ",[[null,null,\"step\",null,1,1,0,-1]]]]"), "/holds/0/1/0/7");
}

static void
test_holds_bound(void **state)
{
	(void)state;
	struct text rows = {0};
	for (int over = 0; over <= 1; over++) {
		text_reset(&rows);
		text_puts(&rows, "[[" KEY ",[");
		for (int i = 0; i < PROFILE_HOLDS_MAX + over; i++)
			text_printf(&rows, "%s" HOLD(1, 1), i > 0 ? "," : "");
		text_puts(&rows, "]]]");
		if (over)
			bad(with_holds(rows.data), "/holds/0/1");
		else
			profile_batch_free(good(with_holds(rows.data)));
	}
	text_free(&rows);
}

/* The one stall of a profile whose app's queue was (from, to]. */
static struct profile_stall
cut(uint64_t begin_ns, uint64_t ns, uint64_t from_ns, uint64_t to_ns, bool exact)
{
	struct profile_stall stall = {
	    .queued = true, .exact = true, .begin_ns = begin_ns, .ns = ns};
	struct profile part = {.stalls = &stall, .stall_count = 1}, p = {0};
	profile_stalls_append(&p, &part);
	profile_stalls_cut(&p, from_ns, to_ns, exact);
	stall = p.stall_count > 0 ? p.stalls[0] : (struct profile_stall){0};
	profile_stalls_free(&p);
	return stall;
}

static void
test_cut_to_the_queue(void **state)
{
	(void)state;
	assert_int_equal(cut(100, 50, 0, 1000, true).ns, 50);   /* whole */
	assert_int_equal(cut(100, 50, 120, 1000, true).ns, 30); /* it held before, too */
	assert_int_equal(cut(100, 50, 0, 110, true).ns, 10);   /* and after: the step of the call */
	assert_int_equal(cut(100, 50, 110, 120, true).ns, 10); /* both */
	assert_int_equal(cut(100, 50, 150, 1000, true).ns, 0); /* over when it was sent */
	assert_int_equal(cut(100, 50, 0, 100, true).ns, 0);    /* begun when it was called */
	assert_int_equal(cut(100, 50, 120, 120, true).ns, 0);  /* no queue */
	assert_true(cut(100, 50, 0, 1000, true).exact);
	assert_false(cut(100, 50, 0, 1000, false).exact); /* another clock: placed */
	/* Those within the app are not cut. */
	struct profile_stall inside = {.ns = 7};
	struct profile p = {.stalls = &inside, .stall_count = 1};
	profile_stalls_cut(&p, 5, 6, true);
	assert_int_equal(p.stall_count, 1);
	assert_int_equal(inside.ns, 7);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_holds),
	    cmocka_unit_test(test_holds_bound),
	    cmocka_unit_test(test_cut_to_the_queue),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
