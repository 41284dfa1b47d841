/* The cause of an incident: the history is asked what differs before and since the change. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/history.h"
#include "collector/incident_inside.h"
#include "collector/store.h"
#include "model/cause.h"

#define BEFORE_S 3600
#define ROWS_TOLD 10
#define SPAN_S 10           /* the history's windows */
#define RECENT_S (15 * 60)  /* what of it is in memory */
#define SATURATED_SHARE 0.5 /* of the growth, in waiting for the app */

/* The incident may be gone by the time the answer comes. */
struct asked {
	struct incidents *incidents;
	char id[INCIDENT_ID_SIZE];
};

/* --- the answer as JSON ----------------------------------------------------------------- */

static double
ms(double ns)
{
	return ns / 1e6;
}

static json_t *
row_json(const struct cause_row *row)
{
	json_t *stack = row->stack != NULL ? json_loads(row->stack, 0, NULL) : NULL;
	return json_pack("{s:s, s:s?, s:s?, s:o, s:f, s:f, s:[f, f], s:[f, f], s:f, s:f}", "kind",
	                 row->kind_name, "cause", row->cause_name, "frame", row->frame, "stack",
	                 stack != NULL ? stack : json_array(), "delta_ms",
	                 ms((double)row->delta_ns), "share", row->share, "ci90", row->share_low,
	                 row->share_high, "waits_per_request", row->before_count, row->after_count,
	                 "more_ms", ms(row->more_ns), "longer_ms", ms(row->longer_ns));
}

static json_t *
moved_json(const struct cause *cause)
{
	json_t *array = json_array();
	for (size_t i = 0; i < cause->moved_count; i++) {
		json_t *from = json_loads(cause->moved[i].from, 0, NULL);
		json_t *to = json_loads(cause->moved[i].to, 0, NULL);
		json_array_append_new(array,
		                      json_pack("{s:o*, s:o*, s:f, s:f}", "from", from, "to", to,
		                                "before_ms", ms((double)cause->moved[i].from_ns),
		                                "after_ms", ms((double)cause->moved[i].to_ns)));
	}
	return array;
}

static json_t *
verdict_json(const struct cause *cause)
{
	uint64_t n = cause->before_compared < cause->after_compared ? cause->before_compared
	                                                            : cause->after_compared;
	if (cause->verdict != CAUSE_NOT_ENOUGH)
		return json_string(cause_verdict_name(cause->verdict));
	return json_sprintf("%s (%llu)", cause_verdict_name(cause->verdict), (unsigned long long)n);
}

static json_t *
cause_json(const struct cause *cause)
{
	json_t *rows = json_array();
	json_t *of = cause->tail ? json_sprintf("of the slowest %.3g %%", 100 * cause->tail_share)
	                         : json_string("mean");
	for (size_t i = 0; i < cause->row_count && i < ROWS_TOLD; i++)
		json_array_append_new(rows, row_json(&cause->rows[i]));
	return json_pack("{s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:b, s:[I, I], s:I, s:o, s:o}",
	                 "verdict", verdict_json(cause), "of", of, "growth_ms",
	                 ms((double)cause->growth_ns), "before_ms", ms(cause->before_ns),
	                 "after_ms", ms(cause->after_ns), "coverage", cause->coverage,
	                 "estimated_share", cause->estimated_share, "without_profiles",
	                 (int)cause->alone, "requests", (json_int_t)cause->before_compared,
	                 (json_int_t)cause->after_compared, "profiles_dropped",
	                 (json_int_t)cause->dropped, "rows", rows, "moved", moved_json(cause));
}

/* Nothing could be asked. */
static json_t *
no_cause(void)
{
	return json_pack("{s:s, s:s, s:[], s:[]}", "verdict", "not enough requests (0)", "of",
	                 "mean", "rows", "moved");
}

/* --- exemplars --------------------------------------------------------------------------- */

/* They are cited once, and stay: a link in a chat must not go dead with the next revision. */
static void
cite(struct incidents *incidents, struct incident *incident, const char *side,
     const struct profile_key *keys, size_t count)
{
	json_t *exemplars = json_object_get(incident->payload, "exemplars");
	json_t *list = json_object_get(exemplars, side);
	if (json_array_size(list) > 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct text hex = {0};
		text_hex(&hex, keys[i].trace_id, TRACE_ID_SIZE);
		json_array_append_new(list, json_stringn(hex.data, hex.length));
		text_free(&hex);
		store_put_pin(incidents->service->store, &keys[i], true);
	}
}

static void
set_exemplars(struct incidents *incidents, struct incident *incident,
              const struct history_answer *answer)
{
	if (json_object_get(incident->payload, "exemplars") == NULL)
		json_object_set_new(incident->payload, "exemplars",
		                    json_pack("{s:[], s:[]}", "before", "after"));
	if (answer == NULL)
		return;
	cite(incidents, incident, "before", answer->before_exemplars,
	     answer->before_exemplar_count);
	cite(incidents, incident, "after", answer->after_exemplars, answer->after_exemplar_count);
}

/* --- saturation --------------------------------------------------------------------------- */

/* Time spent waiting for the app to have time: for a slot, for its loop. */
static bool
waits_for_app(const struct rollup_key *key)
{
	if (key->kind == ROLLUP_PHASE || key->kind == ROLLUP_PHASE_ALONE)
		return key->cause == PHASE_QUEUE || key->cause == ROLLUP_PHASE_APP_QUEUE;
	return key->kind == PROFILE_READY;
}

struct means {
	double total_ns, waiting_ns;
	uint64_t requests, joined;
};

static struct means
means_of(const struct service *service, size_t route, uint64_t from_s, uint64_t to_s)
{
	struct rollup *sum = rollup_new();
	struct means means = {0};
	history_recent(service, route, from_s, to_s, sum);
	means.requests = sum->requests;
	means.joined = sum->joined;
	for (size_t i = 0; i < sum->row_count && sum->joined > 0; i++)
		if (waits_for_app(&sum->rows[i].key))
			means.waiting_ns += (double)sum->rows[i].ns / (double)sum->joined;
	if (sum->joined > 0)
		means.total_ns = (double)sum->joined_ns / (double)sum->joined;
	rollup_free(sum);
	return means;
}

/* Whether the incident's own growth is mostly waiting for the app. */
static bool
own_growth_waits(const struct cause *cause)
{
	double share = 0;
	for (size_t i = 0; i < cause->row_count; i++) {
		struct rollup_key key = {.kind = cause->rows[i].kind,
		                         .cause = cause->rows[i].cause};
		if (waits_for_app(&key))
			share += cause->rows[i].share;
	}
	return cause->verdict != CAUSE_NOT_ENOUGH && share >= SATURATED_SHARE;
}

/* On every route that grew, too; and how much was asked for before and since. */
static bool
all_routes_wait(struct incidents *incidents, struct incident *incident, uint64_t since_s,
                uint64_t now_s)
{
	const struct service *service = incidents->service;
	uint64_t from_s = now_s - RECENT_S, before = 0, after = 0;
	bool all = true;
	if (since_s <= from_s + SPAN_S || now_s <= since_s)
		return true; /* too long ago to look at the others */
	for (size_t i = 0; i < routes_count(service->routes); i++) {
		struct means old = means_of(service, i, from_s, since_s);
		struct means new = means_of(service, i, since_s, now_s);
		double growth_ns = new.total_ns - old.total_ns;
		before += old.requests;
		after += new.requests;
		if (old.joined < CAUSE_REQUESTS_MIN || new.joined < CAUSE_REQUESTS_MIN ||
		    growth_ns < service->config->alerts.min_effect * old.total_ns)
			continue;
		if (new.waiting_ns - old.waiting_ns < SATURATED_SHARE * growth_ns)
			all = false;
	}
	const struct detector_route *route = watch_route(service->watch, incident->routes[0]);
	int64_t first_s = route != NULL ? watch_wall_s(service->watch, route->first_s) : 0;
	if (first_s > (int64_t)from_s)
		from_s = (uint64_t)first_s;
	if (since_s > from_s)
		json_object_set_new(incident->payload, "load",
		                    json_pack("{s:s, s:f, s:f}", "unit", "requests/s", "before",
		                              (double)before / (double)(since_s - from_s), "after",
		                              (double)after / (double)(now_s - since_s)));
	return all;
}

/* --- asking --------------------------------------------------------------------------------- */

static uint32_t
phases_skipped(enum config_latency latency)
{
	if (latency == CONFIG_LATENCY_SERVER)
		return 1u << PHASE_HEAD | 1u << PHASE_SEND | 1u << PHASE_DRAIN;
	return latency == CONFIG_LATENCY_FIRST_BYTE ? 1u << PHASE_STREAM | 1u << PHASE_DRAIN : 0;
}

/* Windows count by their start: the one in which the change was belongs to neither side. */
static struct history_ask
ask_of(const struct incidents *incidents, const struct incident *incident)
{
	const struct service *service = incidents->service;
	const struct config_alerts *alerts = &service->config->alerts;
	int64_t since_s = watch_wall_s(service->watch, incident->since_s);
	int64_t change_s = since_s - since_s % SPAN_S;
	int64_t now_s = watch_wall_s(service->watch, watch_now_s(service->watch)) + 1;
	int64_t after_s = since_s % SPAN_S == 0 ? since_s : change_s + SPAN_S;
	return (struct history_ask){
	    .route = incident->routes[0],
	    .before_from_s = (uint64_t)(change_s - BEFORE_S),
	    .before_to_s = (uint64_t)change_s,
	    .after_from_s = (uint64_t)after_s,
	    .after_to_s = (uint64_t)(now_s > after_s ? now_s : after_s + 1),
	    .options = {.quantile = incident->quantile,
	                .min_effect = alerts->min_effect,
	                .skip_phases = phases_skipped(alerts->latency),
	                .seed = (uint64_t)incident->since_s},
	};
}

static void
set_link(struct incidents *incidents, struct incident *incident, const struct history_ask *ask)
{
	int64_t id = store_route_id(incidents->service->store, ask->route);
	json_t *links = json_object_get(incident->payload, "links");
	if (id > 0)
		json_object_set_new(
		    links, "flame",
		    json_sprintf("/api/v1/routes/%lld/flame?from=%llu&to=%llu&baseline_from=%llu&"
		                 "baseline_to=%llu",
		                 (long long)id, (unsigned long long)ask->after_from_s,
		                 (unsigned long long)ask->after_to_s,
		                 (unsigned long long)ask->before_from_s,
		                 (unsigned long long)ask->before_to_s));
}

static void
name_top(struct incident *incident, const struct cause *cause)
{
	const struct cause_row *top = cause->row_count > 0 ? &cause->rows[0] : NULL;
	incident->frame[0] = incident->top[0] = '\0';
	if (cause->verdict == CAUSE_NOT_ENOUGH || top == NULL)
		return;
	snprintf(incident->top, sizeof(incident->top), "%s %s %s", top->kind_name,
	         top->cause_name != NULL ? top->cause_name : "",
	         top->frame != NULL ? top->frame : "");
	if (top->frame != NULL)
		snprintf(incident->frame, sizeof(incident->frame), "%s", incident->top);
}

static void
on_answer(void *arg, struct history_answer *answer)
{
	struct asked *asked = arg;
	struct incidents *incidents = asked->incidents;
	struct incident *incident = incident_find(incidents, asked->id);
	free(asked);
	if (incident == NULL) {
		history_answer_free(answer);
		return;
	}
	set_exemplars(incidents, incident, answer);
	if (answer == NULL) {
		if (json_object_get(incident->payload, "cause") == NULL)
			json_object_set_new(incident->payload, "cause", no_cause());
	} else {
		struct history_ask ask = ask_of(incidents, incident);
		json_object_set_new(incident->payload, "cause", cause_json(answer->cause));
		name_top(incident, answer->cause);
		incident->saturation =
		    own_growth_waits(answer->cause) &&
		    all_routes_wait(incidents, incident, ask.before_to_s, ask.after_to_s);
		set_link(incidents, incident, &ask);
		history_answer_free(answer);
	}
	incident_answered(incidents, incident);
}

void
incident_ask(struct incidents *incidents, struct incident *incident)
{
	struct history_ask ask = ask_of(incidents, incident);
	struct asked *asked = xcalloc(1, sizeof(*asked));
	asked->incidents = incidents;
	memcpy(asked->id, incident->id, sizeof(asked->id));
	incident->asking = true;
	if (!history_compare(incidents->service, &ask, on_answer, asked))
		on_answer(asked, NULL);
}
