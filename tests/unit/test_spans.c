/* spans, store_rollups, query_history: sums to the nanosecond from exchanges through windows,
 * memory, saving, a kill, ageing to minutes and hours, reading; every bound with its counter. */
#include <unistd.h>
#include <jansson.h>
#include <sqlite3.h>
#include "base/clock.h"
#include "collector/query_answer.h"
#include "collector/spans.h"
#include "collector/store.h"
#include "collector/store_rollups.h"
#include "rollup_kit.h"
#include "stack_kit.h"

#define S NS_PER_S
#define TIMEOUT_MS 1000

static char folder[64], path[96];
static struct routes *routes;
static struct store *store;
static struct spans *spans;
static struct rollup *truth; /* of everything that was added */

static void
store_open(uint64_t max_bytes)
{
	struct store_options options = {.path = path,
	                                .max_bytes = max_bytes,
	                                .max_age_hours = 24 * 30,
	                                .queue_max = STORE_QUEUE_MAX,
	                                .queue_bytes_max = STORE_QUEUE_BYTES_MAX};
	store = store_start(&options);
}

static void
spans_open(size_t bytes_max, size_t rows_max, size_t stacks_max)
{
	struct spans_options options = {.span_ms = SPANS_SPAN_MS,
	                                .join_timeout_ms = TIMEOUT_MS,
	                                .bytes_max = bytes_max,
	                                .rows_max = rows_max,
	                                .stacks_max = stacks_max,
	                                .frames_max = FLAME_FRAMES_MAX};
	spans = spans_new(&options, routes, store);
}

/* A whole round over the routes. */
static void
sweep(uint64_t now_ns)
{
	while (spans_tick(spans, now_ns))
		continue;
}

static int
set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/tailrace-spans-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/t.db", folder);
	store_prepare(path, (uid_t)-1, (gid_t)-1);
	routes = routes_new(ROUTES_MAX);
	truth = rollup_new();
	store_open(1 << 30);
	spans_open(SPANS_BYTES_MAX, ROLLUP_ROWS_MAX, FLAME_STACKS_MAX);
	return 0;
}

static int
tear_down(void **state)
{
	char command[128];
	(void)state;
	spans_free(spans);
	store_stop(store);
	routes_free(routes);
	rollup_free(truth);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

/* One exchange that ends at `end_ns`, two rows in its profile (none where `stacks` is 0). Also into
 * the truth, by its head and total. */
static void
add_to(size_t route, uint64_t end_ns, uint64_t now_ns, unsigned stacks, uint64_t *random)
{
	uint64_t app_ns = 1000000 + kit_random(random) % 400000000, a = app_ns / 3;
	unsigned first = stacks > 0 ? (unsigned)(kit_random(random) % stacks) : 0;
	unsigned second = stacks > 0 ? (unsigned)(kit_random(random) % stacks) : 0;
	struct exchange_record record = {.attempts = 1,
	                                 .status = kit_random(random) % 20 ? 200 : 500,
	                                 .died_in = PHASE_COUNT,
	                                 .request_body_bytes = kit_random(random) % 500,
	                                 .response_body_bytes = kit_random(random) % 9000};
	struct join join = {.shared = true, .app_queue_ns = 70, .app_ns = app_ns, .app_out_ns = 30};
	struct profile_row rows[2] = {
	    {.kind = PROFILE_WAIT,
	     .cause = PROFILE_CAUSE_DATABASE,
	     .exact = true,
	     .ns = a,
	     .count = 2},
	    {.kind = PROFILE_RUN, .cause = PROFILE_CAUSE_COUNT, .ns = app_ns - a - 5, .count = 1}};
	struct profile profile = {.breakdown = {rows, 2}, .unattributed_ns = 5};
	for (unsigned i = 0; i < MARK_COUNT; i++)
		record.marks_ns[i] = 1000 + 10 * i;
	for (unsigned i = MARK_READ_FIRST; i < MARK_COUNT; i++)
		record.marks_ns[i] =
		    record.marks_ns[MARK_SENT_FIRST] + app_ns + 100 + 10 * (i - MARK_READ_FIRST);
	uint64_t total_ns = record.marks_ns[MARK_END] - record.marks_ns[MARK_START];
	record.start_wall_ns = end_ns - total_ns;
	rows[0].stack = stacks > 0 ? kit_step(first) : NULL;
	rows[1].stack = stacks > 0 ? kit_step(second) : NULL;
	spans_add(spans, route, &record, stacks > 0 ? &profile : NULL, stacks > 0 ? &join : NULL,
	          stacks > 0 ? MISSING_NOT : MISSING_DROPPED, now_ns);
	stack_unref(rows[0].stack);
	stack_unref(rows[1].stack);
	struct rollup_part part = {.key = {0, PROFILE_WAIT, 0}, .ns = total_ns, .count = 1};
	struct rollup_exchange x = {.total_ns = total_ns,
	                            .error = record.status == 500,
	                            .sent = true,
	                            .joined = stacks > 0,
	                            .dropped = stacks == 0,
	                            .bytes_in = record.request_body_bytes,
	                            .bytes_out = record.response_body_bytes,
	                            .estimated_ns = stacks > 0 ? rows[1].ns : 0,
	                            .parts = &part,
	                            .part_count = 1};
	rollup_add(truth, &x);
}

static void
add(uint64_t end_ns, uint64_t now_ns, unsigned stacks, uint64_t *random)
{
	add_to(1, end_ns, now_ns, stacks, random);
}

static void
check(const struct rollup *sum)
{
	kit_whole(sum);
	assert_int_equal(sum->requests, truth->requests);
	assert_int_equal(sum->errors, truth->errors);
	assert_int_equal(sum->joined, truth->joined);
	assert_int_equal(sum->dropped, truth->dropped);
	assert_int_equal(sum->bytes_in, truth->bytes_in);
	assert_int_equal(sum->bytes_out, truth->bytes_out);
	assert_int_equal(sum->joined_ns, truth->joined_ns);
	assert_int_equal(sum->estimated_ns, truth->estimated_ns);
	assert_int_equal(sum->total.sum_ns, truth->total.sum_ns);
	assert_memory_equal(sum->total.buckets, truth->total.buckets, sizeof(truth->total.buckets));
	assert_memory_equal(sum->bands, truth->bands, sizeof(truth->bands));
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

/* Everything the file has, of all levels. */
static struct rollup *
stored(void)
{
	sqlite3 *db;
	sqlite3_stmt *s;
	struct rollup *sum = rollup_new();
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT body FROM rollups", -1, &s, NULL),
	                 SQLITE_OK);
	while (sqlite3_step(s) == SQLITE_ROW) {
		struct rollup_window window;
		size_t at = 0, length = (size_t)sqlite3_column_bytes(s, 0);
		int got;
		while ((got = rollup_chunk_next(sqlite3_column_blob(s, 0), length, &at, &window)) ==
		       1)
			assert_int_equal(rollup_decode(window.bytes, window.length, sum), 0);
		assert_int_equal(got, 0);
	}
	sqlite3_finalize(s);
	sqlite3_close(db);
	return sum;
}

static void
check_stored(void)
{
	struct rollup *sum = stored();
	check(sum);
	rollup_free(sum);
}

/* Exchanges end, windows become final, minutes are saved; a kill loses the unsaved minute. */
static void
test_saved_by_the_minute(void **state)
{
	uint64_t now_ns = clock_wall_ns() / (60 * S) * (60 * S) - 600 * S, random = 1;
	struct spans_stats stats;
	struct rollup *sum = rollup_new();
	(void)state;
	routes_index(routes, "GET /a");
	for (unsigned i = 0; i < 300; i++) { /* five minutes, one a second */
		add(now_ns, now_ns, i % 5 ? 12 : 0, &random);
		sweep(now_ns);
		now_ns += S;
	}
	spans_sum(spans, 1, 0, UINT64_MAX, sum);
	check(sum);
	spans_stats(spans, &stats);
	assert_int_equal(stats.open + stats.packed, 30);
	assert_int_equal(stats.reopened, 0);
	/* A join's time after a minute's end all of it is in the file. */
	store_sync(store, 5000);
	assert_int_equal(number("SELECT count(*) FROM rollups"), 4);
	for (unsigned i = 0; i < 11; i++, now_ns += S)
		sweep(now_ns);
	store_sync(store, 5000);
	assert_int_equal(number("SELECT count(*) FROM rollups"), 5);
	check_stored();
	/* Killed here: nothing is finished. What comes then is added to what is there. */
	spans_free(spans);
	spans_open(SPANS_BYTES_MAX, ROLLUP_ROWS_MAX, FLAME_STACKS_MAX);
	for (unsigned i = 0; i < 20; i++)
		add(now_ns - 20 * S - i * S, now_ns, 12, &random);
	spans_finish(spans, now_ns);
	store_sync(store, 5000);
	assert_int_equal(number("SELECT count(*) FROM rollups"), 5);
	check_stored();
	rollup_free(sum);
}

/* A tick closes and saves SPANS_ROUTES_TICK routes, the next goes on; every minute is saved. */
static void
test_a_few_routes_in_each_tick(void **state)
{
	uint64_t now_ns = clock_wall_ns() / (60 * S) * (60 * S), random = 6;
	const size_t routes_made = SPANS_ROUTES_TICK + 2; /* with the one of all others */
	struct spans_stats stats;
	char name[16];
	(void)state;
	for (size_t i = routes_count(routes); i < routes_made; i++) {
		snprintf(name, sizeof(name), "GET /%zu", i);
		add_to(routes_index(routes, name), now_ns, now_ns, 0, &random);
	}
	assert_int_equal(routes_count(routes), routes_made);
	now_ns += 60 * S + TIMEOUT_MS * NS_PER_MS;
	assert_true(spans_tick(spans, now_ns));
	spans_stats(spans, &stats);
	assert_int_equal(stats.packed, SPANS_ROUTES_TICK - 1);
	assert_int_equal(stats.open, 2);
	assert_false(spans_tick(spans, now_ns + S));
	spans_stats(spans, &stats);
	assert_int_equal(stats.packed, routes_made - 1);
	/* No round begins within a second, one does after it. */
	add_to(1, now_ns - 60 * S, now_ns, 0, &random);
	spans_stats(spans, &stats);
	assert_int_equal(stats.open, 1);
	assert_false(spans_tick(spans, now_ns + S - NS_PER_MS));
	spans_stats(spans, &stats);
	assert_int_equal(stats.open, 1);
	assert_true(spans_tick(spans, now_ns + S));
	spans_stats(spans, &stats);
	assert_int_equal(stats.open, 0);
	store_sync(store, 5000);
	assert_int_equal(number("SELECT count(DISTINCT route) FROM rollups"), routes_made - 1);
}

/* Windows of hours and days ago become minutes and hours; every sum is as before. */
static void
test_ageing(void **state)
{
	uint64_t now_ns = clock_wall_ns(), random = 2;
	static const unsigned ages_min[] = {5, 90, 125, 130, 600, 2870, 2950, 3100, 6000, 20000};
	struct store_stats stats;
	(void)state;
	routes_index(routes, "GET /a");
	for (size_t i = sizeof(ages_min) / sizeof(ages_min[0]); i-- > 0;) {
		uint64_t at_ns = now_ns - ages_min[i] * 60 * S;
		for (unsigned k = 0; k < 150; k++)
			add(at_ns + k * S, at_ns + k * S, k % 7 ? 300 : 0, &random);
		spans_finish(spans, at_ns + 200 * S);
	}
	store_sync(store, 5000);
	for (int i = 0; i < 100 && number("SELECT count(*) FROM rollups WHERE level = 0 AND"
	                                  " start_s < unixepoch() - 7260") +
	                                   number("SELECT count(*) FROM rollups WHERE level ="
	                                          " 1 AND start_s < unixepoch() - 176400") >
	                               0;
	     i++)
		usleep(100000);
	assert_int_equal(number("SELECT count(*) FROM rollups WHERE level = 0 AND start_s <"
	                        " unixepoch() - 7260"),
	                 0);
	assert_int_equal(number("SELECT count(*) FROM rollups WHERE level = 1 AND start_s <"
	                        " unixepoch() - 176400"),
	                 0);
	assert_true(number("SELECT count(*) FROM rollups WHERE level = 2") >= 3);
	assert_true(number("SELECT count(*) FROM rollups WHERE level = 1") >= 9);
	check_stored();
	/* The same again, into spans that are coarse already. */
	add(now_ns - 20000 * 60 * S, now_ns, 300, &random);
	add(now_ns - 600 * 60 * S, now_ns, 300, &random);
	spans_finish(spans, now_ns);
	store_sync(store, 5000);
	check_stored();
	store_stats(store, &stats);
	assert_int_equal(stats.rollups_damaged, 0);
	assert_true(stats.writable);
}

static json_t *
ask(struct query_job *job, int status)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(query_answer(db, job, clock_wall_ns()), SQLITE_OK);
	sqlite3_close(db);
	assert_int_equal(job->status, status);
	json_t *answer = json_loads(job->body.data, 0, NULL);
	assert_non_null(answer);
	text_reset(&job->body);
	return answer;
}

static json_int_t
integer(const json_t *object, const char *key)
{
	assert_true(json_is_integer(json_object_get(object, key)));
	return json_integer_value(json_object_get(object, key));
}

/* Windows that are saved, closed and open are each counted once. */
static void
test_read_once(void **state)
{
	uint64_t now_ns = clock_wall_ns() - 200 * S, random = 3;
	struct query_job *job = xcalloc(1, sizeof(*job));
	json_t *row;
	json_int_t sum = 0, requests = 0;
	size_t i;
	(void)state;
	size_t route = routes_index(routes, "GET /a");
	struct store_minute minute = {.sums = {.minute = now_ns / (60 * S),
	                                       .route = route,
	                                       .route_name = "GET /a",
	                                       .requests = 1}};
	for (unsigned k = 0; k < 200; k++, now_ns += S) {
		add(now_ns, now_ns, 9, &random);
		sweep(now_ns);
	}
	store_put_minute(store, &minute);
	store_sync(store, 5000);
	assert_true(number("SELECT count(*) FROM rollups") > 0);
	job->kind = QUERY_FLAME;
	job->history.route_id = number("SELECT id FROM routes");
	assert_int_equal(store_route_index(store, job->history.route_id), route);
	assert_true(store_route_index(store, 12345) == SIZE_MAX);
	job->history.span = (struct query_span){now_ns / S - 400, now_ns / S + 10};
	spans_pack(spans, route, 0, UINT64_MAX, &job->history.saved, &job->history.unsaved);
	assert_true(job->history.saved.length > 0 && job->history.unsaved.length > 0);
	spans_names(spans, route, &job->history.names);
	json_t *answer = ask(job, 200);
	assert_int_equal(integer(answer, "requests"), 200);
	json_int_t mean = integer(json_object_get(answer, "tree"), "ns");
	assert_int_equal(mean, (truth->total.sum_ns + 100) / 200);
	json_array_foreach(json_object_get(answer, "rows"), i, row) sum += integer(row, "ns");
	assert_int_equal(sum, mean);
	json_decref(answer);
	job->kind = QUERY_SERIES;
	answer = ask(job, 200);
	assert_int_equal(integer(answer, "step_s"), 10);
	json_array_foreach(json_object_get(answer, "points"), i, row) requests +=
	    integer(row, "requests");
	assert_int_equal(requests, 200);
	json_decref(answer);
	query_job_free(job);
	/* Without the store only what memory has. */
	job = xcalloc(1, sizeof(*job));
	job->kind = QUERY_FLAME;
	snprintf(job->route, sizeof(job->route), "GET /a");
	job->history.span = (struct query_span){now_ns / S - 400, now_ns / S + 10};
	spans_pack(spans, route, 0, UINT64_MAX, &job->history.saved, &job->history.unsaved);
	assert_int_equal(query_answer(NULL, job, clock_wall_ns()), SQLITE_OK);
	assert_int_equal(job->status, 200);
	answer = json_loads(job->body.data, 0, NULL);
	assert_int_equal(integer(answer, "requests"), 200);
	json_decref(answer);
	query_job_free(job);
}

static void
test_bounds(void **state)
{
	uint64_t now_ns = clock_wall_ns() / (10 * S) * (10 * S), random = 4;
	struct spans_stats stats;
	struct rollup *sum = rollup_new();
	(void)state;
	routes_index(routes, "GET /a");
	/* Rows of a window: 64; here it has a few hundred. */
	for (unsigned i = 0; i < 400; i++)
		add(now_ns, now_ns, 300, &random);
	spans_finish(spans, now_ns);
	spans_stats(spans, &stats);
	assert_true(stats.rows_folded_window > 0);
	assert_int_equal(stats.rows_folded_route, 0);
	assert_int_equal(stats.stacks_overflowed, 0);
	spans_sum(spans, 1, 0, UINT64_MAX, sum);
	assert_true(sum->row_count <= ROLLUP_ROWS_WINDOW);
	check(sum);
	spans_free(spans);
	/* Rows of a route: each stack is a wait and a run at most; one past the bound is folded. */
	rollup_reset(truth);
	spans_open(SPANS_BYTES_MAX, 20, FLAME_STACKS_MAX);
	for (unsigned i = 0; i < 400; i++)
		add(now_ns, now_ns, 10, &random);
	spans_stats(spans, &stats);
	assert_int_equal(stats.rows_folded_route, 0);
	for (unsigned i = 0; i < 400; i++)
		add(now_ns, now_ns, 11, &random);
	spans_stats(spans, &stats);
	assert_true(stats.rows_folded_route > 0);
	rollup_reset(sum);
	spans_sum(spans, 1, 0, UINT64_MAX, sum);
	check(sum);
	spans_free(spans);
	/* Stacks: beyond the table they are none. */
	rollup_reset(truth);
	spans_open(SPANS_BYTES_MAX, ROLLUP_ROWS_MAX, 5);
	for (unsigned i = 0; i < 100; i++)
		add(now_ns, now_ns, 6, &random);
	spans_stats(spans, &stats);
	assert_int_equal(stats.stacks, 5);
	assert_true(stats.stacks_overflowed > 0);
	rollup_reset(sum);
	spans_sum(spans, 1, 0, UINT64_MAX, sum);
	check(sum);
	spans_free(spans);
	/* Bytes of closed windows: the oldest leave, saved before. */
	rollup_reset(truth);
	spans_open(8192, ROLLUP_ROWS_MAX, FLAME_STACKS_MAX);
	for (unsigned i = 0; i < 60; i++) {
		add(now_ns + i * 10 * S, now_ns + i * 10 * S, 20, &random);
		sweep(now_ns + i * 10 * S);
	}
	spans_stats(spans, &stats);
	assert_true(stats.left_early > 0);
	assert_true(stats.packed_bytes <= 8192);
	/* Open windows: eight of a route. */
	for (unsigned i = 0; i < 9; i++)
		add(now_ns + (100 + i) * 10 * S, now_ns + 1000 * S, 2, &random);
	spans_stats(spans, &stats);
	assert_int_equal(stats.open, 8);
	/* The clock is set back by a day: what lies in the future closes, nothing waits for it. */
	sweep(now_ns - 86400 * S);
	spans_stats(spans, &stats);
	assert_int_equal(stats.open, 0);
	rollup_free(sum);
}

/* A small file is filled: rollups become coarser early and stay within their half, the file within
 * its cap, and every sum that is left is whole. */
static void
test_filled(void **state)
{
	uint64_t now_ns = clock_wall_ns() / (60 * S) * (60 * S), random = 5;
	struct store_stats stats;
	const uint64_t cap = 1 << 20;
	struct profile_key pinned = {{9}, {9}};
	(void)state;
	store_stop(store);
	store_open(cap);
	spans_free(spans);
	spans_open(SPANS_BYTES_MAX, ROLLUP_ROWS_MAX, FLAME_STACKS_MAX);
	routes_index(routes, "GET /a");
	store_put_pin(store, &pinned, true);
	for (unsigned i = 0; i < 1500; i++) {
		struct store_exchange x = {.key = {{(uint8_t)(i >> 8)}, {(uint8_t)i}},
		                           .route = 1,
		                           .route_name = "GET /a",
		                           .start_wall_ns = now_ns};
		if (i == 0)
			x.key = pinned;
		text_printf(&x.body, "{\"padding\":\"%3000s\"}", "");
		store_put_exchange(store, &x);
		text_free(&x.body);
		uint64_t at_ns = now_ns - (1500 - i) * 4 * S;
		for (unsigned k = 0; k < 4; k++)
			add(at_ns, at_ns, 200, &random);
		sweep(at_ns);
		if (i % 100 == 99)
			store_sync(store, 5000);
	}
	spans_finish(spans, now_ns);
	for (int i = 0; i < 100; i++) {
		store_sync(store, 1000);
		store_stats(store, &stats);
		if (stats.file_bytes <= cap)
			break;
		usleep(50000);
	}
	assert_true(stats.file_bytes <= cap);
	assert_true(stats.evicted_bytes > 500);
	assert_true(stats.aged_early > 0);
	assert_true(stats.rollup_bytes <= cap / 2);
	assert_int_equal(stats.dropped_full + stats.dropped_error, 0);
	assert_int_equal(number("SELECT count(*) FROM exchanges WHERE trace ="
	                        " x'09000000000000000000000000000000'"),
	                 1);
	check_stored();
	store_put_drop(store, &pinned); /* retention does not take what is cited */
	store_sync(store, 5000);
	assert_int_equal(number("SELECT count(*) FROM exchanges WHERE trace ="
	                        " x'09000000000000000000000000000000'"),
	                 1);
	store_put_pin(store, &pinned, false);
	store_put_drop(store, &pinned);
	store_sync(store, 5000);
	assert_int_equal(number("SELECT count(*) FROM exchanges WHERE trace ="
	                        " x'09000000000000000000000000000000'"),
	                 0);
}

static void
test_pins_max(void **state)
{
	struct store_stats stats;
	(void)state;
	for (unsigned i = 0; i <= STORE_PINS_MAX; i++) {
		struct profile_key key = {{(uint8_t)i, (uint8_t)(i >> 8)}, {1}};
		store_put_pin(store, &key, true);
	}
	store_sync(store, 10000);
	store_stats(store, &stats);
	assert_int_equal(stats.pins_refused, 1);
	assert_int_equal(number("SELECT count(*) FROM pins"), STORE_PINS_MAX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_saved_by_the_minute, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_a_few_routes_in_each_tick, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_ageing, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_read_once, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_filled, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_pins_max, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
