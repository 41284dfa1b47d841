/* What is known of an incident beside its cause: times, quantiles, evidence, deploy. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/xmem.h"
#include "collector/incident_inside.h"

#define UNCERTAIN_WINDOWS 2   /* of a change time */
#define DEPLOY_BEFORE_S 600   /* a deploy so long before the change overlaps it */
#define DEPLOY_EARLIER_S 7200 /* and so long before it may have to do with it */
#define BAND_BUCKETS 8        /* of a distribution: 4 bands an octave */

static const struct {
	const char *name;
	double q;
} quantiles[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}};

void
incident_time(const struct incidents *incidents, int64_t t_s, char *buf, size_t size)
{
	time_t wall_s = (time_t)watch_wall_s(incidents->service->watch, t_s);
	struct tm tm;
	gmtime_r(&wall_s, &tm);
	strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static json_t *
time_json(const struct incidents *incidents, int64_t t_s)
{
	char text[32];
	incident_time(incidents, t_s, text, sizeof(text));
	return json_string(text);
}

/* Three significant digits: buckets are no finer than 2 %. */
static json_t *
rounded(double value)
{
	char text[32];
	snprintf(text, sizeof(text), "%.3g", value);
	double number = strtod(text, NULL);
	return number == floor(number) && fabs(number) < 1e15 ? json_integer((json_int_t)number)
	                                                      : json_real(number);
}

void
incident_facts_head(struct incidents *incidents, struct incident *incident)
{
	const struct routes *names = incidents->service->routes;
	json_t *payload = incident->payload, *routes = json_array();
	for (size_t i = 0; i < incident->route_count; i++)
		json_array_append_new(routes, json_string(routes_name(names, incident->routes[i])));
	json_object_set_new(payload, "schema", json_integer(1));
	json_object_set_new(payload, "id", json_string(incident->id));
	json_object_set_new(payload, "status", json_string(incident_status_name(incident->status)));
	json_object_set_new(payload, "revision", json_integer(incident->revision));
	json_object_set_new(payload, "kind",
	                    json_string(incident->by_rule ? "rule" : "regression"));
	json_object_set_new(payload, "route", json_string(routes_name(names, incident->routes[0])));
	json_object_set_new(payload, "routes", routes);
	json_object_set_new(payload, "since", time_json(incidents, incident->since_s));
	json_object_set_new(payload, "fired", time_json(incidents, incident->fired_s));
	json_object_set_new(payload, "ended",
	                    incident->ended_s > 0 ? time_json(incidents, incident->ended_s)
	                                          : json_null());
	json_object_set_new(
	    payload, "since_uncertainty_s",
	    json_integer((json_int_t)(UNCERTAIN_WINDOWS *
	                              incidents->service->config->alerts.window_ms / 1000)));
	json_object_set_new(payload, "unit", json_string("ms"));
}

/* --- quantiles --------------------------------------------------------------------------- */

/* By nearest rank, in the middle of its bucket; 0 where there are none. */
static double
quantile_ms(const double counts[DETECTOR_BUCKETS], double total, double q)
{
	double seen = 0;
	if (total <= 0)
		return 0;
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++) {
		seen += counts[i];
		if (counts[i] > 0 && seen >= q * total)
			return detector_edge_ms(i) * exp2(-0.5 / HISTOGRAM_PER_OCTAVE);
	}
	return detector_edge_ms(DETECTOR_BUCKETS - 1);
}

static json_t *
pair_of(double before, double before_total, double after, double after_total)
{
	json_t *pair = json_array();
	json_array_append_new(pair, before_total > 0 ? rounded(before) : json_null());
	json_array_append_new(pair, after_total > 0 ? rounded(after) : json_null());
	return pair;
}

static json_t *
bands_of(const double counts[DETECTOR_BUCKETS])
{
	json_t *bands = json_array();
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i += BAND_BUCKETS) {
		double n = 0;
		for (unsigned b = i; b < i + BAND_BUCKETS; b++)
			n += counts[b];
		if (n < 0.5)
			continue;
		uint64_t low_ns = i > 0 ? histogram_edge_ns(i - 1) : 0;
		unsigned last = i + BAND_BUCKETS - 1;
		uint64_t high_ns =
		    last < DETECTOR_BUCKETS - 1 ? histogram_edge_ns(last) : (uint64_t)INT64_MAX;
		json_array_append_new(bands,
		                      json_pack("[I, I, I]", (json_int_t)low_ns,
		                                (json_int_t)high_ns, (json_int_t)llround(n)));
	}
	return bands;
}

/* The side before is frozen at the first look: later the baseline may be another. */
static void
set_quantiles(struct incident *incident, const double before[DETECTOR_BUCKETS], double before_total,
              const double after[DETECTOR_BUCKETS], double after_total)
{
	json_t *old = json_object_get(incident->payload, "quantiles"), *all = json_object();
	for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
		json_t *pair =
		    pair_of(quantile_ms(before, before_total, quantiles[i].q), before_total,
		            quantile_ms(after, after_total, quantiles[i].q), after_total);
		json_t *was = json_array_get(json_object_get(old, quantiles[i].name), 0);
		if (incident->revision > 0 && was != NULL)
			json_array_set(pair, 0, was);
		json_object_set_new(all, quantiles[i].name, pair);
	}
	json_object_set_new(incident->payload, "quantiles", all);
}

static void
set_distributions(struct incident *incident, const double before[DETECTOR_BUCKETS],
                  const double after[DETECTOR_BUCKETS])
{
	if (incident->distributions == NULL)
		incident->distributions = json_pack("{s:o}", "before", bands_of(before));
	json_object_set_new(incident->distributions, "after", bands_of(after));
}

void
incident_facts_refresh(struct incidents *incidents, struct incident *incident)
{
	const struct watch *watch = incidents->service->watch;
	const struct detector_route *route = watch_route(watch, incident->routes[0]);
	double before[DETECTOR_BUCKETS] = {0}, after[DETECTOR_BUCKETS], before_total = 0;
	uint64_t counts[DETECTOR_BUCKETS] = {0};
	uint64_t n = watch_since(watch, incident->routes[0], incident->since_s, counts);
	if (route != NULL)
		before_total =
		    detector_baseline(watch_detector(watch), route, incident->since_s, before);
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		after[i] = (double)counts[i];
	set_quantiles(incident, before, before_total, after, (double)n);
	set_distributions(incident, before, after);
	json_t *evidence = json_object_get(incident->payload, "evidence");
	if (json_is_object(evidence))
		json_object_set_new(evidence, "requests", json_integer((json_int_t)n));
	if (incident->revision > 0 || route == NULL)
		return;
	json_object_set_new(incident->payload, "baseline",
	                    json_pack("{s:s, s:I}", "kind", detector_basis_name(route->basis),
	                              "requests", (json_int_t)llround(before_total)));
}

/* --- why --------------------------------------------------------------------------------- */

static void
set_deploy(struct incidents *incidents, struct incident *incident)
{
	const struct watch *watch = incidents->service->watch;
	int64_t after_s = UNCERTAIN_WINDOWS * incidents->service->config->alerts.window_ms / 1000;
	const struct watch_deploy *deploy =
	    watch_deploy_near(watch, incident->since_s, DEPLOY_BEFORE_S, after_s);
	const char *verdict = "overlaps";
	incident->deploy[0] = '\0';
	if (deploy != NULL) {
		snprintf(incident->deploy, sizeof(incident->deploy), "%s", deploy->version);
	} else {
		deploy = watch_deploy_near(watch, incident->since_s, DEPLOY_EARLIER_S, 0);
		verdict = "before";
	}
	json_object_set_new(
	    incident->payload, "deploy",
	    deploy == NULL ? json_null()
	                   : json_pack("{s:s, s:o, s:s}", "version", deploy->version, "at",
	                               time_json(incidents, deploy->at_s), "verdict", verdict));
}

static void
set_links(struct incidents *incidents, struct incident *incident)
{
	const char *base = incidents->service->config->alerts.dashboard_url;
	json_t *links = json_object();
	if (base != NULL) {
		size_t length = strlen(base);
		while (length > 0 && base[length - 1] == '/')
			length--;
		json_object_set_new(
		    links, "dashboard",
		    json_sprintf("%.*s/#/incidents/%s", (int)length, base, incident->id));
	}
	json_object_set_new(links, "incident", json_sprintf("/api/v1/incidents/%s", incident->id));
	json_object_set_new(incident->payload, "links", links);
}

void
incident_facts_detected(struct incidents *incidents, struct incident *incident,
                        const struct detector_event *event)
{
	double budget = incidents->service->config->alerts.false_alarm_budget;
	char text[48];
	snprintf(text, sizeof(text), "%g/month", budget);
	json_object_set_new(incident->payload, "evidence",
	                    json_pack("{s:o, s:o, s:f, s:s, s:o}", "nats",
	                              rounded(event->evidence_nats), "threshold",
	                              rounded(event->threshold_nats), "quantile", event->quantile,
	                              "false_alarm_budget", text, "p_deploy",
	                              event->by_deploy ? json_real(event->p) : json_null()));
	json_object_set_new(incident->payload, "rule", json_null());
	set_deploy(incidents, incident);
	set_links(incidents, incident);
}

void
incident_facts_ruled(struct incidents *incidents, struct incident *incident,
                     const struct rule_track *track)
{
	const struct config_rule *rule = track->rule;
	json_t *object =
	    json_pack("{s:s, s:s, s:i, s:o, s:I}", "name", rule->name, "metric",
	              rule_metric_name(rule->metric), "for_s", (int)rule->for_s, "share",
	              rounded(track->value), "requests", (json_int_t)track->requests);
	if (rule->above_ms > 0)
		json_object_set_new(object, "above_ms", rounded(rule->above_ms));
	if (rule->above > 0)
		json_object_set_new(object, "above", json_real(rule->above));
	if (rule->metric == CONFIG_METRIC_BURN_RATE) {
		json_object_set_new(object, "objective", json_real(rule->objective));
		json_object_set_new(object, "burn", rounded(track->value));
		json_object_set_new(object, "over_s", json_integer(track->burn_s));
	}
	json_object_set_new(incident->payload, "rule", object);
	json_object_set_new(incident->payload, "evidence", json_null());
	set_deploy(incidents, incident);
	set_links(incidents, incident);
}
