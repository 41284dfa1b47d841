/* query: every job taken is answered once, on the loop; beyond the queue's maximum they are turned
 * away; jobs that the end finds waiting are answered too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include <event2/event.h>
#include "base/xmem.h"
#include "collector/query.h"

#define JOBS 2000

static unsigned answered, unavailable;
static char folder[64], path[96];

static void
on_answer(void *arg, struct query_job *job)
{
	assert_ptr_equal(arg, path);
	assert_true(job->body.length > 0);
	answered++;
	unavailable += job->status == 503;
	query_job_free(job);
}

static void
test_queue(void **state)
{
	struct store_options options = {
	    .path = path, .max_bytes = 1 << 30, .queue_max = 10, .queue_bytes_max = 1 << 20};
	struct event_base *base = event_base_new();
	unsigned taken = 0;
	(void)state;
	store_prepare(path, (uid_t)-1, (gid_t)-1);
	struct store *store = store_start(&options);
	struct store_stats stats = {0};
	for (int i = 0; i < 500 && !stats.writable; i++) { /* the file's tables are made */
		usleep(10000);
		store_stats(store, &stats);
	}
	struct query *query = query_start(base, path, store, on_answer, path);
	for (unsigned i = 0; i < JOBS; i++) {
		struct query_job *job = xcalloc(1, sizeof(*job));
		job->kind = i % QUERY_COMPARE; /* both threads' */
		job->limit = 5;
		job->window_s = 60;
		if (query_submit(query, job))
			taken++;
		else
			query_job_free(job);
	}
	assert_true(taken >= QUERY_QUEUE_MAX);
	assert_int_equal(query_refused(query), JOBS - taken);
	assert_true(query_refused(query) > 0);
	for (int i = 0; i < 20 && answered < QUERY_QUEUE_MAX / 4; i++)
		event_base_loop(base, EVLOOP_ONCE);
	assert_true(answered > 0 && unavailable == 0);
	query_stop(query);
	assert_int_equal(answered, taken);
	store_stop(store);
	event_base_free(base);
}

static int
set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/tailrace-query-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/t.db", folder);
	return 0;
}

static int
tear_down(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_queue, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
