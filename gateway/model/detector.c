/* The table of detectors and the budget they share. */
#include "model/detector.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "base/xmem.h"

#define MONTH_S 2592000.0

struct entry {
	struct detector_route route;
	UT_hash_handle hh; /* by route.name */
};

struct detector {
	struct detector_params params;
	struct detector_frame frame;
	struct entry *by_name;
	struct entry *entries[DETECTOR_ROUTES_MAX];
	size_t count;
	int64_t hour, block; /* of the last tick and the last check; -1 before */
	char deploy[DETECTOR_DEPLOY_MAX + 1];
};

void
detector_params_default(struct detector_params *ret)
{
	*ret = (struct detector_params){.window_s = 10,
	                                .min_duration_s = 130,
	                                .reference_s = 3600,
	                                .reference_gap_s = 600,
	                                .false_alarm_budget = 1,
	                                .min_effect = 0.10,
	                                .min_effect_ms = 5};
}

void
detector_params_configured(struct detector_params *ret, const struct config_alerts *alerts)
{
	*ret = (struct detector_params){.window_s = alerts->window_ms / 1000.0,
	                                .min_duration_s = alerts->min_duration_s,
	                                .reference_s = alerts->reference_s,
	                                .reference_gap_s = alerts->reference_gap_s,
	                                .false_alarm_budget = alerts->false_alarm_budget,
	                                .min_effect = alerts->min_effect,
	                                .min_effect_ms = alerts->min_effect_ms};
}

/* A reference needs whole blocks, so none is longer than a short reference or its gap. */
static int64_t
detector_block_s(const struct detector_params *params)
{
	int64_t block_s = DETECTOR_BLOCK_S;

	if (params->reference_s < block_s)
		block_s = params->reference_s;
	return params->reference_gap_s < block_s ? params->reference_gap_s : block_s;
}

struct detector *
detector_new(const struct detector_params *params,
             void (*on_event)(void *arg, const struct detector_event *event), void *arg)
{
	struct detector *detector = xcalloc(1, sizeof(*detector));

	assert(params->window_s > 0 && params->min_duration_s > 0 &&
	       params->false_alarm_budget > 0);
	assert(params->reference_gap_s > 0 && params->reference_s > 0 && params->min_effect >= 0);
	detector->params = *params;
	detector->frame.params = &detector->params;
	detector->frame.deploy = detector->deploy;
	detector->frame.on_event = on_event;
	detector->frame.arg = arg;
	detector->hour = -1;
	detector->block = -1;
	return detector;
}

void
detector_free(struct detector *detector)
{
	if (detector == NULL)
		return;
	HASH_CLEAR(hh, detector->by_name);
	for (size_t i = 0; i < detector->count; i++) {
		detector_route_clear(&detector->entries[i]->route);
		free(detector->entries[i]);
	}
	free(detector);
}

struct detector_route *
detector_route_at(struct detector *detector, const char *name)
{
	struct entry *entry;

	HASH_FIND_STR(detector->by_name, name, entry);
	if (entry != NULL)
		return &entry->route;
	if (detector->count == DETECTOR_ROUTES_MAX)
		return NULL;
	entry = xcalloc(1, sizeof(*entry));
	detector_route_init(&entry->route, name, detector->count,
	                    detector_block_s(&detector->params));
	HASH_ADD_KEYPTR(hh, detector->by_name, entry->route.name, strlen(entry->route.name), entry);
	detector->entries[detector->count++] = entry;
	return &entry->route;
}

/* The threshold is read again every hour: with more routes compared, each may err less often. */
static void
read_threshold(struct detector *detector, int64_t t_s)
{
	const struct detector_params *params = &detector->params;
	unsigned compared = 0;

	if (t_s / DETECTOR_HOUR_S == detector->hour)
		return;
	detector->hour = t_s / DETECTOR_HOUR_S;
	for (size_t i = 0; i < detector->count; i++)
		compared += detector->entries[i]->route.compared;
	if (params->routes > 0)
		compared = params->routes;
	detector->frame.routes = compared > 0 ? compared : 1;
	detector->frame.threshold_nats =
	    log(MONTH_S * detector->frame.routes / (params->false_alarm_budget * params->window_s));
}

unsigned
detector_tick(struct detector *detector, struct detector_route *route, int64_t t_s,
              const struct detector_cell *cells, size_t count)
{
	assert(t_s >= 0 && t_s > route->last_s);
	detector_advance(detector, t_s);
	read_threshold(detector, t_s);
	return detector_route_tick(route, &detector->frame, t_s, cells, count);
}

void
detector_advance(struct detector *detector, int64_t t_s)
{
	if (t_s / DETECTOR_BLOCK_S == detector->block)
		return;
	detector->block = t_s / DETECTOR_BLOCK_S;
	for (size_t i = 0; i < detector->count; i++)
		detector_route_check(&detector->entries[i]->route, &detector->frame, t_s);
}

void
detector_name_deploy(struct detector *detector, const char *version)
{
	size_t length = strnlen(version, DETECTOR_DEPLOY_MAX);

	memcpy(detector->deploy, version, length);
	detector->deploy[length] = '\0';
}

void
detector_mark(struct detector *detector, int64_t t_s, const char *version)
{
	detector_name_deploy(detector, version);
	for (size_t i = 0; i < detector->count; i++)
		detector_route_mark(&detector->entries[i]->route, t_s);
}

void
detector_accept(struct detector *detector, struct detector_route *route, int64_t t_s)
{
	detector_route_accept(route, &detector->frame, t_s);
}

void
detector_shift_hours(struct detector *detector, int hours)
{
	detector->frame.hour_shift = hours;
}

size_t
detector_count(const struct detector *detector)
{
	return detector->count;
}

struct detector_route *
detector_route_by_index(struct detector *detector, size_t index)
{
	return index < detector->count ? &detector->entries[index]->route : NULL;
}

const struct detector_params *
detector_params(const struct detector *detector)
{
	return &detector->params;
}

double
detector_threshold(const struct detector *detector)
{
	return detector->frame.threshold_nats;
}

unsigned
detector_compared(const struct detector *detector)
{
	return detector->frame.routes;
}

double
detector_baseline(const struct detector *detector, const struct detector_route *route, int64_t t_s,
                  double ret[DETECTOR_BUCKETS])
{
	return detector_route_baseline(route, &detector->frame, t_s, ret);
}
