/* Sums over exchanges: minutes for the store, histograms for /metrics. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/aggregate.h"
#include "collector/metrics_text.h"
#include "collector/store.h"
#include "model/histogram.h"
#include "model/join.h"

#define CODES 1000
#define CLASS 100 /* codes of a class: a route rarely has more than two classes */

static const struct {
	uint64_t ns;
	const char *text; /* as `le` */
} bounds[] = {
    {10000, "1e-05"},    {100000, "0.0001"},  {500000, "0.0005"},    {1000000, "0.001"},
    {2500000, "0.0025"}, {5000000, "0.005"},  {10000000, "0.01"},    {25000000, "0.025"},
    {50000000, "0.05"},  {75000000, "0.075"}, {100000000, "0.1"},    {250000000, "0.25"},
    {500000000, "0.5"},  {750000000, "0.75"}, {1000000000, "1.0"},   {2500000000, "2.5"},
    {5000000000, "5.0"}, {7500000000, "7.5"}, {10000000000, "10.0"},
};
#define BOUNDS (sizeof(bounds) / sizeof(bounds[0]))

/* A classic histogram: counts per bound, not yet cumulative. */
struct classic {
	uint64_t counts[BOUNDS + 1], sum_ns, count;
	struct exemplar exemplars[BOUNDS + 1]; /* the newest of each bucket */
};

struct route_total {
	struct classic total;
	uint64_t
	    *codes[CODES / CLASS];  /* owned: by status; null = none; status 0 = nothing was sent */
	struct store_minute minute; /* since the last flush */
	bool dirty;
};

struct upstream_total {
	char *name;
	struct classic phases[PHASE_COUNT];
};

struct aggregate {
	const struct routes *routes;
	struct store *store;
	struct route_total *totals[ROUTES_MAX + 1];                /* by route; null = none yet */
	struct upstream_total *upstreams[AGGREGATE_UPSTREAMS_MAX]; /* as they are first seen */
	size_t upstream_count;
};

static void
classic_add(struct classic *classic, uint64_t ns, const struct exchange_record *record)
{
	size_t i = 0;
	while (i < BOUNDS && ns > bounds[i].ns)
		i++;
	struct exemplar *exemplar = &classic->exemplars[i];
	exemplar->ns = ns;
	exemplar->wall_ns =
	    record->start_wall_ns + record->marks_ns[MARK_END] - record->marks_ns[MARK_START];
	memcpy(exemplar->trace_id, record->trace_id, TRACE_ID_SIZE);
	classic->counts[i]++;
	classic->count++;
	classic->sum_ns += ns;
}

static void
classic_merge(struct classic *into, const struct classic *from)
{
	for (size_t i = 0; i <= BOUNDS; i++) {
		into->counts[i] += from->counts[i];
		if (from->exemplars[i].wall_ns > into->exemplars[i].wall_ns)
			into->exemplars[i] = from->exemplars[i];
	}
	into->count += from->count;
	into->sum_ns += from->sum_ns;
}

static void
code_add(struct route_total *total, unsigned code, uint64_t n)
{
	uint64_t **class = &total->codes[code / CLASS];
	if (*class == NULL)
		*class = xcalloc(CLASS, sizeof(**class));
	(*class)[code % CLASS] += n;
}

static uint64_t
code_get(const struct route_total *total, unsigned code)
{
	const uint64_t *class = total->codes[code / CLASS];
	return class != NULL ? class[code % CLASS] : 0;
}

static void
codes_free(struct route_total *total)
{
	for (size_t i = 0; i < CODES / CLASS; i++)
		free(total->codes[i]);
}

struct aggregate *
aggregate_new(const struct routes *routes, struct store *store)
{
	struct aggregate *a = xcalloc(1, sizeof(*a));
	a->routes = routes;
	a->store = store;
	return a;
}

void
aggregate_free(struct aggregate *a)
{
	if (a == NULL)
		return;
	for (size_t i = 0; i <= ROUTES_MAX; i++) {
		if (a->totals[i] != NULL)
			codes_free(a->totals[i]);
		free(a->totals[i]);
	}
	for (size_t i = 0; i < a->upstream_count; i++) {
		free(a->upstreams[i]->name);
		free(a->upstreams[i]);
	}
	free(a);
}

static void
minute_flush(struct aggregate *a, struct route_total *total)
{
	if (total->dirty)
		store_put_minute(a->store, &total->minute);
	total->minute = (struct store_minute){0};
	total->dirty = false;
}

static void
minute_add(struct aggregate *a, struct route_total *total, size_t route,
           const struct exchange_record *record, const uint64_t phases_ns[PHASE_COUNT],
           uint64_t total_ns, bool joined)
{
	uint64_t minute = (record->start_wall_ns + total_ns) / (60 * NS_PER_S);
	struct store_sums *m = &total->minute.sums;
	if (total->dirty && m->minute != minute)
		minute_flush(a, total);
	total->dirty = true;
	m->minute = minute;
	m->route = route;
	m->route_name = routes_name(a->routes, route);
	m->requests++;
	m->errors += record_is_error(record);
	m->sent += record_was_sent(record);
	m->joined += joined;
	for (size_t i = 0; i < PHASE_COUNT; i++)
		m->phases_ns[i] += phases_ns[i];
	histogram_add(&total->minute.total, total_ns);
}

/* Null where there are too many names. */
static struct upstream_total *
upstream_named(struct aggregate *a, const char *name)
{
	for (size_t i = 0; i < a->upstream_count; i++)
		if (strcmp(a->upstreams[i]->name, name) == 0)
			return a->upstreams[i];
	if (a->upstream_count == AGGREGATE_UPSTREAMS_MAX)
		return NULL;
	struct upstream_total *made = xcalloc(1, sizeof(*made));
	made->name = xstrdup(name);
	a->upstreams[a->upstream_count++] = made;
	return made;
}

void
aggregate_add(struct aggregate *a, const struct config *config, size_t route,
              const struct exchange_record *record, bool joined)
{
	struct marks marks;
	uint64_t phases_ns[PHASE_COUNT];
	uint64_t total_ns = record->marks_ns[MARK_END] - record->marks_ns[MARK_START];
	memcpy(marks.at_ns, record->marks_ns, sizeof(marks.at_ns));
	marks_phases(&marks, phases_ns);
	if (a->totals[route] == NULL)
		a->totals[route] = xcalloc(1, sizeof(*a->totals[route]));
	struct route_total *total = a->totals[route];
	classic_add(&total->total, total_ns, record);
	code_add(total, record->status < CODES ? record->status : CODES - 1, 1);
	minute_add(a, total, route, record, phases_ns, total_ns, joined);
	if (record->upstream >= config->upstream_count)
		return;
	struct upstream_total *upstream =
	    upstream_named(a, config->upstreams[record->upstream].name);
	for (size_t i = 0; upstream != NULL && i < PHASE_COUNT; i++)
		classic_add(&upstream->phases[i], phases_ns[i], record);
}

void
aggregate_flush(struct aggregate *a)
{
	for (size_t i = 0; i < routes_count(a->routes); i++)
		if (a->totals[i] != NULL && a->totals[i]->dirty)
			minute_flush(a, a->totals[i]);
}

/* --- /metrics ---------------------------------------------------------------------- */

/* `labels` is written and escaped already. */
static void
classic_write(struct metrics *out, const char *metric, const char *labels,
              const struct classic *classic)
{
	uint64_t cumulative = 0;
	char name[64];
	for (size_t i = 0; i <= BOUNDS; i++) {
		cumulative += classic->counts[i];
		metrics_bucket(out, metric, labels, i < BOUNDS ? bounds[i].text : "+Inf",
		               cumulative, &classic->exemplars[i]);
	}
	snprintf(name, sizeof(name), "%s_sum", metric);
	metrics_seconds(out, name, labels, classic->sum_ns);
	snprintf(name, sizeof(name), "%s_count", metric);
	metrics_sample(out, name, labels, classic->count);
}

static int
busiest_first(const void *a, const void *b)
{
	const struct route_total *const *x = a, *const *y = b;
	uint64_t p = (*x)->total.count, q = (*y)->total.count;
	return p == q ? 0 : p < q ? 1 : -1;
}

/* What is shown: the busiest routes, and the sum of the rest under `other`. */
struct shown {
	const struct route_total *totals[ROUTES_MAX + 1];
	char labels[AGGREGATE_ROUTES_SHOWN][ROUTE_NAME_MAX * 2 + 16];
	size_t count;
	bool has_rest;
	struct route_total rest;
};

static void
rest_add(struct shown *shown, const struct route_total *total)
{
	shown->has_rest = true;
	classic_merge(&shown->rest.total, &total->total);
	for (unsigned i = 0; i < CODES; i++)
		if (code_get(total, i) > 0)
			code_add(&shown->rest, i, code_get(total, i));
}

static const char *
total_name(const struct aggregate *a, const struct route_total *total)
{
	for (size_t i = 0; i < routes_count(a->routes); i++)
		if (a->totals[i] == total)
			return routes_name(a->routes, i);
	return ROUTE_OTHER_NAME;
}

static void
choose(const struct aggregate *a, struct shown *shown)
{
	size_t count = 0;
	for (size_t i = 0; i < routes_count(a->routes); i++) {
		if (a->totals[i] == NULL)
			continue;
		if (i == ROUTE_OTHER)
			rest_add(shown, a->totals[i]);
		else
			shown->totals[count++] = a->totals[i];
	}
	qsort(shown->totals, count, sizeof(shown->totals[0]), busiest_first);
	for (size_t i = AGGREGATE_ROUTES_SHOWN; i < count; i++)
		rest_add(shown, shown->totals[i]);
	shown->count = count < AGGREGATE_ROUTES_SHOWN ? count : AGGREGATE_ROUTES_SHOWN;
	for (size_t i = 0; i < shown->count; i++)
		metrics_label(shown->labels[i], sizeof(shown->labels[i]), "route",
		              total_name(a, shown->totals[i]));
}

static void
codes_write(struct metrics *out, const char *labels, const struct route_total *total)
{
	char both[ROUTE_NAME_MAX * 2 + 48];
	for (unsigned i = 0; i < CODES; i++) {
		uint64_t n = code_get(total, i);
		if (n == 0)
			continue;
		if (i == 0)
			snprintf(both, sizeof(both), "%s,code=\"none\"", labels);
		else
			snprintf(both, sizeof(both), "%s,code=\"%u\"", labels, i);
		metrics_sample(out, "tailrace_requests_total", both, n);
	}
}

static void
routes_write(const struct shown *shown, struct metrics *out)
{
	static const char other[] = "route=\"" ROUTE_OTHER_NAME "\"";
	metrics_head(out, "tailrace_request_duration_seconds", "histogram",
	             "First byte of the request read to last byte of the response taken.");
	for (size_t i = 0; i < shown->count; i++)
		classic_write(out, "tailrace_request_duration_seconds", shown->labels[i],
		              &shown->totals[i]->total);
	if (shown->has_rest)
		classic_write(out, "tailrace_request_duration_seconds", other, &shown->rest.total);
	metrics_head(out, "tailrace_requests_total", "counter",
	             "Exchanges by route and status; code none = nothing was sent.");
	for (size_t i = 0; i < shown->count; i++)
		codes_write(out, shown->labels[i], shown->totals[i]);
	if (shown->has_rest)
		codes_write(out, other, &shown->rest);
}

void
aggregate_metrics(const struct aggregate *a, struct metrics *out)
{
	struct shown *shown = xcalloc(1, sizeof(*shown));
	char upstream[256], labels[320];
	choose(a, shown);
	routes_write(shown, out);
	codes_free(&shown->rest);
	free(shown);
	metrics_head(out, "tailrace_phase_duration_seconds", "histogram",
	             "Phases of exchanges by upstream.");
	for (size_t u = 0; u < a->upstream_count; u++) {
		const struct upstream_total *total = a->upstreams[u];
		metrics_label(upstream, sizeof(upstream), "upstream", total->name);
		for (unsigned p = 0; p < PHASE_COUNT; p++) {
			if (total->phases[p].count == 0)
				continue;
			snprintf(labels, sizeof(labels), "%s,phase=\"%s\"", upstream,
			         phase_name(p));
			classic_write(out, "tailrace_phase_duration_seconds", labels,
			              &total->phases[p]);
		}
	}
}
