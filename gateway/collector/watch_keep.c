/* The watch's state into the store and back. A route's parts are written together, so that they are
 * of one moment. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "collector/store.h"
#include "collector/store_notes.h"
#include "collector/watch_inside.h"
#include "model/detector_save.h"

#define ROUND_S 60
#define ROUND_ROUTES 25      /* that are written in one tick */
#define URGENT_ROUTES 50     /* that are, because their state changed */
#define SYNC_ROUTES 50       /* at the end: written before more are handed on */
#define SYNC_TIMEOUT_MS 2000 /* the end waits no longer for a slow disk */

#define FACT_CLOCK "detector_clock"
#define FACT_VERSION "app_version"
#define FACT_TOLD "app_version_told"

static void
put(struct watch *watch, enum store_note_kind kind, const char *key, int64_t number, void *bytes,
    size_t size)
{
	struct store_note note = {
	    .kind = kind, .key = xstrdup(key), .number = number, .bytes = bytes, .size = size};
	store_put_note(watch->store, &note);
}

static void
put_text(struct watch *watch, const char *fact, const char *text)
{
	put(watch, STORE_NOTE_FACT, fact, 0, xstrdup(text), strlen(text));
}

static void
keep_clock(struct watch *watch)
{
	char text[64];
	snprintf(text, sizeof(text), "%" PRId64 " %" PRId64, watch->now_s, watch->clock.step_s);
	put_text(watch, FACT_CLOCK, text);
}

void
watch_keep_version(struct watch *watch)
{
	put_text(watch, FACT_VERSION, watch->version);
	put_text(watch, FACT_TOLD, watch->told);
}

void
watch_keep_deploy(struct watch *watch, const char *version, int64_t at_s)
{
	put(watch, STORE_NOTE_DEPLOY, version, at_s, NULL, 0);
	watch_keep_version(watch);
}

static void
keep_part(struct watch *watch, const struct watch_route *route, enum detector_part part)
{
	struct detector_bytes bytes = detector_route_save(route->detector, part);
	put(watch, STORE_NOTE_DETECTOR, route->detector->name, part, bytes.at, bytes.size);
}

/* The chunks that got blocks since the last time, or since the route began to learn. */
static void
keep_blocks(struct watch *watch, const struct watch_route *route)
{
	int64_t last = route->detector->history.block / DETECTOR_CHUNK_BLOCKS;
	int64_t begun = route->detector->first_s / route->detector->block_s;
	int64_t first =
	    (route->saved_block < begun ? begun : route->saved_block) / DETECTOR_CHUNK_BLOCKS;
	if (last - first >= DETECTOR_PART_CHUNKS)
		first = last - DETECTOR_PART_CHUNKS + 1;
	for (int64_t chunk = first; chunk <= last; chunk++)
		keep_part(watch, route, detector_part_of(chunk * DETECTOR_CHUNK_BLOCKS));
}

static void
keep_route(struct watch *watch, struct watch_route *route)
{
	const struct detector_history *history = &route->detector->history;
	bool renewed = route->saved_renew_s != route->detector->renew_s;
	if (history->block != route->saved_block)
		keep_blocks(watch, route);
	if (history->hour != route->saved_hour || renewed)
		keep_part(watch, route, DETECTOR_PART_HOURS);
	keep_part(watch, route, DETECTOR_PART_TICKS);
	route->saved_block = history->block;
	route->saved_hour = history->hour;
	route->saved_renew_s = route->detector->renew_s;
	route->dirty = route->urgent = false;
}

static bool
is_due(const struct watch_route *route)
{
	return route != NULL && route->detector != NULL && route->detector->last_s >= 0 &&
	       (route->dirty || route->urgent);
}

void
watch_keep_some(struct watch *watch)
{
	size_t written = 0, urgent = 0;
	for (size_t i = 0; i <= ROUTES_MAX && urgent < URGENT_ROUTES; i++) {
		if (!is_due(watch->routes[i]) || !watch->routes[i]->urgent)
			continue;
		keep_route(watch, watch->routes[i]);
		urgent++;
	}
	if (watch->round_next > ROUTES_MAX) {
		if (watch->now_s - watch->round_s < ROUND_S)
			return;
		watch->round_s = watch->now_s;
		watch->round_next = 0;
		keep_clock(watch);
	}
	for (; watch->round_next <= ROUTES_MAX && written < ROUND_ROUTES; watch->round_next++) {
		struct watch_route *route = watch->routes[watch->round_next];
		if (!is_due(route))
			continue;
		keep_route(watch, route);
		written++;
	}
}

void
watch_keep_all(struct watch *watch)
{
	size_t written = 0;
	keep_clock(watch);
	for (size_t i = 0; i <= ROUTES_MAX; i++) {
		if (!is_due(watch->routes[i]))
			continue;
		keep_route(watch, watch->routes[i]);
		if (++written % SYNC_ROUTES == 0)
			store_sync(watch->store, SYNC_TIMEOUT_MS);
	}
}

/* --- back -------------------------------------------------------------------------------- */

struct loading {
	struct watch *watch;
	char *name; /* owned: of the route whose parts are collected; null = none */
	struct detector_bytes parts[DETECTOR_PARTS];
	size_t restored, damaged;
};

static void
load_route(struct loading *loading)
{
	struct watch *watch = loading->watch;
	if (loading->name == NULL)
		return;
	size_t index = routes_index(watch->names, loading->name);
	if (strcmp(routes_name(watch->names, index), loading->name) == 0) {
		struct watch_route *route = watch_route_make(watch, index);
		bool good = route->detector != NULL &&
		            detector_route_restore(route->detector, loading->parts) == 0;
		loading->restored += good;
		loading->damaged += !good;
		if (good) {
			route->saved_block = route->detector->history.block;
			route->saved_hour = route->detector->history.hour;
			route->saved_renew_s = route->detector->renew_s;
		}
	}
	for (size_t i = 0; i < DETECTOR_PARTS; i++)
		free(loading->parts[i].at);
	memset(loading->parts, 0, sizeof(loading->parts));
	free(loading->name);
	loading->name = NULL;
}

static void
on_part(void *arg, const struct store_note *note)
{
	struct loading *loading = arg;
	if (loading->name == NULL || strcmp(loading->name, note->key) != 0) {
		load_route(loading);
		loading->name = xstrdup(note->key);
	}
	if (note->number < 0 || note->number >= DETECTOR_PARTS)
		return;
	struct detector_bytes *part = &loading->parts[note->number];
	free(part->at);
	part->size = note->size;
	part->at = xcalloc(1, note->size + 1);
	memcpy(part->at, note->bytes, note->size);
}

static void
on_fact(void *arg, const struct store_note *note)
{
	struct watch *watch = arg;
	int64_t detector_s, step_s;
	if (strcmp(note->key, FACT_VERSION) == 0)
		strncpy(watch->version, note->bytes, WATCH_VERSION_MAX);
	else if (strcmp(note->key, FACT_TOLD) == 0)
		strncpy(watch->told, note->bytes, WATCH_VERSION_MAX);
	else if (strcmp(note->key, FACT_CLOCK) == 0 &&
	         sscanf(note->bytes, "%" SCNd64 " %" SCNd64, &detector_s, &step_s) == 2)
		detector_clock_resume(&watch->clock, detector_s, step_s,
		                      (int64_t)(clock_boot_ns() / NS_PER_S),
		                      (int64_t)(clock_wall_ns() / NS_PER_S));
}

static void
on_deploy(void *arg, const struct store_note *note)
{
	watch_remember_deploy(arg, note->key, note->number);
}

void
watch_load(struct watch *watch, const char *path)
{
	struct loading loading = {.watch = watch};
	store_notes_load(path, STORE_NOTE_FACT, on_fact, watch);
	store_notes_load(path, STORE_NOTE_DEPLOY, on_deploy, watch);
	store_notes_load(path, STORE_NOTE_DETECTOR, on_part, &loading);
	load_route(&loading);
	/* Incidents that nobody goes on with end now. */
	watch_read_time(watch);
	if (watch->deploy_count > 0)
		detector_name_deploy(watch->detector,
		                     watch->deploys[watch->deploy_count - 1].version);
	if (loading.restored > 0)
		log_info("detector: %zu routes go on where they were", loading.restored);
	if (loading.damaged > 0)
		log_warn("detector: the state of %zu routes cannot be used: they learn anew",
		         loading.damaged);
}
