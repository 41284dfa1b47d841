/* detector: the table's bound, the budget over routes, deploys, acceptance, and restarts that lose
 * nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "detector_kit.h"
#include "model/detector_save.h"

#define HOUR_TICKS 360
#define LEARNED_TICKS (4 * HOUR_TICKS)

struct bed {
	struct kit_events events;
	struct detector *detector;
	struct detector_route *route;
};

static void
set_up(struct bed *bed)
{
	struct detector_params params;

	memset(bed, 0, sizeof(*bed));
	detector_params_default(&params);
	bed->detector = detector_new(&params, kit_on_event, &bed->events);
	bed->route = detector_route_at(bed->detector, "GET /a");
}

static void
test_table_is_bounded(void **state)
{
	struct bed bed;
	char name[32];

	(void)state;
	set_up(&bed);
	for (int i = 1; i < DETECTOR_ROUTES_MAX; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		assert_non_null(detector_route_at(bed.detector, name));
	}
	assert_null(detector_route_at(bed.detector, "one too many"));
	assert_ptr_equal(detector_route_at(bed.detector, "GET /a"), bed.route);
	assert_int_equal(detector_count(bed.detector), DETECTOR_ROUTES_MAX);
	assert_string_equal(detector_route_by_index(bed.detector, 7)->name, "r7");
	assert_null(detector_route_by_index(bed.detector, DETECTOR_ROUTES_MAX));
	detector_free(bed.detector);
}

static void
test_threshold_follows_the_routes_compared(void **state)
{
	struct bed bed;
	int64_t t_s = KIT_START_S;
	struct detector_cell cells[DETECTOR_BUCKETS];
	char name[32];

	(void)state;
	set_up(&bed);
	for (int i = 0; i < 3 * HOUR_TICKS; i++, t_s += KIT_WINDOW_S) {
		for (int r = 0; r < 3; r++) {
			snprintf(name, sizeof(name), "%d", r);
			size_t used = kit_cells(cells, 20, 40);

			detector_tick(bed.detector, detector_route_at(bed.detector, name), t_s,
			              cells, used);
		}
		if (i == 0) {
			assert_int_equal(detector_compared(bed.detector), 1);
			assert_float_equal(detector_threshold(bed.detector), log(259200.0), 1e-12);
		}
	}
	/* "GET /a" had no request: three of four are compared. */
	assert_int_equal(detector_compared(bed.detector), 3);
	assert_float_equal(detector_threshold(bed.detector), log(3 * 259200.0), 1e-12);
	detector_free(bed.detector);
}

static unsigned
work_of(struct bed *bed, int64_t *t_s, unsigned ticks)
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	unsigned work = 0;

	for (; ticks > 0; ticks--, *t_s += KIT_WINDOW_S) {
		size_t used = kit_cells(cells, 50, 40);

		work += detector_tick(bed->detector, bed->route, *t_s, cells, used);
	}
	return work;
}

static void
test_a_tick_says_what_it_costs(void **state)
{
	unsigned baseline = DETECTOR_WORK_BASELINE - DETECTOR_WORK_TICK;
	int64_t t_s = KIT_START_S;
	struct bed bed;

	(void)state;
	set_up(&bed);
	work_of(&bed, &t_s, HOUR_TICKS);
	/* A trailing reference, every ten minutes. */
	assert_int_equal(work_of(&bed, &t_s, HOUR_TICKS), HOUR_TICKS + 6 * baseline);
	work_of(&bed, &t_s, 23 * HOUR_TICKS);
	assert_int_equal(bed.route->basis, DETECTOR_BASIS_HOUR_OF_DAY);
	assert_int_equal(work_of(&bed, &t_s, HOUR_TICKS), HOUR_TICKS + baseline);
	detector_free(bed.detector);
}

static void
test_fires_recovers_and_is_a_function_of_its_input(void **state)
{
	struct bed bed;
	int64_t slow_s, back_s;
	const struct detector_event *fired, *resolved;

	(void)state;
	set_up(&bed);
	slow_s = kit_run(bed.detector, bed.route, KIT_START_S, LEARNED_TICKS, 50, 40);
	assert_int_equal(bed.route->state, DETECTOR_OK);
	assert_int_equal(bed.route->basis, DETECTOR_BASIS_TRAILING);
	back_s = kit_run(bed.detector, bed.route, slow_s, HOUR_TICKS, 50, 80);
	assert_int_equal(bed.route->state, DETECTOR_FIRING);
	fired = kit_find(&bed.events, DETECTOR_FIRING, 0);
	assert_non_null(fired);
	assert_in_range(fired->t_s, slow_s + 120, slow_s + 300); /* 13 ticks at the cap at least */
	assert_in_range(fired->since_s, slow_s - 60, slow_s + 60);
	assert_false(fired->by_deploy);
	kit_run(bed.detector, bed.route, back_s, HOUR_TICKS, 50, 40);
	resolved = kit_find(&bed.events, DETECTOR_RESOLVED, back_s);
	assert_non_null(resolved);
	assert_null(kit_find(&bed.events, DETECTOR_FIRING, back_s));
	detector_free(bed.detector);
}

static void
test_deploy_starts_a_twin_that_prints_p(void **state)
{
	struct bed bed;
	int64_t t_s;
	const struct detector_event *fired;
	char version[DETECTOR_DEPLOY_MAX + 10];

	(void)state;
	set_up(&bed);
	memset(version, 'v', sizeof(version) - 1);
	version[sizeof(version) - 1] = '\0';
	t_s = kit_run(bed.detector, bed.route, KIT_START_S, LEARNED_TICKS, 50, 40);
	detector_mark(bed.detector, t_s, version);
	kit_run(bed.detector, bed.route, t_s, HOUR_TICKS, 50, 80);
	fired = kit_find(&bed.events, DETECTOR_FIRING, t_s);
	assert_non_null(fired);
	assert_true(fired->by_deploy);
	assert_true(fired->p > 0 && fired->p <= 0.001);
	assert_float_equal(fired->p, exp(-fired->evidence_nats), 1e-12);
	assert_float_equal(fired->threshold_nats, log(1000), 1e-12);
	assert_int_equal(strlen(fired->deploy), DETECTOR_DEPLOY_MAX); /* cut, not overrun */
	assert_int_equal(bed.route->twin_until_s, 0);
	detector_free(bed.detector);
}

static void
test_twin_ends_after_two_hours(void **state)
{
	struct bed bed;
	int64_t t_s;
	const struct detector_event *fired;

	(void)state;
	set_up(&bed);
	t_s = kit_run(bed.detector, bed.route, KIT_START_S, LEARNED_TICKS, 50, 40);
	detector_mark(bed.detector, t_s, "v1");
	t_s = kit_run(bed.detector, bed.route, t_s, 2 * HOUR_TICKS + 1, 50, 40);
	assert_int_equal(bed.route->twin_until_s, 0);
	kit_run(bed.detector, bed.route, t_s, HOUR_TICKS, 50, 80);
	fired = kit_find(&bed.events, DETECTOR_FIRING, t_s);
	assert_non_null(fired);
	assert_false(fired->by_deploy);
	detector_free(bed.detector);
}

static void
test_accept_learns_the_new_level(void **state)
{
	struct bed bed;
	struct detector_progress progress;
	int64_t t_s;

	(void)state;
	set_up(&bed);
	t_s = kit_run(bed.detector, bed.route, KIT_START_S, LEARNED_TICKS, 50, 40);
	detector_accept(bed.detector, bed.route, t_s); /* nothing to accept */
	assert_int_equal(bed.route->state, DETECTOR_OK);
	t_s = kit_run(bed.detector, bed.route, t_s, 60, 50, 80);
	assert_int_equal(bed.route->state, DETECTOR_FIRING);
	detector_accept(bed.detector, bed.route, t_s);
	assert_int_equal(bed.route->state, DETECTOR_ACCEPTED);
	progress = detector_route_progress(bed.route, detector_params(bed.detector), t_s);
	assert_int_equal(progress.have_requests, 0);
	assert_int_equal(progress.need_requests, DETECTOR_REFERENCE_REQUESTS);
	assert_in_range(progress.ready_s, t_s + 4200, t_s + 4800);
	kit_run(bed.detector, bed.route, t_s, 3 * HOUR_TICKS, 50, 80);
	assert_int_equal(bed.route->state, DETECTOR_OK);
	assert_null(kit_find(&bed.events, DETECTOR_FIRING, t_s));
	detector_free(bed.detector);
}

static void
test_learning_says_when(void **state)
{
	struct bed bed;
	struct detector_progress progress;
	int64_t t_s;

	(void)state;
	set_up(&bed);
	/* One request per 10 s: 360 an hour, so the reference is full an hour and a few minutes
	 * after the gap. */
	t_s = kit_run(bed.detector, bed.route, KIT_START_S, HOUR_TICKS, 1, 40);
	progress = detector_route_progress(bed.route, detector_params(bed.detector), t_s);
	assert_in_range(progress.have_requests, 270, 300);
	assert_in_range(progress.ready_s, KIT_START_S + 4200, KIT_START_S + 6000);
	kit_run(bed.detector, bed.route, t_s, HOUR_TICKS, 1, 40);
	assert_int_equal(bed.route->state, DETECTOR_OK);
	assert_in_range(kit_find(&bed.events, DETECTOR_OK, 0)->t_s, KIT_START_S + 4200,
	                KIT_START_S + 5400);
	detector_free(bed.detector);
}

/* --- memory ---------------------------------------------------------------- */

/* What a thousand routes take is a thousand times this: two days at 5 requests/s, each latency
 * log-normal, one in 300 an outlier of up to twenty times. */
static void
test_memory_of_a_route(void **state)
{
	struct bed bed;
	struct detector_cell cells[DETECTOR_BUCKETS];
	int64_t t_s = KIT_START_S, end_s = t_s + 50 * DETECTOR_HOUR_S;
	size_t bytes = sizeof(struct detector_route);

	(void)state;
	set_up(&bed);
	struct detector_history *history = &bed.route->history;
	kit_run(bed.detector, bed.route, t_s, 1, 50, 40);
	for (; t_s < end_s; t_s += DETECTOR_BLOCK_S) {
		detector_history_turn(history, t_s, 0);
		for (int i = 0; i < 3; i++)
			detector_history_add(history, cells,
			                     kit_cells(cells, 1495 / 3, 36 + 4.0 * i));
		detector_history_add(history, cells,
		                     kit_cells(cells, 5, 40 * exp(kit_uniform() * 3)));
	}
	for (unsigned i = 0; i < history->blocks.count; i++)
		bytes += sizeof(struct detector_chunk) + history->blocks.chunks[i].room + 16;
	for (unsigned h = 0; h < DETECTOR_HOURS; h++)
		bytes += history->by_hour[h].size + 16;
	assert_in_range(bytes, 40000, 80000);
	detector_free(bed.detector);
}

/* --- restarts -------------------------------------------------------------- */

static void
save_all(const struct detector_route *route, struct detector_bytes parts[DETECTOR_PARTS])
{
	for (int part = 0; part < DETECTOR_PARTS; part++)
		parts[part] = detector_route_save(route, (enum detector_part)part);
}

static void
free_all(struct detector_bytes parts[DETECTOR_PARTS])
{
	for (int part = 0; part < DETECTOR_PARTS; part++)
		free(parts[part].at);
}

/* Go on in a second detector from what the first saved: every later tick's evidence must be the
 * same. */
static void
assert_restart_changes_nothing(struct bed *bed, int64_t t_s, unsigned ticks, double ms)
{
	struct detector_bytes parts[DETECTOR_PARTS];
	struct detector_cell cells[DETECTOR_BUCKETS];
	struct bed again;

	set_up(&again);
	save_all(bed->route, parts);
	assert_int_equal(detector_route_restore(again.route, parts), 0);
	for (; ticks > 0; ticks--, t_s += KIT_WINDOW_S) {
		size_t used = kit_cells(cells, 50, ms);

		detector_tick(bed->detector, bed->route, t_s, cells, used);
		detector_tick(again.detector, again.route, t_s, cells, used);
		assert_true(bed->route->slower.nats == again.route->slower.nats);
		assert_true(bed->route->back.nats == again.route->back.nats);
		assert_int_equal(bed->route->state, again.route->state);
	}
	free_all(parts);
	detector_free(again.detector);
}

static void
test_restart_while_pending_keeps_the_evidence(void **state)
{
	struct bed bed;
	int64_t t_s;

	(void)state;
	set_up(&bed);
	t_s = kit_run(bed.detector, bed.route, KIT_START_S, LEARNED_TICKS, 50, 40);
	t_s = kit_run(bed.detector, bed.route, t_s, 7, 50, 80);
	assert_int_equal(bed.route->state, DETECTOR_PENDING);
	assert_restart_changes_nothing(&bed, t_s, HOUR_TICKS, 80);
	assert_int_equal(bed.route->state, DETECTOR_FIRING);
	detector_free(bed.detector);
}

static void
test_restart_at_any_age(void **state)
{
	(void)state;
	for (unsigned hours = 0; hours < 60; hours += 13) {
		struct bed bed;
		int64_t t_s = KIT_START_S;

		set_up(&bed);
		t_s = kit_run(bed.detector, bed.route, t_s, hours * HOUR_TICKS + 1, 30, 40);
		assert_restart_changes_nothing(&bed, t_s, 3 * HOUR_TICKS, 40);
		assert_restart_changes_nothing(&bed, t_s + 3 * HOUR_TICKS * KIT_WINDOW_S, 30, 90);
		detector_free(bed.detector);
	}
}

static void
test_damaged_bytes_leave_the_route_fresh(void **state)
{
	struct detector_bytes parts[DETECTOR_PARTS];
	struct bed bed, again;
	int refused = 0;

	(void)state;
	set_up(&bed);
	set_up(&again);
	kit_run(bed.detector, bed.route, KIT_START_S, 26 * HOUR_TICKS, 30, 40);
	save_all(bed.route, parts);
	for (int part = 0; part < DETECTOR_PARTS; part++) {
		size_t size = parts[part].size;

		for (size_t cut = 1; cut < 400 && size > 24; cut += 7) { /* cut off short */
			parts[part].size = size > cut * 11 ? size - cut * 11 : 1;
			assert_int_equal(detector_route_restore(again.route, parts), -1);
			assert_int_equal(again.route->last_s, -1);
			assert_string_equal(again.route->name, "GET /a");
		}
		parts[part].size = size;
		for (size_t at = 0; at < size; at += 1 + size / 300) { /* one byte wrong */
			parts[part].at[at] ^= 0xff;
			if (detector_route_restore(again.route, parts) == -1) {
				refused++;
			} else {
				detector_route_clear(again.route);
				detector_route_init(again.route, "GET /a", 0, DETECTOR_BLOCK_S);
			}
			parts[part].at[at] ^= 0xff;
		}
	}
	assert_true(refused > 100);
	assert_int_equal(detector_route_restore(again.route, parts), 0);
	kit_run(again.detector, again.route, again.route->last_s + 10, HOUR_TICKS, 30, 40);
	free_all(parts);
	detector_free(bed.detector);
	detector_free(again.detector);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_table_is_bounded),
	    cmocka_unit_test(test_threshold_follows_the_routes_compared),
	    cmocka_unit_test(test_a_tick_says_what_it_costs),
	    cmocka_unit_test(test_fires_recovers_and_is_a_function_of_its_input),
	    cmocka_unit_test(test_deploy_starts_a_twin_that_prints_p),
	    cmocka_unit_test(test_twin_ends_after_two_hours),
	    cmocka_unit_test(test_accept_learns_the_new_level),
	    cmocka_unit_test(test_learning_says_when),
	    cmocka_unit_test(test_memory_of_a_route),
	    cmocka_unit_test(test_restart_while_pending_keeps_the_evidence),
	    cmocka_unit_test(test_restart_at_any_age),
	    cmocka_unit_test(test_damaged_bytes_leave_the_route_fresh),
	};

	return cmocka_run_group_tests_name("detector", tests, NULL, NULL);
}
