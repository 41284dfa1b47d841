/* Windows to ticks, rules and events. Keeping state: watch_keep.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "collector/store.h"
#include "collector/watch_inside.h"
#include "model/watched.h"

#define LATE_SLACK_MS 1000 /* an exchange given up at its timeout is read a little later */
#define VERSION_QUIET_S 60 /* a version heard of later than that is still running */

/* --- time -------------------------------------------------------------------------------- */

void
watch_read_time(struct watch *watch)
{
	uint64_t boot_ns = clock_boot_ns();
	watch->boot_ahead_ns = (int64_t)(boot_ns - clock_now_ns());
	watch->now_s = detector_clock_read(&watch->clock, (int64_t)(boot_ns / NS_PER_S),
	                                   (int64_t)(clock_wall_ns() / NS_PER_S));
	detector_shift_hours(watch->detector, detector_clock_shift_hours(&watch->clock));
}

int64_t
watch_now_s(const struct watch *watch)
{
	return watch->now_s;
}

int64_t
watch_wall_s(const struct watch *watch, int64_t t_s)
{
	int64_t step_s = (int64_t)(clock_wall_ns() / NS_PER_S) -
	                 (int64_t)(clock_boot_ns() / NS_PER_S) - watch->clock.ahead_s;
	/* The two seconds begin at different moments. */
	return step_s >= -1 && step_s <= 1 ? t_s : t_s + step_s;
}

/* Number of the window in which CLOCK_MONOTONIC was `ns`. */
static int64_t
window_of(const struct watch *watch, uint64_t ns)
{
	int64_t boot_s = ((int64_t)ns + watch->boot_ahead_ns) / (int64_t)NS_PER_S;
	return (boot_s + watch->clock.ahead_s) / watch->window_s;
}

/* --- life -------------------------------------------------------------------------------- */

static void
on_event(void *arg, const struct detector_event *event)
{
	struct watch *watch = arg;
	size_t route = watch->route_of[event->route->index];
	if (route > ROUTES_MAX)
		return;
	watch->routes[route]->urgent = true;
	if (watch->events.detected != NULL)
		watch->events.detected(watch->events.arg, route, event);
}

struct watch *
watch_new(const struct config *config, struct routes *routes, struct store *store,
          const struct watch_events *events)
{
	struct watch *watch = xcalloc(1, sizeof(*watch));
	struct detector_params params;
	detector_params_configured(&params, &config->alerts);
	watch->config = config;
	watch->names = routes;
	watch->store = store;
	watch->events = *events;
	watch->window_s = config->alerts.window_ms / 1000;
	watch->detector = detector_new(&params, on_event, watch);
	for (size_t i = 0; i < DETECTOR_ROUTES_MAX; i++)
		watch->route_of[i] = SIZE_MAX;
	return watch;
}

void
watch_free(struct watch *watch)
{
	if (watch == NULL)
		return;
	for (size_t i = 0; i <= ROUTES_MAX; i++) {
		struct watch_route *route = watch->routes[i];
		if (route == NULL)
			continue;
		for (size_t t = 0; t < route->track_count; t++)
			rule_track_clear(&route->tracks[t]);
		free(route->tracks);
		recent_clear(&route->recent);
		free(route);
	}
	ticks_free(watch->ticks);
	detector_free(watch->detector);
	free(watch);
}

/* --- routes ------------------------------------------------------------------------------ */

static void
make_tracks(struct watch *watch, struct watch_route *route, const char *name)
{
	const struct config_alerts *alerts = &watch->config->alerts;
	route->tracks = xcalloc(alerts->rule_count + 1, sizeof(*route->tracks));
	for (size_t i = 0; i < alerts->rule_count; i++) {
		if (!rule_is_about(&alerts->rules[i], name))
			continue;
		if (watch->track_count == WATCH_TRACKS_MAX) {
			route->tracks_missing = true;
			continue;
		}
		watch->track_count++;
		rule_track_init(&route->tracks[route->track_count++], &alerts->rules[i],
		                watch->window_s);
	}
}

struct watch_route *
watch_route_make(struct watch *watch, size_t index)
{
	struct watch_route *route = watch->routes[index];
	if (route != NULL)
		return route;
	const char *name = routes_name(watch->names, index);
	watch->routes[index] = route = xcalloc(1, sizeof(*route));
	route->index = index;
	route->saved_block = route->saved_hour = -1;
	recent_init(&route->recent);
	route->detector = detector_route_at(watch->detector, name);
	if (route->detector != NULL)
		watch->route_of[route->detector->index] = index;
	make_tracks(watch, route, name);
	return route;
}

const struct detector_route *
watch_route(const struct watch *watch, size_t route)
{
	return watch->routes[route] != NULL ? watch->routes[route]->detector : NULL;
}

const struct detector *
watch_detector(const struct watch *watch)
{
	return watch->detector;
}

bool
watch_resume_rule(struct watch *watch, size_t index, const struct config_rule *rule)
{
	struct watch_route *route = watch_route_make(watch, index);
	for (size_t i = 0; i < route->track_count; i++) {
		if (route->tracks[i].rule != rule)
			continue;
		route->tracks[i].firing = true;
		return true;
	}
	return false;
}

/* --- exchanges and windows --------------------------------------------------------------- */

static struct ticks *
ticks_made(const struct watch *watch)
{
	uint64_t wait_ms = watch->config->profile.join_timeout_ms + LATE_SLACK_MS;
	size_t open = (size_t)(wait_ms / watch->config->alerts.window_ms) + 4;
	int64_t first = (watch->now_s - (int64_t)(wait_ms / 1000)) / watch->window_s;
	return ticks_new(open < TICKS_OPEN_MAX ? open : TICKS_OPEN_MAX, first > 0 ? first : 0);
}

static bool
has_alerts(const struct config *config, const struct exchange_record *record)
{
	return config == NULL || record->route >= config->route_count ||
	       config->routes[record->route].alerts;
}

void
watch_add(struct watch *watch, const struct config *config, size_t route,
          const struct exchange_record *record, bool joined)
{
	if (!has_alerts(config, record))
		return;
	if (watch->ticks == NULL) {
		watch_read_time(watch);
		watch->ticks = ticks_made(watch);
	}
	struct ticks_event event = {
	    .route = route,
	    .watched = watched_counts(record),
	    .error = record_is_error(record),
	    .sent = record_was_sent(record),
	    .joined = joined,
	    .latency_ns = watched_ns(record, watch->config->alerts.latency),
	};
	int64_t number = window_of(watch, record->marks_ns[MARK_END]);
	if (number < 0 || !ticks_add(watch->ticks, number, &event))
		watch->stats.late++;
}

static void
judge_rules(struct watch *watch, struct watch_route *route, int64_t t_s)
{
	for (size_t i = 0; i < route->track_count; i++) {
		struct rule_track *track = &route->tracks[i];
		enum rule_change change = rule_track_judge(track, t_s);
		if (change != RULE_SAME && watch->events.ruled != NULL)
			watch->events.ruled(watch->events.arg, route->index, track, change, t_s);
	}
}

/* Returns what it cost, in DETECTOR_WORK_TICK. */
static unsigned
take_row(struct watch *watch, const struct ticks_row *row)
{
	struct watch_route *route = watch_route_make(watch, row->route);
	int64_t t_s = row->number * watch->window_s;
	judge_rules(watch, route, t_s);
	for (size_t i = 0; i < route->track_count; i++)
		rule_track_add(&route->tracks[i], t_s, row);
	watch->stats.tracks_overflow += route->tracks_missing;
	if (row->cell_count == 0)
		return DETECTOR_WORK_TICK;
	recent_put(&route->recent, row->number, row->cells, row->cell_count);
	if (route->detector == NULL || t_s <= route->detector->last_s)
		return DETECTOR_WORK_TICK;
	route->dirty = true;
	return detector_tick(watch->detector, route->detector, t_s, row->cells, row->cell_count);
}

/* Windows that end before `until_s`, until about `work_max` is done. Returns whether there may be
 * more. */
static bool
take_some(struct watch *watch, unsigned work_max)
{
	struct ticks_row row;
	int64_t end_s = watch->until_s;
	unsigned work = 0;
	while (ticks_take(watch->ticks, end_s / watch->window_s, &row)) {
		work += take_row(watch, &row);
		if (work >= work_max)
			return true;
	}
	if (end_s <= watch->judged_s)
		return false;
	watch->judged_s = end_s;
	detector_advance(watch->detector, end_s);
	for (size_t i = 0; i <= ROUTES_MAX; i++)
		if (watch->routes[i] != NULL)
			judge_rules(watch, watch->routes[i], end_s);
	return false;
}

bool
watch_go_on(struct watch *watch)
{
	return watch->ticks != NULL && watch->until_s > watch->judged_s &&
	       take_some(watch, WATCH_TURN_WORK);
}

void
watch_tick(struct watch *watch)
{
	uint64_t wait_ms = watch->config->profile.join_timeout_ms + LATE_SLACK_MS;
	watch_read_time(watch);
	if (watch->ticks == NULL)
		watch->ticks = ticks_made(watch);
	watch->until_s = watch->now_s - (int64_t)((wait_ms + 999) / 1000);
	watch_go_on(watch);
	watch_keep_some(watch);
}

void
watch_finish(struct watch *watch)
{
	watch_read_time(watch);
	if (watch->ticks != NULL)
		watch->until_s = watch->now_s + 2 * watch->window_s;
	while (watch_go_on(watch))
		;
	watch_keep_all(watch);
}

void
watch_accept(struct watch *watch, size_t index)
{
	struct watch_route *route = watch->routes[index];
	if (route == NULL || route->detector == NULL)
		return;
	int64_t t_s =
	    watch->judged_s > route->detector->last_s ? watch->judged_s : route->detector->last_s;
	detector_accept(watch->detector, route->detector, t_s);
	route->dirty = route->urgent = true;
	route->saved_block = route->saved_hour = -1;
}

/* --- deploys ----------------------------------------------------------------------------- */

void
watch_remember_deploy(struct watch *watch, const char *version, int64_t at_s)
{
	if (watch->deploy_count == WATCH_DEPLOYS_MAX) {
		memmove(watch->deploys, watch->deploys + 1,
		        (WATCH_DEPLOYS_MAX - 1) * sizeof(watch->deploys[0]));
		watch->deploy_count--;
	}
	size_t i = watch->deploy_count++;
	for (; i > 0 && watch->deploys[i - 1].at_s > at_s; i--)
		watch->deploys[i] = watch->deploys[i - 1];
	watch->deploys[i] = (struct watch_deploy){.at_s = at_s};
	snprintf(watch->deploys[i].version, sizeof(watch->deploys[i].version), "%s", version);
}

bool
watch_deploy(struct watch *watch, const char *version, int64_t at_s)
{
	for (size_t i = 0; i < watch->deploy_count; i++)
		if (watch->deploys[i].at_s == at_s &&
		    strcmp(watch->deploys[i].version, version) == 0)
			return false;
	watch_remember_deploy(watch, version, at_s);
	snprintf(watch->version, sizeof(watch->version), "%s", version);
	watch_keep_deploy(watch, version, at_s);
	/* A twin begins with the next window that is judged: none of it is older than the mark. */
	detector_mark(watch->detector, at_s > watch->until_s ? at_s : watch->until_s, version);
	for (size_t i = 0; i <= ROUTES_MAX; i++)
		if (watch->routes[i] != NULL)
			watch->routes[i]->dirty = true;
	log_info("deploy of %s", version);
	return true;
}

/* Returns whether the instance is new. */
static bool
is_new(struct watch *watch, const uint8_t instance[PROFILE_INSTANCE_SIZE])
{
	for (size_t i = 0; i < WATCH_INSTANCES_MAX; i++)
		if (memcmp(watch->instances[i], instance, PROFILE_INSTANCE_SIZE) == 0)
			return false;
	memcpy(watch->instances[watch->instance_next], instance, PROFILE_INSTANCE_SIZE);
	watch->instance_next = (watch->instance_next + 1) % WATCH_INSTANCES_MAX;
	return true;
}

/* Notes that somebody of that version lives. Returns whether one was heard of a moment ago. */
static bool
hear_of(struct watch *watch, const char *version)
{
	size_t slot = WATCH_VERSIONS_MAX, oldest = 0;
	for (size_t i = 0; i < WATCH_VERSIONS_MAX; i++) {
		if (strcmp(watch->heard[i].version, version) == 0)
			slot = i;
		if (watch->heard[i].at_s < watch->heard[oldest].at_s)
			oldest = i;
	}
	bool running =
	    slot < WATCH_VERSIONS_MAX && watch->now_s - watch->heard[slot].at_s <= VERSION_QUIET_S;
	if (slot == WATCH_VERSIONS_MAX)
		slot = oldest;
	watch->heard[slot].at_s = watch->now_s;
	snprintf(watch->heard[slot].version, sizeof(watch->heard[slot].version), "%s", version);
	return running;
}

void
watch_told_version(struct watch *watch, const uint8_t instance[PROFILE_INSTANCE_SIZE],
                   const char *version)
{
	bool running = hear_of(watch, version), fresh = is_new(watch, instance);
	if (!fresh || running || strcmp(watch->told, version) == 0)
		return;
	snprintf(watch->told, sizeof(watch->told), "%s", version);
	if (watch->version[0] != '\0' && strcmp(watch->version, version) != 0) {
		watch_deploy(watch, version, watch->now_s);
		return;
	}
	/* The marker's, or the first one ever heard of: nobody deployed it now. */
	snprintf(watch->version, sizeof(watch->version), "%s", version);
	watch_keep_version(watch);
}

const struct watch_deploy *
watch_deploys(const struct watch *watch, size_t *ret_count)
{
	*ret_count = watch->deploy_count;
	return watch->deploys;
}

const struct watch_deploy *
watch_deploy_near(const struct watch *watch, int64_t t_s, int64_t before_s, int64_t after_s)
{
	for (size_t i = watch->deploy_count; i > 0; i--) {
		const struct watch_deploy *deploy = &watch->deploys[i - 1];
		if (deploy->at_s >= t_s - before_s && deploy->at_s <= t_s + after_s)
			return deploy;
	}
	return NULL;
}

/* --- questions --------------------------------------------------------------------------- */

uint64_t
watch_since(const struct watch *watch, size_t route, int64_t t_s, uint64_t counts[DETECTOR_BUCKETS])
{
	if (watch->routes[route] == NULL)
		return 0;
	return recent_sum(&watch->routes[route]->recent, t_s / watch->window_s, INT64_MAX, counts);
}

void
watch_stats(const struct watch *watch, struct watch_stats *ret)
{
	*ret = watch->stats;
}
