/* The detector and the rules at work: exchanges into windows, windows into ticks, changes of state
 * to whoever makes incidents of them; the detector's state into the store. Ticks run on
 * CLOCK_BOOTTIME (model/detector_clock.h). A window is final at its end + join_timeout_ms, for until
 * then a late profile may still name a route. One thread. */
#ifndef TAILRACE_COLLECTOR_WATCH_H
#define TAILRACE_COLLECTOR_WATCH_H

#include <stdbool.h>
#include "base/config.h"
#include "model/detector.h"
#include "model/profile.h"
#include "model/recent.h"
#include "model/record.h"
#include "model/route.h"
#include "model/rule.h"

#define WATCH_TRACKS_MAX 8192 /* of rules, over all routes */
#define WATCH_DEPLOYS_MAX 256 /* the newest, in memory */
#define WATCH_VERSION_MAX DETECTOR_DEPLOY_MAX

struct store;
struct watch;

struct watch_events {
	void *arg;
	/* The detector says something of a route. */
	void (*detected)(void *arg, size_t route, const struct detector_event *event);
	/* A rule fired for a route, or that is over. */
	void (*ruled)(void *arg, size_t route, const struct rule_track *track,
	              enum rule_change change, int64_t t_s);
};

struct watch_deploy {
	int64_t at_s; /* detector time */
	char version[WATCH_VERSION_MAX + 1];
};

#define WATCH_TURN_WORK 2000 /* of a turn of the loop, in DETECTOR_WORK_TICK: about 10 ms */

struct watch_stats {
	uint64_t late;            /* exchanges that came after their window was final */
	uint64_t tracks_overflow; /* windows of routes for whose rules there was no room */
};

/* All borrowed for the watch's life. Owned. */
struct watch *watch_new(const struct config *config, struct routes *routes, struct store *store,
                        const struct watch_events *events);
void watch_free(struct watch *watch); /* null-safe */

/* Before the first exchange: what the store's file holds of an earlier life. */
void watch_load(struct watch *watch, const char *path);

/* An exchange that is joined or given up; `config` is the one its record belongs to, or null. Cheap:
 * about 150 ns with 500 routes. */
void watch_add(struct watch *watch, const struct config *config, size_t route,
               const struct exchange_record *record, bool joined);

/* About once a second: final windows are judged, and what changed is kept. */
void watch_tick(struct watch *watch);
/* Judges more of them, WATCH_TURN_WORK at most, in order of time. Returns whether there may be more
 * yet: at an hour's end there is, for all routes compute their baselines. */
bool watch_go_on(struct watch *watch);

/* The end: all windows are final, all state is kept. */
void watch_finish(struct watch *watch);

/* A deploy at `at_s` (detector time). Returns false where it is the one known already. */
bool watch_deploy(struct watch *watch, const char *version, int64_t at_s);

/* A hook instance says that its app is `version`. A deploy where the instance is new, the version is
 * neither the one known nor what was told last (a marker may have named another since, and after our
 * restart every instance is new), and nobody of that version was heard of in the last minute: then
 * two run side by side while one takes the other's place. */
void watch_told_version(struct watch *watch, const uint8_t instance[PROFILE_INSTANCE_SIZE],
                        const char *version);

/* After a restart: the rule's incident on that route goes on until the rule says it is over.
 * Returns false where the rule is not about that route. */
bool watch_resume_rule(struct watch *watch, size_t route, const struct config_rule *rule);

/* Deploys, oldest first. Borrowed until the next deploy. */
const struct watch_deploy *watch_deploys(const struct watch *watch, size_t *ret_count);

/* The newest deploy at most `before_s` before `t_s` and `after_s` after it; null without. */
const struct watch_deploy *watch_deploy_near(const struct watch *watch, int64_t t_s,
                                             int64_t before_s, int64_t after_s);

/* The user accepts the route's level. */
void watch_accept(struct watch *watch, size_t route);

/* Detector time: now, and as unix time of the wall clock. */
int64_t watch_now_s(const struct watch *watch);
int64_t watch_wall_s(const struct watch *watch, int64_t t_s);

const struct detector *watch_detector(const struct watch *watch);
/* Null where the route has had no request. */
const struct detector_route *watch_route(const struct watch *watch, size_t route);

/* Requests from t_s on as counts per bucket, as far back as they are kept. Returns their number. */
uint64_t watch_since(const struct watch *watch, size_t route, int64_t t_s,
                     uint64_t counts[DETECTOR_BUCKETS]);

void watch_stats(const struct watch *watch, struct watch_stats *ret);

#endif
