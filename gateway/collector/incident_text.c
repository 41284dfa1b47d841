/* Title and text of an incident in plain English, from its payload alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "collector/incident_inside.h"
#include "model/cause.h"
#include "model/text.h"

/* --- numbers ----------------------------------------------------------------------------- */

static const char *
text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text != NULL ? text : "";
}

static double
number_of(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* "1 234 567" */
static void
put_count(struct text *out, uint64_t n)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
	for (int i = 0; i < length; i++) {
		if (i > 0 && (length - i) % 3 == 0)
			text_puts(out, " ");
		text_add(out, &digits[i], 1);
	}
}

/* "1 request", "20 requests" */
static void
put_requests(struct text *out, uint64_t n)
{
	put_count(out, n);
	text_puts(out, n == 1 ? " request" : " requests");
}

/* "310", "1.25 s" where both of a pair are long, by the caller's unit. */
static void
put_ms(struct text *out, double ms)
{
	if (fabs(ms) >= 10000)
		text_printf(out, "%.3g s", ms / 1000);
	else if (fabs(ms) >= 1000)
		text_printf(out, "%.0f ms", ms);
	else
		text_printf(out, "%.3g ms", ms);
}

/* " 120 → 310 ms"; nothing where neither is known. */
static void
put_change(struct text *out, const json_t *pair)
{
	const json_t *before = json_array_get(pair, 0), *after = json_array_get(pair, 1);
	if (json_is_number(before) && json_is_number(after)) {
		text_printf(out, " %.4g → ", json_number_value(before));
		put_ms(out, json_number_value(after));
	} else if (json_is_number(after)) {
		text_puts(out, " to ");
		put_ms(out, json_number_value(after));
	}
}

/* "14:02" of "2026-05-01T14:02:00Z" */
static void
put_clock(struct text *out, const char *iso, bool seconds)
{
	if (strlen(iso) >= 19)
		text_add(out, iso + 11, seconds ? 8 : 5);
}

/* "5 min", "1 h", "90 s" */
static void
put_span(struct text *out, int64_t s)
{
	if (s % 3600 == 0 && s > 0)
		text_printf(out, "%lld h", (long long)s / 3600);
	else if (s % 60 == 0 && s > 0)
		text_printf(out, "%lld min", (long long)s / 60);
	else
		text_printf(out, "%lld s", (long long)s);
}

/* "2 days", "36 h", "50 min" */
static void
put_hours(struct text *out, double hours)
{
	if (hours >= 48)
		text_printf(out, "%.3g days", hours / 24);
	else if (hours >= 2)
		text_printf(out, "%.2g h", hours);
	else
		text_printf(out, "%.2g min", 60 * hours);
}

/* The quantile whose change is told: the one that fired, of those that are shown. */
static const char *
told_quantile(const json_t *payload)
{
	double q = number_of(json_object_get(payload, "evidence"), "quantile");
	return q >= 0.99 ? "p99" : q > 0 && q < 0.75 ? "p50" : "p95";
}

/* --- rows -------------------------------------------------------------------------------- */

/* What the time of a row was spent on: "awaiting app.db:fetch_user (database)". */
static void
put_row_name(struct text *out, const json_t *row)
{
	static const struct {
		const char *kind, *before, *without;
	} words[] = {
	    {"wait", "awaiting ", "awaiting"},
	    {"run", "running ", "running on the event loop"},
	    {"thread_run", "running in a thread: ", "running in a thread"},
	    {"ready", "waiting for a busy event loop: ", "waiting for a busy event loop (ready)"},
	    {"thread_queue", "waiting for a free thread: ", "waiting for a free thread"},
	    {"phase", "", "the gateway"},
	    {"phase_alone", "", "the gateway"},
	    {"no_profile", "", "the app (no profile says where)"},
	    {"unattributed", "", "the app (unattributed)"},
	};
	const char *kind = text_of(row, "kind"), *cause = text_of(row, "cause");
	const char *frame = text_of(row, "frame");
	if (strncmp(kind, "phase", 5) == 0) {
		if (strcmp(cause, "app_queue") == 0)
			text_puts(out, "waiting for the app to take the request (app_queue)");
		else if (strcmp(cause, "queue") == 0)
			text_puts(out, "waiting for a free slot at the app (queue)");
		else
			text_printf(out, "the phase %s", cause);
		if (frame[0] != '\0')
			text_printf(out, " while its event loop was held by %s", frame);
		return;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(words[i].kind, kind) != 0)
			continue;
		text_puts(out, frame[0] != '\0' ? words[i].before : words[i].without);
	}
	text_puts(out, frame);
	if (cause[0] != '\0' && strcmp(cause, "unknown") != 0)
		text_printf(out, " (%s)", cause);
}

static void
put_row_share(struct text *out, const json_t *row)
{
	const json_t *ci = json_object_get(row, "ci90");
	double low = round(100 * json_number_value(json_array_get(ci, 0)));
	double high = round(100 * json_number_value(json_array_get(ci, 1)));
	text_printf(out, "%.0f %%", 100 * number_of(row, "share"));
	if (high > low)
		text_printf(out, " (%.0f to %.0f %%)", low, high);
}

static void
put_row_counts(struct text *out, const json_t *row)
{
	const json_t *counts = json_object_get(row, "waits_per_request");
	double before = json_number_value(json_array_get(counts, 0));
	double after = json_number_value(json_array_get(counts, 1));
	if (json_array_size(counts) == 2 && after > before * 1.2 && after - before >= 0.1)
		text_printf(out, ", %.3g time%s per request instead of %.3g", after,
		            fabs(after - 1) < 0.005 ? "" : "s", before);
}

static void
put_next_row(struct text *out, const json_t *next)
{
	if (next == NULL || number_of(next, "share") < 0.1)
		return;
	text_puts(out, " Next: ");
	put_row_share(out, next);
	text_puts(out, " ");
	put_row_name(out, next);
	text_puts(out, ".");
}

/* Where the growth is. */
static void
put_growth(struct text *out, const json_t *cause, const json_t *top)
{
	text_puts(out, " ");
	put_row_share(out, top);
	text_puts(out, " of the ");
	put_ms(out, number_of(cause, "growth_ms"));
	if (strcmp(text_of(cause, "of"), "mean") == 0)
		text_puts(out, " growth in mean time is ");
	else
		text_printf(out, " growth in mean time %s is ", text_of(cause, "of"));
	if (strcmp(text_of(cause, "verdict"), "likely") == 0)
		text_puts(out, "probably ");
	put_row_name(out, top);
	put_row_counts(out, top);
	text_puts(out, ".");
}

/* A rule may fire before there is anything to compare with: then where the time goes. */
static void
put_spent(struct text *out, const json_t *cause, const json_t *top)
{
	text_puts(out, " There is nothing before it to compare with; of the ");
	put_ms(out, number_of(cause, "after_ms"));
	text_printf(out, " a request takes in the mean %.0f %% is ", 100 * number_of(top, "share"));
	put_row_name(out, top);
	text_puts(out, ".");
}

/* `requests`: before and since; null = the history gave no answer. */
static void
put_too_few(struct text *out, const json_t *requests)
{
	if (!json_is_array(requests)) {
		text_puts(out, " No cause can be named: the history could not be asked.");
		return;
	}
	text_puts(out, " No cause can be named yet: of ");
	put_requests(out, (uint64_t)json_integer_value(json_array_get(requests, 1)));
	text_puts(out, " since then and ");
	put_count(out, (uint64_t)json_integer_value(json_array_get(requests, 0)));
	text_printf(out, " before it is known where their time went, and it takes %d of each.",
	            CAUSE_REQUESTS_MIN);
}

static void
put_cause(struct text *out, const json_t *payload)
{
	const json_t *cause = json_object_get(payload, "cause");
	const json_t *rows = json_object_get(cause, "rows"), *top = json_array_get(rows, 0);
	const json_t *requests = json_object_get(cause, "requests");
	const char *verdict = text_of(cause, "verdict");
	/* Profiles that are missing have no time that grew. */
	if (!json_is_object(cause) ||
	    strcmp(text_of(json_object_get(payload, "rule"), "metric"), "missing_profiles") == 0)
		return;
	if (top != NULL && json_integer_value(json_array_get(requests, 0)) == 0 &&
	    json_integer_value(json_array_get(requests, 1)) >= CAUSE_REQUESTS_MIN) {
		put_spent(out, cause, top);
	} else if (strncmp(verdict, "not enough", 10) == 0) {
		put_too_few(out, requests);
		return;
	} else if (top == NULL || number_of(cause, "growth_ms") <= 0) {
		text_puts(out, " The mean time did not grow.");
		return;
	} else {
		put_growth(out, cause, top);
	}
	put_next_row(out, json_array_get(rows, 1));
	text_printf(out, " %.3g %% of the requests have a profile.",
	            100 * number_of(cause, "coverage"));
}

/* --- title ------------------------------------------------------------------------------- */

static void
put_deploy_title(struct text *out, const json_t *payload)
{
	const json_t *deploy = json_object_get(payload, "deploy");
	if (strcmp(text_of(deploy, "verdict"), "overlaps") == 0)
		text_printf(out, " (deploy %s)", text_of(deploy, "version"));
}

static void
put_load(struct text *out, const json_t *payload)
{
	const json_t *load = json_object_get(payload, "load");
	if (json_is_object(load))
		text_printf(out, ", at %.3g requests/s (%.3g before)", number_of(load, "after"),
		            number_of(load, "before"));
}

static void
put_regression_title(struct text *out, const struct incident *incident)
{
	const json_t *payload = incident->payload;
	const char *quantile = told_quantile(payload);
	size_t routes = incident->route_count;
	if (incident->saturation)
		text_puts(out, "Saturation: ");
	if (routes > 1)
		text_printf(out, "%zu routes got slower: %s ", routes, quantile);
	else
		text_printf(out, "%s ", quantile);
	text_printf(out, "of %s rose", text_of(payload, "route"));
	put_change(out, json_object_get(json_object_get(payload, "quantiles"), quantile));
	text_puts(out, " since ");
	put_clock(out, text_of(payload, "since"), false);
	if (incident->saturation)
		put_load(out, payload);
	put_deploy_title(out, payload);
}

static void
put_rule_title(struct text *out, const json_t *payload)
{
	const json_t *rule = json_object_get(payload, "rule");
	const char *metric = text_of(rule, "metric"), *route = text_of(payload, "route");
	if (strcmp(metric, "burn_rate") == 0)
		text_printf(out, "%s burns its error budget %.3g times too fast", route,
		            number_of(rule, "burn"));
	else if (strcmp(metric, "error_ratio") == 0)
		text_printf(out, "%.3g %% of %s fail (above %.3g %%)",
		            100 * number_of(rule, "share"), route, 100 * number_of(rule, "above"));
	else if (strcmp(metric, "missing_profiles") == 0)
		text_printf(out, "%.3g %% of %s have no profile (above %.3g %%)",
		            100 * number_of(rule, "share"), route, 100 * number_of(rule, "above"));
	else
		text_printf(out, "%s of %s above %.4g ms", metric, route,
		            number_of(rule, "above_ms"));
	json_int_t over_s = json_integer_value(json_object_get(rule, "over_s"));
	text_puts(out, over_s > 0 ? " over " : " for ");
	put_span(out, over_s > 0 ? over_s : json_integer_value(json_object_get(rule, "for_s")));
}

static void
put_title(struct text *out, const struct incident *incident)
{
	static const char *const ends[] = {"", "Resolved: ", "Accepted: ", "Merged: "};
	text_puts(out, ends[incident->status]);
	if (incident->by_rule)
		put_rule_title(out, incident->payload);
	else
		put_regression_title(out, incident);
}

/* --- text -------------------------------------------------------------------------------- */

static void
put_comparison(struct text *out, const json_t *payload)
{
	static const char *const kinds[][2] = {
	    {"hour_of_day", " at this time of day"},
	    {"pooled", " of all hours of the day"},
	    {"trailing", " of the time before"},
	};
	const json_t *baseline = json_object_get(payload, "baseline");
	uint64_t n = (uint64_t)json_integer_value(json_object_get(baseline, "requests"));
	if (n == 0)
		return;
	text_puts(out, ", compared with ");
	put_requests(out, n);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i][0], text_of(baseline, "kind")) == 0)
			text_puts(out, kinds[i][1]);
}

static void
put_certainty(struct text *out, const json_t *payload)
{
	const json_t *evidence = json_object_get(payload, "evidence");
	const json_t *deploy = json_object_get(payload, "deploy");
	const json_t *p = json_object_get(evidence, "p_deploy");
	if (json_is_object(deploy)) {
		text_printf(out, " Deploy %s at ", text_of(deploy, "version"));
		put_clock(out, text_of(deploy, "at"), true);
		text_puts(out, strcmp(text_of(deploy, "verdict"), "overlaps") == 0
		                   ? " UTC overlaps the change"
		                   : " UTC was before the change");
		if (json_is_number(p) && json_number_value(p) < 0.001)
			text_puts(out, " (p < 0.001)");
		else if (json_is_number(p))
			text_printf(out, " (p = %.2g)", json_number_value(p));
		text_puts(out, ".");
	}
	if (json_is_object(evidence) && !json_is_number(p)) {
		double budget = strtod(text_of(evidence, "false_alarm_budget"), NULL);
		text_printf(out, " At most %.3g such alert%s a month %s expected to be false.",
		            budget, budget == 1 ? "" : "s", budget == 1 ? "is" : "are");
	}
}

static void
put_regression_text(struct text *out, const struct incident *incident)
{
	const json_t *payload = incident->payload;
	const json_t *quantiles = json_object_get(payload, "quantiles");
	const char *quantile = told_quantile(payload);
	uint64_t n = (uint64_t)json_integer_value(
	    json_object_get(json_object_get(payload, "evidence"), "requests"));
	text_printf(out, "%s of %s rose", quantile, text_of(payload, "route"));
	put_change(out, json_object_get(quantiles, quantile));
	text_puts(out, " since ");
	put_clock(out, text_of(payload, "since"), true);
	text_printf(out, " UTC (± %d s)", (int)number_of(payload, "since_uncertainty_s"));
	text_puts(out, n > 0 ? ", seen on " : "");
	if (n > 0)
		put_requests(out, n);
	put_comparison(out, payload);
	text_puts(out, ".");
	put_certainty(out, payload);
	if (incident->saturation) {
		text_puts(out, " The requests wait for the app, on every route");
		put_load(out, payload);
		text_puts(out, ": it takes no more than this.");
	}
}

/* What the title's figure is of. */
static void
put_rule_facts(struct text *out, const json_t *rule)
{
	double burn = number_of(rule, "burn"), above_ms = number_of(rule, "above_ms");
	uint64_t requests = (uint64_t)json_integer_value(json_object_get(rule, "requests"));
	if (burn > 0) {
		text_printf(out, " The objective is that %.6g %% succeed",
		            100 * number_of(rule, "objective"));
		text_puts(out, above_ms > 0 ? " within " : "");
		if (above_ms > 0)
			put_ms(out, above_ms);
		text_puts(out, "; at this rate the budget of 30 days is spent in ");
		put_hours(out, 30 * 24 / burn);
		text_puts(out, ". Seen on ");
	} else if (above_ms > 0) {
		text_printf(out, " %.3g %% of ", 100 * number_of(rule, "share"));
	} else {
		text_puts(out, " Seen on ");
	}
	put_requests(out, requests);
	text_puts(out, burn <= 0 && above_ms > 0 ? " took longer." : ".");
}

static void
put_rule_text(struct text *out, const json_t *payload)
{
	put_rule_title(out, payload);
	text_puts(out, " since ");
	put_clock(out, text_of(payload, "since"), true);
	text_puts(out, " UTC.");
	put_rule_facts(out, json_object_get(payload, "rule"));
	put_certainty(out, payload);
}

static void
put_routes(struct text *out, const json_t *payload)
{
	const json_t *routes = json_object_get(payload, "routes"), *route;
	size_t i;
	if (json_array_size(routes) < 2)
		return;
	text_puts(out, " Routes: ");
	json_array_foreach(routes, i, route)
	{
		text_puts(out, i > 0 ? ", " : "");
		text_puts(out, json_string_value(route));
	}
	text_puts(out, ".");
}

static void
put_end(struct text *out, const struct incident *incident)
{
	const json_t *payload = incident->payload;
	if (incident->status == INCIDENT_FIRING)
		return;
	if (incident->status == INCIDENT_MERGED) {
		text_printf(out, "This is part of incident %s now. ",
		            text_of(payload, "merged_into"));
		return;
	}
	text_puts(out, incident->status == INCIDENT_RESOLVED ? "Over since "
	                                                     : "Accepted as the new level at ");
	put_clock(out, text_of(payload, "ended"), true);
	text_puts(out, " UTC. It was: ");
}

static void
set_text(json_t *payload, const char *key, struct text *text)
{
	json_object_set_new(payload, key, json_stringn(text->data, text->length));
	text_free(text);
}

void
incident_text(struct incidents *incidents, struct incident *incident)
{
	struct text title = {0}, text = {0};
	(void)incidents;
	put_title(&title, incident);
	put_end(&text, incident);
	if (incident->by_rule)
		put_rule_text(&text, incident->payload);
	else
		put_regression_text(&text, incident);
	put_routes(&text, incident->payload);
	put_cause(&text, incident->payload);
	set_text(incident->payload, "title", &title);
	set_text(incident->payload, "text", &text);
}
