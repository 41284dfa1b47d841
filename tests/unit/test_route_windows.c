/* route_windows: what is kept from one question to the next is what a fresh look finds, whatever
 * comes late or is taken away; sums by hand; parts. And what is not written yet counts once
 * (unwritten). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/clock.h"
#include "collector/query.h"
#include "collector/route_windows.h"
#include "collector/store.h"
#include "model/histogram.h"

#define ROUTES 5
#define MINUTE 1000 /* the first one */

static char folder[64], path[96];
static struct store *store;
static sqlite3 *db;
static uint64_t seed = 7;

static int
set_up(void **state)
{
	(void)state;
	snprintf(folder, sizeof(folder), "/tmp/tailrace-windows-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/t.db", folder);
	struct store_options options = {
	    .path = path, .max_bytes = 1 << 30, .queue_max = 1000, .queue_bytes_max = 1 << 20};
	store_prepare(path, (uid_t)-1, (gid_t)-1);
	store = store_start(&options);
	store_sync(store, 5000);
	for (int i = 0; i < 500; i++) { /* until the writer has made the tables */
		struct store_stats stats;
		store_stats(store, &stats);
		if (stats.writable)
			break;
		usleep(10000);
	}
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	return 0;
}

static int
tear_down(void **state)
{
	char command[128];
	(void)state;
	sqlite3_close(db);
	store_stop(store);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static uint64_t
random_u64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void
put(size_t route, uint64_t minute, unsigned requests)
{
	static const char *const names[ROUTES] = {"GET /0", "GET /1", "GET /2", "GET /3", "GET /4"};
	struct store_minute m = {.sums = {.minute = minute,
	                                  .route = route,
	                                  .route_name = names[route],
	                                  .requests = requests,
	                                  .sent = requests}};
	for (unsigned i = 0; i < requests; i++) {
		uint64_t ns = 100000 + random_u64() % NS_PER_S;
		m.sums.phases_ns[3] += ns;
		histogram_add(&m.total, ns);
	}
	store_put_minute(store, &m);
}

/* --- comparing ---------------------------------------------------------------------- */

struct seen {
	struct route_window route;
	struct histogram total;
	uint64_t phase_ns, p95_ns[ROUTE_WINDOW_PARTS];
};

struct list {
	struct seen seen[ROUTES + 1];
	size_t count;
};

static void
on_route(void *arg, const struct route_window *route)
{
	struct list *list = arg;
	struct seen *seen = &list->seen[list->count++];
	assert_true(list->count <= ROUTES);
	seen->route = *route;
	seen->total = *route->total;
	seen->phase_ns = route->phases_ns[3];
	memcpy(seen->p95_ns, route->p95_ns, route->parts * sizeof(uint64_t));
}

static void
look(struct route_windows *windows, uint64_t minutes, uint64_t now, const struct unwritten *more,
     struct list *ret)
{
	static const struct unwritten nothing;
	*ret = (struct list){0};
	assert_int_equal(route_windows_read(windows, db, minutes, now,
	                                    more != NULL ? more : &nothing, on_route, ret),
	                 SQLITE_OK);
}

static void
assert_same(const struct list *a, const struct list *b)
{
	assert_int_equal(a->count, b->count);
	for (size_t i = 0; i < a->count; i++) {
		const struct seen *x = &a->seen[i], *y = &b->seen[i];
		assert_int_equal(x->route.id, y->route.id);
		assert_int_equal(x->route.requests, y->route.requests);
		assert_int_equal(x->route.sent, y->route.sent);
		assert_int_equal(x->phase_ns, y->phase_ns);
		assert_int_equal(x->route.parts, y->route.parts);
		assert_memory_equal(&x->total, &y->total, sizeof(x->total));
		assert_memory_equal(x->p95_ns, y->p95_ns, x->route.parts * sizeof(uint64_t));
	}
}

/* Kept over time against made anew, at windows of all kinds of parts. */
static void
test_kept(void **state)
{
	static const uint64_t lengths[] = {1, 7, 60, 61, 150};
	struct route_windows *kept = route_windows_new();
	struct list a, b;
	(void)state;
	for (uint64_t now = MINUTE; now < MINUTE + 230; now += 1 + random_u64() % 3) {
		for (size_t route = 0; route < ROUTES; route++)
			for (uint64_t minute = now - 2; minute <= now; minute++)
				if (random_u64() % 3 > 0)
					put(route, minute, (unsigned)(random_u64() % 5));
		if (random_u64() % 10 == 0) /* late: long settled */
			put(random_u64() % ROUTES, now - random_u64() % 40, 3);
		store_sync(store, 5000);
		struct store_changes changes = store_take_changes(store);
		assert_true(changes.written_from <= now);
		route_windows_changed(kept, &changes);
		uint64_t minutes = lengths[random_u64() % 5];
		struct route_windows *fresh = route_windows_new();
		look(kept, minutes, now, NULL, &a);
		look(fresh, minutes, now, NULL, &b);
		assert_same(&a, &b);
		route_windows_free(fresh);
	}
	route_windows_free(kept);
}

static void
test_sums_and_parts(void **state)
{
	struct route_windows *windows = route_windows_new();
	struct list list;
	(void)state;
	assert_int_equal(route_windows_minutes(60), 60);
	assert_int_equal(route_windows_minutes(61), 62);
	assert_int_equal(route_windows_minutes(1440), 1440);
	for (uint64_t minute = MINUTE; minute < MINUTE + 120; minute++)
		put(0, minute, 2);
	store_sync(store, 5000);
	/* Parts of one minute: 60 of them, the running one included. */
	look(windows, 60, MINUTE + 119, NULL, &list);
	assert_int_equal(list.seen[0].route.requests, 120);
	assert_int_equal(list.seen[0].route.parts, 60);
	look(windows, 60, MINUTE + 121, NULL, &list); /* two have left, nothing came */
	assert_int_equal(list.seen[0].route.requests, 116);
	assert_true(list.seen[0].p95_ns[57] != UINT64_MAX);
	assert_true(list.seen[0].p95_ns[58] == UINT64_MAX);
	/* Of two minutes, aligned: 60 parts from the even minute 1002 on. */
	look(windows, 120, MINUTE + 121, NULL, &list);
	assert_int_equal(list.seen[0].route.requests, 236);
	look(windows, 60, MINUTE + 500, NULL, &list);
	assert_int_equal(list.count, 0);
	route_windows_free(windows);
}

/* The store tells of ageing after the commit: a question between them may find minutes gone that
 * it is to subtract. And another file has nothing of this one. */
static void
test_told_late(void **state)
{
	struct store_changes aged = {.written_from = UINT64_MAX, .aged_to = MINUTE + 20};
	struct route_windows *windows = route_windows_new();
	struct list list;
	sqlite3 *other;
	(void)state;
	for (uint64_t minute = MINUTE; minute < MINUTE + 60; minute++)
		put(0, minute, 2);
	store_sync(store, 5000);
	look(windows, 60, MINUTE + 59, NULL, &list);
	assert_int_equal(list.seen[0].route.requests, 120);
	for (uint64_t minute = MINUTE + 60; minute < MINUTE + 90; minute++)
		put(0, minute, 2);
	store_sync(store, 5000);
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	assert_int_equal(
	    sqlite3_exec(other, "DELETE FROM route_minutes WHERE minute < 1020", NULL, NULL, NULL),
	    SQLITE_OK);
	look(windows, 60, MINUTE + 89, NULL, &list);
	route_windows_changed(windows, &aged);
	look(windows, 60, MINUTE + 89, NULL, &list);
	assert_int_equal(list.seen[0].route.requests, 120);
	assert_int_equal(sqlite3_exec(other, "DELETE FROM route_minutes", NULL, NULL, NULL),
	                 SQLITE_OK);
	sqlite3_close(other);
	route_windows_clear(windows);
	look(windows, 60, MINUTE + 89, NULL, &list);
	assert_int_equal(list.count, 0);
	route_windows_free(windows);
}

/* A minute put while the store is frozen is seen beside the file, and in the file afterwards. */
static void
test_unwritten(void **state)
{
	struct query_job job = {.kind = QUERY_ROUTES};
	struct route_windows *windows = route_windows_new();
	struct list list;
	(void)state;
	put(0, MINUTE, 4);
	store_sync(store, 5000);
	for (unsigned round = 1; round < 4; round++) {
		assert_true(store_freeze(store, 5000));
		put(0, MINUTE, 3);
		put(1, MINUTE + 1, 2);
		unwritten_take(&job.unwritten, store, &job);
		assert_int_equal(job.unwritten.minute_count, 2);
		assert_int_equal(unwritten_has_new_route(&job.unwritten), round == 1);
		look(windows, 10, MINUTE + 1, &job.unwritten, &list);
		assert_int_equal(list.count, round == 1 ? 1 : 2);
		assert_int_equal(list.seen[0].route.requests, 4 + 3 * round);
		store_thaw(store);
		unwritten_free(&job.unwritten);
		store_sync(store, 5000);
		unwritten_take(&job.unwritten, store, &job);
		assert_int_equal(job.unwritten.minute_count, 0);
		look(windows, 10, MINUTE + 1, &job.unwritten, &list);
		assert_int_equal(list.count, 2);
		assert_int_equal(list.seen[0].route.requests, 4 + 3 * round);
		assert_int_equal(list.seen[1].route.requests, 2 * round);
	}
	route_windows_free(windows);
}

int
main(void)
{
#define WINDOWS_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    WINDOWS_TEST(test_kept),
	    WINDOWS_TEST(test_sums_and_parts),
	    WINDOWS_TEST(test_told_late),
	    WINDOWS_TEST(test_unwritten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
