/* store, query_answer: queue at its bounds, what is replaced and corrected, minutes that add up,
 * age, a disk that is full for a while, and the answers that read it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>
#include <sqlite3.h>
#include "base/clock.h"
#include "base/log.h"
#include "collector/query_answer.h"
#include "collector/store.h"

static char folder[64], path[96];

static int
set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/tailrace-store-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/deep/er/t.db", folder);
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

static struct store *
start(size_t queue_max, size_t bytes_max, uint32_t age_hours)
{
	struct store_options options = {.path = path,
	                                .max_bytes = 1 << 30,
	                                .max_age_hours = age_hours,
	                                .queue_max = queue_max,
	                                .queue_bytes_max = bytes_max};
	store_prepare(path, (uid_t)-1, (gid_t)-1);
	return store_start(&options);
}

static void
put(struct store *store, unsigned n, bool provisional, enum profile_missing missing,
    uint64_t start_wall_ns, size_t padding)
{
	struct store_exchange x = {.key = {{1, (uint8_t)n}, {2, (uint8_t)n}},
	                           .route = 1,
	                           .route_name = "GET /a",
	                           .start_wall_ns = start_wall_ns,
	                           .total_ns = 1000 + n,
	                           .status = 200,
	                           .missing = missing,
	                           .provisional = provisional,
	                           .replaces = true};
	char start_text[32];
	clock_format(start_wall_ns, start_text, sizeof(start_text));
	text_printf(&x.body,
	            "{\"trace_id\":\"01%02x0000000000000000000000000000\","
	            "\"span_id\":\"02%02x000000000000\",\"route\":\"GET /a\",\"status\":200,"
	            "\"total_ns\":%u,\"start\":\"%s\",\"padding\":\"%*s\",\"profile\":%s}",
	            n, n, 1000 + n, start_text, (int)padding, "",
	            missing == MISSING_NOT ? "{\"app_tail_ns\":null}"
	                                   : "null,\"profile_missing\":\"pending\"");
	store_put_exchange(store, &x);
	text_free(&x.body);
}

static int64_t
number(const char *query)
{
	sqlite3 *db;
	sqlite3_stmt *s;
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, query, -1, &s, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return value;
}

/* The answer to a job; the caller drops it. */
static json_t *
ask(struct query_job *job, int status, uint64_t now_wall_ns)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(query_answer(db, job, now_wall_ns), SQLITE_OK);
	sqlite3_close(db);
	assert_int_equal(job->status, status);
	json_t *answer = json_loads(job->body.data, 0, NULL);
	assert_non_null(answer);
	text_free(&job->body);
	return answer;
}

static void
test_queue_max(void **state)
{
	struct store_stats stats;
	struct store *store = start(4, 1 << 20, 0);
	(void)state;
	for (unsigned i = 0; i < 5; i++)
		put(store, i, false, MISSING_LATE, NS_PER_S, 0);
	store_stats(store, &stats);
	assert_int_equal(stats.dropped_full, 1);
	store_sync(store, 5000);
	store_stats(store, &stats);
	assert_int_equal(stats.exchanges_written, 4);
	assert_int_equal(stats.queued, 0);
	put(store, 6, false, MISSING_LATE, NS_PER_S, 0);
	store_stop(store); /* what is queued is written first */
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 5);
}

static void
test_queue_bytes_max(void **state)
{
	struct store_stats stats;
	struct store *store = start(100, 64 << 10, 0);
	(void)state;
	put(store, 1, false, MISSING_LATE, NS_PER_S, 30000);
	put(store, 2, false, MISSING_LATE, NS_PER_S, 30000); /* 61 of 64 KiB */
	store_stats(store, &stats);
	assert_int_equal(stats.dropped_full, 0);
	put(store, 4, false, MISSING_LATE, NS_PER_S, 30000);
	store_stats(store, &stats);
	assert_int_equal(stats.dropped_full, 1);
	store_sync(store, 5000);
	put(store, 3, false, MISSING_LATE, NS_PER_S, 30000);
	store_stop(store);
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 3);
}

/* Who lost his place before he was written is not written. */
static void
test_dropped_unwritten(void **state)
{
	struct store_stats stats;
	struct store *store = start(3, 1 << 20, 0);
	struct store_exchange x = {.route = 1, .route_name = "GET /a"};
	(void)state;
	store_sync(store, 5000);
	assert_true(store_freeze(store, 5000)); /* the writer waits with the first of them */
	for (uint8_t i = 0; i < 100; i++) {
		x.key = (struct profile_key){{1, i}, {i}};
		store_put_exchange(store, &x);
		if (i > 0) /* the queue has room for three: without cancelling the fifth is lost */
			store_put_drop(store, &x.key);
	}
	x.key.span_id[1] = 1;
	store_put_exchange(store, &x); /* 99.1, which somebody cites */
	store_put_pin(store, &x.key, true);
	store_thaw(store);
	store_sync(store, 5000);
	store_put_drop(store, &x.key);
	store_stats(store, &stats);
	assert_int_equal(stats.dropped_full, 0);
	assert_in_range(stats.evicted_retention, 98, 99);
	store_stop(store);
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 2);
}

/* Readers one after the other do not hold up a commit that waits. */
static void
test_freeze_gives_way(void **state)
{
	struct store *store = start(100, 1 << 20, 0);
	int rounds = 0;
	(void)state;
	store_sync(store, 5000);
	assert_true(store_freeze(store, 5000));
	put(store, 1, false, MISSING_LATE, NS_PER_S, 0);
	for (; rounds < 5000 && store_freeze(store, 1); rounds++) {
		store_thaw(store);
		usleep(1000);
	}
	assert_in_range(rounds, 0, 4999);
	store_thaw(store);
	store_sync(store, 5000);
	assert_true(store_freeze(store, 5000));
	store_thaw(store);
	store_stop(store);
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 1);
}

/* What is put is found at once, however long the disk takes; afterwards once. */
static void
test_unwritten(void **state)
{
	struct store *store = start(100, 1 << 20, 0);
	struct profile_key key = {{1, 2}, {2, 2}}, other = {{1, 3}, {2, 3}};
	struct query_job one = {.kind = QUERY_REQUEST, .key = key};
	struct query_job list = {.kind = QUERY_REQUESTS, .limit = 2, .has_route = true};
	struct text detail = {0};
	json_t *answer;
	(void)state;
	strcpy(list.route, "GET /a");
	put(store, 1, false, MISSING_LATE, 4 * NS_PER_S, 0);
	store_sync(store, 5000);
	assert_true(store_freeze(store, 5000));
	put(store, 2, false, MISSING_NOT, 5 * NS_PER_S, 0);
	put(store, 3, false, MISSING_NO_HOOK, 6 * NS_PER_S, 0);
	store_put_tail(store, &key, 88);
	store_put_late(store, &other);
	text_puts(&detail, "{\"lanes\":[]}");
	store_put_detail(store, &key, &detail);
	for (int written = 0; written < 2; written++) {
		unwritten_take(&one.unwritten, store, &one);
		unwritten_take(&list.unwritten, store, &list);
		assert_int_equal(list.unwritten.exchange_count, written ? 0 : 2);
		one.key = key;
		answer = ask(&one, 200, 0);
		json_t *profile = json_object_get(answer, "profile");
		assert_int_equal(json_integer_value(json_object_get(profile, "app_tail_ns")), 88);
		assert_string_equal(json_string_value(json_object_get(profile, "detail")),
		                    "stored");
		assert_true(json_is_array(json_object_get(profile, "lanes")));
		json_decref(answer);
		unwritten_free(&one.unwritten);
		one.key = other;
		unwritten_take(&one.unwritten, store, &one);
		answer = ask(&one, 200, 0);
		assert_string_equal(json_string_value(json_object_get(answer, "profile_missing")),
		                    "late");
		json_decref(answer);
		unwritten_free(&one.unwritten);
		one.key = key;
		answer = ask(&list, 200, 0);
		json_t *requests = json_object_get(answer, "requests");
		assert_int_equal(json_array_size(requests), 2);
		for (size_t i = 0; i < 2; i++)
			assert_int_equal(json_integer_value(json_object_get(
			                     json_array_get(requests, i), "total_ns")),
			                 1003 - i);
		json_decref(answer);
		unwritten_free(&list.unwritten);
		if (!written)
			store_thaw(store);
		store_sync(store, 5000);
	}
	text_free(&detail);
	store_stop(store);
}

static void
test_corrections(void **state)
{
	struct store *store = start(100, 1 << 20, 0);
	struct profile_key late = {{1, 2}, {2, 2}}, joined = {{1, 3}, {2, 3}};
	(void)state;
	put(store, 1, true, MISSING_PENDING, 5 * NS_PER_S, 0);
	store_sync(store, 5000);
	put(store, 1, false, MISSING_NOT, 5 * NS_PER_S, 0); /* takes the provisional one's place */
	put(store, 2, false, MISSING_NO_HOOK, 6 * NS_PER_S, 0);
	put(store, 3, false, MISSING_NOT, 7 * NS_PER_S, 0);
	store_put_late(store, &late);
	store_put_late(store, &joined); /* has a profile: stays */
	store_put_tail(store, &joined, 77);
	store_stop(store);
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 3);
	assert_int_equal(number("SELECT count(*) FROM exchanges WHERE provisional"), 0);
	assert_int_equal(number("SELECT count(*) FROM exchanges WHERE missing = 'late'"), 1);
	struct query_job job = {.kind = QUERY_REQUEST, .key = joined};
	json_t *answer = ask(&job, 200, 0);
	json_t *profile = json_object_get(answer, "profile");
	assert_int_equal(json_integer_value(json_object_get(profile, "app_tail_ns")), 77);
	json_decref(answer);
	job.key = late;
	answer = ask(&job, 200, 0);
	assert_string_equal(json_string_value(json_object_get(answer, "profile_missing")), "late");
	json_decref(answer);
	job.key.trace_id[5] = 9;
	json_decref(ask(&job, 404, 0));
}

static void
test_pending_and_stored(void **state)
{
	struct store *store = start(100, 1 << 20, 0);
	struct query_job job = {.kind = QUERY_REQUESTS, .limit = 2};
	(void)state;
	put(store, 1, false, MISSING_LATE, 5 * NS_PER_S, 0);
	put(store, 2, false, MISSING_NOT, 6 * NS_PER_S, 0);
	store_stop(store);
	/* The loop saw 2 as pending a moment before it was written: it shows once, as written. */
	text_puts(
	    &job.pending,
	    "[{\"trace_id\":\"01020000000000000000000000000000\",\"span_id\":\"0202000000000000\""
	    ",\"route\":\"GET /a\",\"status\":200,\"total_ns\":1002,"
	    "\"start\":\"1970-01-01T00:00:06.000000000Z\",\"has_profile\":false},"
	    "{\"trace_id\":\"ff\",\"span_id\":\"ee\",\"route\":\"GET /b\",\"status\":null,"
	    "\"total_ns\":5,\"start\":\"1970-01-01T00:00:09.000000000Z\",\"has_profile\":false}]");
	json_t *answer = ask(&job, 200, 0), *list = json_object_get(answer, "requests");
	assert_int_equal(json_array_size(list), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "trace_id")),
	                    "ff");
	assert_true(json_is_true(json_object_get(json_array_get(list, 1), "has_profile")));
	json_decref(answer);
	job.slowest = true;
	answer = ask(&job, 200, 0);
	list = json_object_get(answer, "requests");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "total_ns")),
	                 1002);
	json_decref(answer);
	text_free(&job.pending);
}

static void
test_minutes(void **state)
{
	struct store *store = start(100, 1 << 20, 0);
	struct store_minute minute = {.sums = {.minute = 100, .route = 1, .route_name = "GET /a"}};
	(void)state;
	for (unsigned i = 0; i < 3;
	     i++) { /* twice the same minute, in two transactions; then the next */
		minute.sums.minute = i < 2 ? 100 : 101;
		minute.sums.requests = 2;
		minute.sums.errors = 1;
		minute.sums.sent = 2;
		minute.sums.joined = 1;
		minute.sums.phases_ns[3] = 500;
		minute.total = (struct histogram){0};
		histogram_add(&minute.total, (i + 1) * NS_PER_MS);
		histogram_add(&minute.total, (i + 1) * NS_PER_MS);
		store_put_minute(store, &minute);
		store_sync(store, 5000);
	}
	store_stop(store);
	assert_int_equal(number("SELECT count(*) FROM route_minutes"), 2);
	struct query_job job = {.kind = QUERY_ROUTES, .window_s = 120};
	json_t *answer = ask(&job, 200, 101 * 60 * NS_PER_S);
	json_t *route = json_array_get(json_object_get(answer, "routes"), 0);
	assert_int_equal(json_integer_value(json_object_get(route, "requests")), 6);
	assert_int_equal(json_integer_value(json_object_get(route, "errors")), 3);
	assert_int_equal(json_integer_value(json_object_get(route, "max_ns")), 3 * NS_PER_MS);
	json_t *phases = json_object_get(route, "phases_mean_ns");
	assert_int_equal(json_integer_value(json_object_get(phases, "retry")), 250);
	assert_true(json_real_value(json_object_get(route, "joined_ratio")) == 0.5);
	json_decref(answer);
	job.window_s = 60; /* only the running minute */
	answer = ask(&job, 200, 101 * 60 * NS_PER_S);
	route = json_array_get(json_object_get(answer, "routes"), 0);
	assert_int_equal(json_integer_value(json_object_get(route, "requests")), 2);
	json_decref(answer);
	answer = ask(&job, 200, 103 * 60 * NS_PER_S);
	assert_int_equal(json_array_size(json_object_get(answer, "routes")), 0);
	json_decref(answer);
}

static void
test_age(void **state)
{
	struct store *store = start(4000, 16 << 20, 1);
	struct store_stats stats;
	uint64_t now_ns = clock_wall_ns();
	(void)state;
	for (unsigned i = 0; i < 700; i++)
		put(store, i % 250, false, MISSING_LATE, now_ns - 3700 * NS_PER_S, 0);
	put(store, 251, false, MISSING_LATE, now_ns - 3500 * NS_PER_S, 0);
	store_sync(store, 5000);
	store_stop(store);
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 1);
	store = start(4000, 16 << 20, 1);
	store_stats(store, &stats);
	store_stop(store);
	/* Opened again, it is the same file. */
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 1);
}

/* Files may not grow: to the program what a full disk is. */
static void
file_limit(rlim_t bytes)
{
	struct rlimit limit;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void
test_disk_full(void **state)
{
	struct store_stats stats;
	struct store *store = start(4000, 64 << 20, 0);
	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	put(store, 1, false, MISSING_LATE, NS_PER_S, 100);
	store_sync(store, 5000);
	file_limit(256 << 10);
	for (unsigned i = 0; i < 100; i++)
		put(store, 2, false, MISSING_LATE, NS_PER_S, 20000);
	store_sync(store, 5000);
	store_stats(store, &stats);
	assert_int_equal(stats.dropped_error, 100);
	assert_false(stats.writable);
	file_limit(RLIM_INFINITY);
	put(store, 3, false, MISSING_LATE, NS_PER_S, 100);
	store_sync(store, 5000);
	store_stats(store, &stats);
	assert_true(stats.writable);
	assert_int_equal(stats.dropped_error, 100);
	store_stop(store);
	assert_int_equal(number("SELECT count(*) FROM exchanges"), 2);
	assert_int_equal(number("SELECT count(*) FROM pragma_integrity_check "
	                        "WHERE integrity_check = 'ok'"),
	                 1);
}

static void
test_no_store(void **state)
{
	/* Without a file the loop's knowledge is all there is. */
	struct query_job job = {.kind = QUERY_REQUEST};
	(void)state;
	assert_int_equal(query_answer(NULL, &job, 0), SQLITE_OK);
	assert_int_equal(job.status, 404);
	text_free(&job.body);
	job.kind = QUERY_ROUTES;
	assert_int_equal(query_answer(NULL, &job, 0), SQLITE_OK);
	assert_int_equal(job.status, 200);
	text_free(&job.body);
}

int
main(void)
{
#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    STORE_TEST(test_queue_max),         STORE_TEST(test_queue_bytes_max),
	    STORE_TEST(test_dropped_unwritten), STORE_TEST(test_unwritten),
	    STORE_TEST(test_corrections),       STORE_TEST(test_pending_and_stored),
	    STORE_TEST(test_minutes),           STORE_TEST(test_age),
	    STORE_TEST(test_disk_full),         STORE_TEST(test_no_store),
	    STORE_TEST(test_freeze_gives_way),
	};
	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
