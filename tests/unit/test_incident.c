/* incident: told, grouped, revised, reopened, ended, restored. The history's answers are made up
 * here, in place of collector/history.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/xmem.h"
#include "collector/history.h"
#include "collector/incident.h"
#include "collector/store.h"
#include "collector/watch.h"

#define TOLD_MAX 64

static struct {
	void (*done)(void *arg, struct history_answer *answer);
	void *arg;
	size_t route;
} asked[16];
static size_t asked_count;
static const char *frames[16]; /* by route: what the history names; null = not enough requests */

bool
history_compare(struct service *service, const struct history_ask *ask,
                void (*done)(void *arg, struct history_answer *answer), void *arg)
{
	(void)service;
	asked[asked_count].done = done;
	asked[asked_count].arg = arg;
	asked[asked_count++].route = ask->route;
	return true;
}

void
history_recent(const struct service *service, size_t route, uint64_t from_s, uint64_t to_s,
               struct rollup *into)
{
	(void)service, (void)route, (void)from_s, (void)to_s, (void)into;
}

void
history_answer_free(struct history_answer *answer)
{
	if (answer == NULL)
		return;
	rollup_free(answer->before);
	rollup_free(answer->after);
	cause_free(answer->cause);
	free(answer);
}

static struct history_answer *
answer_of(const char *frame)
{
	struct history_answer *answer = xcalloc(1, sizeof(*answer));

	answer->before = rollup_new();
	answer->after = rollup_new();
	answer->cause = xcalloc(1, sizeof(*answer->cause));
	answer->cause->verdict = frame != NULL ? CAUSE_NAMED : CAUSE_NOT_ENOUGH;
	answer->cause->before_compared = 7;
	answer->cause->after_compared = 90;
	answer->cause->growth_ns = 62400000;
	answer->cause->coverage = 1;
	if (frame == NULL)
		return answer;
	answer->cause->rows = xcalloc(1, sizeof(*answer->cause->rows));
	answer->cause->row_count = 1;
	answer->cause->rows[0] = (struct cause_row){.kind = PROFILE_WAIT,
	                                            .cause = PROFILE_CAUSE_DATABASE,
	                                            .kind_name = "wait",
	                                            .cause_name = "database",
	                                            .frame = xstrdup(frame),
	                                            .stack = xstrdup("[]"),
	                                            .before_count = 1,
	                                            .after_count = 4.1,
	                                            .delta_ns = 51168000,
	                                            .share = 0.82,
	                                            .share_low = 0.71,
	                                            .share_high = 0.93};
	return answer;
}

static void
answer_all(void)
{
	size_t count = asked_count;

	asked_count = 0;
	for (size_t i = 0; i < count; i++)
		asked[i].done(asked[i].arg, answer_of(frames[asked[i].route]));
}

/* --- what is told --------------------------------------------------------------- */

static struct {
	char id[INCIDENT_ID_SIZE], status[16];
	int revision;
	bool minor;
	json_t *payload;
} told[TOLD_MAX];
static size_t told_count;

static void
on_publish(void *arg, const json_t *payload, bool minor, char *const *receivers)
{
	(void)arg, (void)receivers;
	assert_true(told_count < TOLD_MAX);
	snprintf(told[told_count].id, INCIDENT_ID_SIZE, "%s",
	         json_string_value(json_object_get(payload, "id")));
	snprintf(told[told_count].status, 16, "%s",
	         json_string_value(json_object_get(payload, "status")));
	told[told_count].revision = (int)json_integer_value(json_object_get(payload, "revision"));
	told[told_count].minor = minor;
	told[told_count++].payload = json_deep_copy(payload);
}

static void
assert_told(size_t index, size_t like, const char *status, int revision)
{
	assert_true(index < told_count);
	assert_string_equal(told[index].id, told[like].id);
	assert_string_equal(told[index].status, status);
	assert_int_equal(told[index].revision, revision);
}

/* --- a collector's part of it ------------------------------------------------------ */

struct fixture {
	struct config config;
	struct service service;
	char path[64];
	int64_t now_s;
};

static const struct incident_sink sink = {.publish = on_publish};

static int
set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct config_alerts alerts = {.window_ms = 10000,
	                               .min_duration_s = 130,
	                               .reference_s = 3600,
	                               .reference_gap_s = 600,
	                               .false_alarm_budget = 1,
	                               .min_effect = 0.1,
	                               .min_effect_ms = 5};
	struct watch_events events = {0};

	snprintf(f->path, sizeof(f->path), "/tmp/tailrace-incident-XXXXXX");
	close(mkstemp(f->path));
	f->config.alerts = alerts;
	f->config.profile.join_timeout_ms = 1000;
	f->service.config = &f->config;
	f->service.routes = routes_new(ROUTES_MAX);
	struct store_options options = {.path = f->path,
	                                .max_bytes = 1 << 24,
	                                .queue_max = STORE_QUEUE_MAX,
	                                .queue_bytes_max = STORE_QUEUE_BYTES_MAX};
	f->service.store = store_start(&options);
	f->service.watch = watch_new(&f->config, f->service.routes, f->service.store, &events);
	watch_tick(f->service.watch);
	f->now_s = watch_now_s(f->service.watch);
	f->service.incidents = incidents_new(&f->service, &sink);
	asked_count = told_count = 0;
	memset(frames, 0, sizeof(frames));
	*state = f;
	return 0;
}

/* More windows than one turn of the loop takes: what is left is not lost. */
static void
test_windows_of_many_turns(void **state)
{
	struct fixture *f = *state;
	struct watch *watch = f->service.watch;
	uint64_t counts[DETECTOR_BUCKETS], now_ns = clock_now_ns();
	struct exchange_record record = {.status = 200, .died_in = PHASE_COUNT};
	char name[32];

	for (unsigned i = 0; i < ROUTES_MAX; i++) {
		snprintf(name, sizeof(name), "GET /%u", i);
		assert_int_equal(routes_index(f->service.routes, name), i + 1);
	}
	for (unsigned i = 0; i < 2 * (ROUTES_MAX + 1); i++) {
		uint64_t end_ns = now_ns + i / (ROUTES_MAX + 1) * 10 * NS_PER_S;
		for (unsigned mark = 0; mark < MARK_COUNT; mark++)
			record.marks_ns[mark] = end_ns;
		watch_add(watch, NULL, i % (ROUTES_MAX + 1), &record, true);
	}
	assert_true(2 * (ROUTES_MAX + 1) > WATCH_TURN_WORK);
	watch_finish(watch);
	assert_false(watch_go_on(watch));
	for (unsigned i = 0; i <= ROUTES_MAX; i++)
		assert_int_equal(watch_since(watch, i, 0, counts), 2);
}

static int
tear_down(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < told_count; i++)
		json_decref(told[i].payload);
	while (asked_count > 0) {
		asked_count--;
		asked[asked_count].done(asked[asked_count].arg, NULL);
	}
	incidents_free(f->service.incidents);
	watch_free(f->service.watch);
	store_stop(f->service.store);
	routes_free(f->service.routes);
	unlink(f->path);
	free(f);
	return 0;
}

static void
detect(struct fixture *f, const char *name, enum detector_state state, bool reopened, int64_t t_s)
{
	char text[64];
	struct detector_route route = {.name = text};
	struct detector_event event = {.route = &route,
	                               .t_s = t_s,
	                               .state = state,
	                               .since_s = t_s - 60,
	                               .evidence_nats = 17.2,
	                               .threshold_nats = 12.5,
	                               .quantile = 0.95,
	                               .reopened = reopened};

	snprintf(text, sizeof(text), "%s", name);
	incidents_detected(f->service.incidents, routes_index(f->service.routes, name), &event);
}

/* --- tests ----------------------------------------------------------------------------- */

static void
test_three_routes_are_one(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"GET /a", "GET /b", "GET /c"};

	for (size_t i = 0; i < 3; i++) {
		frames[routes_index(f->service.routes, names[i])] = "app.db:fetch_user";
		detect(f, names[i], DETECTOR_FIRING, false, f->now_s + (int64_t)i);
		answer_all();
	}
	/* Two alone, then the second is part of the first, which names all three. */
	assert_int_equal(told_count, 4);
	assert_told(0, 0, "firing", 1);
	assert_told(1, 1, "firing", 1);
	assert_told(2, 1, "merged", 2);
	assert_told(3, 0, "firing", 2);
	assert_int_equal(json_array_size(json_object_get(told[3].payload, "routes")), 3);
	assert_non_null(strstr(json_string_value(json_object_get(told[3].payload, "title")),
	                       "3 routes got slower"));
	assert_string_equal(json_string_value(json_object_get(told[2].payload, "merged_into")),
	                    told[0].id);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(incidents_active(f->service.incidents,
		                                  routes_index(f->service.routes, names[i])),
		                 1);
	/* It ends with its last route. */
	detect(f, names[0], DETECTOR_RESOLVED, false, f->now_s + 400);
	detect(f, names[2], DETECTOR_RESOLVED, false, f->now_s + 401);
	assert_int_equal(told_count, 4);
	detect(f, names[1], DETECTOR_RESOLVED, false, f->now_s + 402);
	assert_int_equal(told_count, 5);
	assert_told(4, 0, "resolved", 3);
}

static void
test_other_causes_stay_apart(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"GET /a", "GET /b", "GET /c", "GET /d"};

	for (size_t i = 0; i < 3; i++) {
		frames[routes_index(f->service.routes, names[i])] =
		    i == 1 ? "app.db:other" : "app.db:fetch_user";
		detect(f, names[i], DETECTOR_FIRING, false, f->now_s);
	}
	answer_all();
	/* The same cause, but an hour later. */
	frames[routes_index(f->service.routes, names[3])] = "app.db:fetch_user";
	detect(f, names[3], DETECTOR_FIRING, false, f->now_s + 3600);
	answer_all();
	assert_int_equal(told_count, 4);
	for (size_t i = 0; i < 4; i++)
		assert_told(i, i, "firing", 1);
}

static void
test_one_deploy_groups(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"GET /a", "GET /b", "GET /c"};

	watch_deploy(f->service.watch, "v42", f->now_s - 70);
	for (size_t i = 0; i < 3; i++) {
		frames[routes_index(f->service.routes, names[i])] = names[i];
		detect(f, names[i], DETECTOR_FIRING, false, f->now_s);
		answer_all();
	}
	assert_told(told_count - 1, 0, "firing", 2);
	assert_int_equal(json_array_size(json_object_get(told[told_count - 1].payload, "routes")),
	                 3);
	assert_non_null(
	    strstr(json_string_value(json_object_get(told[0].payload, "title")), "(deploy v42)"));
}

static void
test_text(void **state)
{
	struct fixture *f = *state;
	const char *text;

	frames[routes_index(f->service.routes, "GET /a")] = "app.db:fetch_user";
	detect(f, "GET /a", DETECTOR_FIRING, false, f->now_s);
	assert_int_equal(told_count, 0); /* the cause is waited for */
	answer_all();
	text = json_string_value(json_object_get(told[0].payload, "text"));
	assert_non_null(strstr(text, "82 % (71 to 93 %) of the 62.4 ms growth in mean time is "
	                             "awaiting app.db:fetch_user (database), 4.1 times per request "
	                             "instead of 1."));
	assert_non_null(strstr(text, "At most 1 such alert a month is expected to be false."));
}

/* The text of a rule's incident, for which the history answers this. */
static const char *
rule_text(struct fixture *f, const struct config_rule *rule, double value, unsigned burn_s,
          struct history_answer *answer)
{
	const struct rule_track track = {
	    .rule = rule, .since_s = f->now_s, .value = value, .burn_s = burn_s, .requests = 1234};

	incidents_ruled(f->service.incidents, routes_index(f->service.routes, "GET /a"), &track,
	                RULE_FIRED, f->now_s);
	assert_int_equal(asked_count, 1);
	asked_count = 0;
	asked[0].done(asked[0].arg, answer);
	return json_string_value(json_object_get(told[told_count - 1].payload, "text"));
}

static void
assert_says(const char *text, const char *what)
{
	if (strstr(text, what) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", what, text);
}

static void
test_texts_of_rules(void **state)
{
	static char slow_name[] = "slow", errors_name[] = "errors", burn_name[] = "orders";
	static const struct config_rule slow = {
	    .name = slow_name, .metric = CONFIG_METRIC_P95, .above_ms = 300, .for_s = 300};
	static const struct config_rule errors = {
	    .name = errors_name, .metric = CONFIG_METRIC_ERROR_RATIO, .above = 0.05, .for_s = 120};
	static const struct config_rule missing = {.name = errors_name,
	                                           .metric = CONFIG_METRIC_MISSING_PROFILES,
	                                           .above = 0.5,
	                                           .for_s = 60};
	static const struct config_rule burn = {.name = burn_name,
	                                        .metric = CONFIG_METRIC_BURN_RATE,
	                                        .objective = 0.999,
	                                        .above_ms = 1000};
	struct fixture *f = *state;
	struct history_answer *answer = answer_of("app.db:fetch_user");
	const char *text;

	/* From the first minute: nothing to compare with, and still where the time goes. */
	answer->cause->verdict = CAUSE_NOT_ENOUGH;
	answer->cause->before_compared = 0;
	answer->cause->after_ns = 412e6;
	text = rule_text(f, &slow, 0.12, 0, answer);
	assert_says(text, "p95 of GET /a above 300 ms for 5 min since ");
	assert_says(text, " UTC. 12 % of 1 234 requests took longer. There is nothing before it to "
	                  "compare with; of the 412 ms a request takes in the mean 82 % is "
	                  "awaiting app.db:fetch_user (database).");
	assert_null(strstr(text, "No cause"));
	/* Requests fail fast: nothing grew, and no share of less than nothing is told. */
	answer = answer_of("app.db:fetch_user");
	answer->cause->growth_ns = -30000000;
	text = rule_text(f, &errors, 0.07, 0, answer);
	assert_says(text, "7 % of GET /a fail (above 5 %) for 2 min since ");
	assert_says(text, " Seen on 1 234 requests. The mean time did not grow.");
	assert_null(strstr(text, " of the -30"));
	/* There is no time in profiles that are missing. */
	text = rule_text(f, &missing, 0.9, 0, answer_of("app.db:fetch_user"));
	assert_says(text, "90 % of GET /a have no profile (above 50 %) for 1 min since ");
	assert_null(strstr(text, "growth"));
	/* Whose loop was held, and by whom. */
	answer = answer_of("app.files:read");
	answer->cause->rows[0].kind = ROLLUP_PHASE;
	answer->cause->rows[0].kind_name = "phase";
	answer->cause->rows[0].cause_name = "app_queue";
	text = rule_text(f, &burn, 14.4, 3600, answer);
	assert_says(text, "GET /a burns its error budget 14.4 times too fast over 1 h since ");
	assert_says(text, "The objective is that 99.9 % succeed within 1000 ms; at this rate the "
	                  "budget of 30 days is spent in 2.08 days. Seen on 1 234 requests.");
	assert_says(text, "waiting for the app to take the request (app_queue) while its event "
	                  "loop was held by app.files:read");
}

static void
test_unknown_causes(void **state)
{
	struct fixture *f = *state;
	const char *text;
	json_t *cause;

	detect(f, "GET /a", DETECTOR_FIRING, false, f->now_s);
	answer_all();
	assert_told(0, 0, "firing", 1);
	cause = json_object_get(told[0].payload, "cause");
	assert_string_equal(json_string_value(json_object_get(cause, "verdict")),
	                    "not enough requests (7)");
	text = json_string_value(json_object_get(told[0].payload, "text"));
	/* Nothing is said of figures that are not known. */
	assert_says(text, "p95 of GET /a rose since ");
	assert_says(text, " UTC (± 20 s). At most 1 such alert a month is expected to be false. No "
	                  "cause can be named yet: of 90 requests since then and 7 before it is "
	                  "known where their time went, and it takes 30 of each.");
	/* Silence, then data again: the same incident goes on. */
	detect(f, "GET /a", DETECTOR_NO_DATA, false, f->now_s + 100);
	detect(f, "GET /a", DETECTOR_FIRING, false, f->now_s + 200);
	assert_int_equal(told_count, 1);
	/* Nothing could be asked at all. */
	detect(f, "GET /b", DETECTOR_FIRING, false, f->now_s);
	assert_int_equal(asked_count, 1);
	asked_count = 0;
	asked[0].done(asked[0].arg, NULL);
	assert_told(1, 1, "firing", 1);
	assert_says(json_string_value(json_object_get(told[1].payload, "text")),
	            " No cause can be named: the history could not be asked.");
}

static void
test_reopened(void **state)
{
	struct fixture *f = *state;

	frames[routes_index(f->service.routes, "GET /a")] = "app.db:fetch_user";
	detect(f, "GET /a", DETECTOR_FIRING, false, f->now_s);
	answer_all();
	detect(f, "GET /a", DETECTOR_RESOLVED, false, f->now_s + 400);
	assert_told(1, 0, "resolved", 2);
	detect(f, "GET /a", DETECTOR_FIRING, true, f->now_s + 800);
	answer_all();
	assert_told(2, 0, "firing", 3);
	/* Accepted by the user. */
	assert_int_equal(incidents_accept(f->service.incidents, told[0].id), 0);
	assert_told(3, 0, "accepted", 4);
	assert_int_equal(incidents_accept(f->service.incidents, told[0].id), -2);
	assert_int_equal(incidents_accept(f->service.incidents, "0123456789abcdef"), -1);
}

static void
test_restored(void **state)
{
	struct fixture *f = *state;
	json_t *before, *after;

	frames[routes_index(f->service.routes, "GET /a")] = "app.db:fetch_user";
	detect(f, "GET /a", DETECTOR_FIRING, false, f->now_s);
	answer_all();
	detect(f, "GET /a", DETECTOR_RESOLVED, false, f->now_s + 400);
	before = incidents_one(f->service.incidents, told[0].id);
	store_sync(f->service.store, 5000);
	incidents_free(f->service.incidents);
	f->service.incidents = incidents_new(&f->service, &sink);
	incidents_load(f->service.incidents, f->path);
	after = incidents_one(f->service.incidents, told[0].id);
	assert_true(json_equal(before, after));
	json_decref(before);
	json_decref(after);
	assert_int_equal(told_count, 2);
	/* One that goes on, but of which the detector knows nothing any more, is over. */
	detect(f, "GET /b", DETECTOR_FIRING, false, f->now_s);
	answer_all();
	store_sync(f->service.store, 5000);
	incidents_free(f->service.incidents);
	f->service.incidents = incidents_new(&f->service, &sink);
	incidents_load(f->service.incidents, f->path);
	assert_told(told_count - 1, 2, "resolved", 2);
}

static void
test_the_table_at_its_bound(void **state)
{
	struct fixture *f = *state;
	json_t *list;
	char first[INCIDENT_ID_SIZE];

	for (unsigned i = 0; i <= INCIDENTS_MAX; i++) {
		detect(f, "GET /a", DETECTOR_FIRING, false, f->now_s + (int64_t)i * 4000);
		answer_all();
		detect(f, "GET /a", DETECTOR_RESOLVED, false, f->now_s + (int64_t)i * 4000 + 400);
		if (i == 0)
			memcpy(first, told[0].id, sizeof(first));
		while (told_count > 0)
			json_decref(told[--told_count].payload);
	}
	list = incidents_list(f->service.incidents, INCIDENT_STATUSES, NULL, 1000);
	assert_int_equal(json_array_size(json_object_get(list, "incidents")), INCIDENTS_MAX);
	json_decref(list);
	assert_null(incidents_one(f->service.incidents, first)); /* the oldest went */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_three_routes_are_one, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_other_causes_stay_apart, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_one_deploy_groups, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_text, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_texts_of_rules, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_unknown_causes, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_reopened, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_windows_of_many_turns, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_restored, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_the_table_at_its_bound, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
