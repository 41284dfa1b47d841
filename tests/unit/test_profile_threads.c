/* profile_threads: totals of thread jobs beside profiles; malformed ones named by their pointer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "batch_kit.h"
#include "model/profile_threads.h"
#include "model/text.h"

static struct text json;

static const char *
with_threads(const char *threads)
{
	text_reset(&json);
	text_printf(&json,
	            "{\"v\":1,\"process\":%s,\"stacks\":%s,\"profiles\":[%s],\"threads\":%s}",
	            PROCESS, STACKS, PROFILE, threads);
	return json.data;
}

/* Beside two jobs. */
static const char *
with_returns(const char *returns)
{
	text_reset(&json);
	text_printf(&json,
	            "{\"v\":1,\"process\":%s,\"stacks\":%s,\"profiles\":[%s],\"threads\":[[" KEY
	            ",0,[[0,2,10,300,250],[-1,1,0,7,7]]]],\"returns\":%s}",
	            PROCESS, STACKS, PROFILE, returns);
	return json.data;
}

static void
test_threads(void **state)
{
	(void)state;
	struct profile_batch *b =
	    good(with_threads("[[" KEY ",0,[[0,2,10,300,250],[-1,1,0,7,7]]]]"));
	struct profile *p = b->profiles[0];
	assert_int_equal(p->thread_count, 2);
	assert_int_equal(p->threads[0].count, 2);
	assert_int_equal(p->threads[0].queue_ns, 10);
	assert_int_equal(p->threads[0].run_ns, 300);
	assert_int_equal(p->threads[0].cpu_ns, 250);
	assert_int_equal(p->threads[1].stack_id, -1);
	struct profile_batch *next = good(with_threads("[[" KEY ",0,[[0,1,1,2,2],[0,1,1,3,1]]]]"));
	profile_threads_append(p, next->profiles[0]); /* neither stack is resolved: all are one */
	assert_int_equal(p->thread_count, 2);
	assert_int_equal(p->threads[0].run_ns, 305);
	assert_int_equal(p->threads[0].cpu_ns, 253);
	profile_batch_free(next);
	profile_batch_free(b);
	/* Of a profile that is not there, of another part, twice: read and left. */
	b = good(with_threads("[[\"00000000000000000000000000000001-0000000000000001\",0,[]],[" KEY
	                      ",1,[[0,1,1,1,1]]],[" KEY ",0,[[0,1,1,1,1]]],[" KEY
	                      ",0,[[0,9,9,9,9]]]]"));
	assert_int_equal(b->profiles[0]->thread_count, 1);
	assert_int_equal(b->profiles[0]->threads[0].count, 1);
	profile_batch_free(b);
	bad(with_threads("{}"), "/threads");
	bad(with_threads("[[" KEY ",0]]"), "/threads/0");
	bad(with_threads("[[\"x\",0,[]]]"), "/threads/0/0");
	bad(with_threads("[[" KEY ",-1,[]]]"), "/threads/0/1");
	bad(with_threads("[[" KEY ",0,[[0,1,1,1]]]]"), "/threads/0/2/0");
	bad(with_threads("[[" KEY ",0,[[-2,1,1,1,1]]]]"), "/threads/0/2/0/0");
	bad(with_threads("[[" KEY ",0,[[0,1,1,5,6]]]]"),
	    "/threads/0/2/0/4"); /* more CPU than time */
}

static void
test_returns(void **state)
{
	(void)state;
	struct profile_batch *b = good(with_returns("[[" KEY ",0,[40,0]]]"));
	struct profile *p = b->profiles[0];
	assert_true(p->threads[0].has_return && p->threads[1].has_return);
	assert_int_equal(p->threads[0].return_ns, 40);
	assert_int_equal(p->threads[1].return_ns, 0);
	struct profile_batch *next = good(with_returns("[[" KEY ",0,[2,1]]]"));
	profile_threads_append(p, next->profiles[0]); /* neither stack is resolved: all are one */
	assert_int_equal(p->threads[0].return_ns, 43);
	profile_batch_free(next);
	profile_batch_free(b);
	/* Fewer, more than jobs, of another part, of a profile that is not there. */
	b = good(with_returns("[[" KEY ",0,[40]]]"));
	assert_true(b->profiles[0]->threads[0].has_return);
	assert_false(b->profiles[0]->threads[1].has_return);
	profile_batch_free(b);
	b = good(with_returns("[[" KEY ",0,[1,2,3]]]"));
	assert_int_equal(b->profiles[0]->threads[1].return_ns, 2);
	profile_batch_free(b);
	b = good(with_returns("[[\"00000000000000000000000000000001-0000000000000001\",0,[1]],[" KEY
	                      ",1,[1]]]"));
	assert_false(b->profiles[0]->threads[0].has_return);
	profile_batch_free(b);
	bad(with_returns("{}"), "/returns");
	bad(with_returns("[[" KEY ",0]]"), "/returns/0");
	bad(with_returns("[[" KEY ",0,7]]"), "/returns/0/2");
	bad(with_returns("[[" KEY ",0,[1,-1]]]"), "/returns/0/2/1");
}

static void
test_threads_bound(void **state)
{
	(void)state;
	struct text rows = {0};
	for (int over = 0; over <= 1; over++) {
		text_reset(&rows);
		text_puts(&rows, "[[" KEY ",0,[");
		for (int i = 0; i < PROFILE_THREADS_MAX + over; i++)
			text_printf(&rows, "%s[0,1,1,1,1]", i > 0 ? "," : "");
		text_puts(&rows, "]]]");
		if (over) {
			bad(with_threads(rows.data), "/threads/0/2");
		} else {
			struct profile_batch *b = good(with_threads(rows.data));
			assert_int_equal(b->profiles[0]->thread_count, PROFILE_THREADS_MAX);
			profile_batch_free(b);
		}
	}
	text_free(&rows);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_threads),
	    cmocka_unit_test(test_returns),
	    cmocka_unit_test(test_threads_bound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
