/* What watch.c and watch_keep.c share: nobody else's. */
#ifndef TAILRACE_COLLECTOR_WATCH_INSIDE_H
#define TAILRACE_COLLECTOR_WATCH_INSIDE_H

#include "collector/watch.h"
#include "model/detector_clock.h"
#include "model/ticks.h"

#define WATCH_INSTANCES_MAX 256 /* hook instances that are no news */
#define WATCH_VERSIONS_MAX 16   /* versions of the app that are remembered as running */

struct watch_route {
	size_t index;                    /* in the collector's table of routes */
	struct detector_route *detector; /* null = no room for it */
	struct recent recent;
	struct rule_track *tracks; /* owned */
	size_t track_count;
	bool tracks_missing;             /* no room for its rules */
	bool dirty, urgent;              /* has changed; is to be kept at once */
	int64_t saved_block, saved_hour; /* of the history, as kept; -1 = not */
	int64_t saved_renew_s;           /* of the trailing reference */
};

struct watch {
	const struct config *config;
	struct routes *names;
	struct store *store;
	struct watch_events events;
	struct detector *detector;
	struct ticks *ticks; /* null before the first tick or exchange */
	struct detector_clock clock;
	int64_t boot_ahead_ns; /* CLOCK_BOOTTIME - CLOCK_MONOTONIC */
	int64_t now_s, judged_s, window_s;
	int64_t until_s; /* windows that end before are to be taken */
	struct watch_route *routes[ROUTES_MAX + 1];
	size_t route_of[DETECTOR_ROUTES_MAX]; /* by the detector's index */
	size_t track_count;
	struct watch_deploy deploys[WATCH_DEPLOYS_MAX];
	size_t deploy_count;
	char version[WATCH_VERSION_MAX + 1]; /* of the app, as last known */
	char told[WATCH_VERSION_MAX + 1]; /* as a new instance told last: a marker may say more */
	struct {
		int64_t at_s;
		char version[WATCH_VERSION_MAX + 1];
	} heard[WATCH_VERSIONS_MAX];
	uint8_t instances[WATCH_INSTANCES_MAX][PROFILE_INSTANCE_SIZE]; /* a ring */
	size_t instance_next;
	struct watch_stats stats;
	int64_t round_s;   /* when the last round of keeping began */
	size_t round_next; /* next route of that round */
};

/* What watch_now_s() tells from here on. */
void watch_read_time(struct watch *watch);
struct watch_route *watch_route_make(struct watch *watch, size_t index);
void watch_remember_deploy(struct watch *watch, const char *version, int64_t at_s);

/* Writes what is urgent, and a part of what else changed, so that all of it is written once a
 * minute. */
void watch_keep_some(struct watch *watch);
void watch_keep_all(struct watch *watch);
void watch_keep_deploy(struct watch *watch, const char *version, int64_t at_s);
void watch_keep_version(struct watch *watch);

#endif
