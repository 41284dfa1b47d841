/* What hangs together in `alerts`. */
#include "base/config_check_alerts.h"

#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/config_check.h"
#include "base/config_table.h"
#include "base/xmem.h"

#define FAULT(place, text, ...) config_place_error_at((place), (text), __VA_ARGS__)
#define BLOCK_MS 300000 /* what windows must divide: the detector keeps its history in these */
#define BURN_FOR_S 300
#define RULE_FOR_MIN_S 10

static const char *const metric_names[] = {
    "p50", "p75", "p90", "p95", "p99", "error_ratio", "missing_profiles", "burn_rate"};

static bool
in_range(const char *name, uint64_t value)
{
	const struct config_key *key = config_key_find(CONFIG_OBJECT_ALERTS, name, strlen(name));

	return value >= key->min && value <= key->max;
}

static void
check_windows(const struct config_alerts *alerts, struct config_place *place)
{
	uint32_t window_s = alerts->window_ms / 1000;

	/* What is out of its own range was told. */
	if (!in_range("window_ms", alerts->window_ms) ||
	    !in_range("min_duration_s", alerts->min_duration_s) ||
	    !in_range("reference_s", alerts->reference_s) ||
	    !in_range("reference_gap_s", alerts->reference_gap_s))
		return;
	if (alerts->window_ms % 1000 != 0 || BLOCK_MS % alerts->window_ms != 0) {
		FAULT(place,
		      "windows are whole seconds, and 5 minutes a multiple of them: such as "
		      "1000, 10000 or 60000",
		      "/alerts/window_ms");
		return;
	}
	if (alerts->min_duration_s < window_s)
		FAULT(place, "shorter than one window (window_ms)", "/alerts/min_duration_s");
	if (alerts->reference_s < window_s)
		FAULT(place, "shorter than one window (window_ms)", "/alerts/reference_s");
	if (alerts->reference_gap_s < window_s)
		FAULT(place, "shorter than one window (window_ms)", "/alerts/reference_gap_s");
	else if (alerts->reference_gap_s % window_s != 0)
		FAULT(place, "no multiple of a window (window_ms)", "/alerts/reference_gap_s");
}

/* --- rules ------------------------------------------------------------------------ */

/* The name behind "METHOD ", or null where the text is not of that form. */
static const char *
behind_method(const char *route)
{
	static const char *const methods[] = {"GET",   "HEAD",  "POST",    "PUT",     "DELETE",
	                                      "TRACE", "PATCH", "OPTIONS", "CONNECT", "OTHER"};
	size_t length = strcspn(route, " ");

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strlen(methods[i]) == length && strncmp(route, methods[i], length) == 0 &&
		    route[length] == ' ' && route[length + 1] != '\0')
			return route + length + 1;
	return NULL;
}

static bool
route_takes(const struct config_route *route, const char *name, const char *text)
{
	size_t fixed = strcspn(name, "{"), prefix = strlen(route->path_prefix);
	bool method = route->methods == NULL;

	for (char **m = route->methods; m != NULL && *m != NULL; m++)
		method = method || strncmp(*m, text, (size_t)(name - text) - 1) == 0;
	if (!method || !route->alerts)
		return false;
	return strcmp(route->name, name) == 0 ||
	       strncmp(route->path_prefix, name, fixed < prefix ? fixed : prefix) == 0;
}

/* What is wrong with a rule's route as far as that can be known: templates are the app's, but what
 * no rule of "routes" lets through never comes. */
static const char *
route_fault(const struct config *config, const char *text)
{
	const char *name = behind_method(text);

	if (strcmp(text, "other") == 0)
		return NULL;
	if (name == NULL)
		return "a route is a method and the app's template, such as \"GET /items/{id}\"";
	if (strcmp(name, "(no route)") == 0)
		return NULL;
	if (config->route_count == 0)
		return name[0] == '/' ? NULL : "unknown route: a template begins with /";
	for (size_t i = 0; i < config->route_count; i++)
		if (route_takes(&config->routes[i], name, text))
			return NULL;
	return "unknown route: no entry of \"routes\" with alerts lets such requests through";
}

static bool
has_receiver(const struct config_alerts *alerts, const char *name)
{
	for (size_t i = 0; i < alerts->receiver_count; i++)
		if (strcmp(alerts->receivers[i].name, name) == 0)
			return true;
	return false;
}

static void
check_thresholds(const struct config_rule *rule, size_t i, struct config_place *place)
{
	bool quantile = rule->metric <= CONFIG_METRIC_P99;
	bool burn = rule->metric == CONFIG_METRIC_BURN_RATE;

	if (quantile && rule->above_ms <= 0)
		FAULT(place,
		      "found nothing, allowed: a number of ms above 0 (required with a "
		      "quantile)",
		      "/alerts/rules/%zu/above_ms", i);
	if (!quantile && !burn && rule->above_ms > 0)
		FAULT(place, "only quantiles and burn_rate have it: this metric needs \"above\"",
		      "/alerts/rules/%zu/above_ms", i);
	if (!quantile && !burn && rule->above <= 0)
		FAULT(place,
		      "found nothing, allowed: a share above 0 and up to 1 (required with "
		      "this metric)",
		      "/alerts/rules/%zu/above", i);
	if ((quantile || burn) && rule->above > 0)
		FAULT(place, "only error_ratio and missing_profiles have it",
		      "/alerts/rules/%zu/above", i);
	if (burn && rule->objective < 0.5)
		FAULT(place,
		      "found nothing, allowed: a share from 0.5 to 0.999999 (required with "
		      "burn_rate)",
		      "/alerts/rules/%zu/objective", i);
	if (!burn && rule->objective > 0)
		FAULT(place, "only burn_rate has an objective", "/alerts/rules/%zu/objective", i);
	if (burn && rule->for_s != BURN_FOR_S)
		FAULT(place, "burn_rate has windows of its own (5 min to 6 h)",
		      "/alerts/rules/%zu/for_s", i);
}

static char *
rule_name(const struct config_rule *rule)
{
	const char *metric = metric_names[rule->metric];
	const char *of = rule->route != NULL ? " of " : "";
	const char *route = rule->route != NULL ? rule->route : "";
	char *name = NULL;
	int n;

	if (rule->metric <= CONFIG_METRIC_P99)
		n = asprintf(&name, "%s%s%s above %g ms", metric, of, route, rule->above_ms);
	else if (rule->metric == CONFIG_METRIC_BURN_RATE)
		n = asprintf(&name, "%s%s%s of objective %g", metric, of, route, rule->objective);
	else
		n = asprintf(&name, "%s%s%s above %g", metric, of, route, rule->above);
	if (n == -1)
		fatal("out of memory (configuration)");
	return name;
}

static void
check_rule(struct config *config, size_t i, struct config_place *place)
{
	struct config_rule *rule = &config->alerts.rules[i];
	const char *fault = rule->route != NULL ? route_fault(config, rule->route) : NULL;

	if (fault != NULL)
		FAULT(place, fault, "/alerts/rules/%zu/route", i);
	if (rule->for_s * 1000ull < config->alerts.window_ms && rule->for_s >= RULE_FOR_MIN_S &&
	    in_range("window_ms", config->alerts.window_ms))
		FAULT(place, "shorter than one window (window_ms)", "/alerts/rules/%zu/for_s", i);
	for (size_t j = 0; rule->receivers != NULL && rule->receivers[j] != NULL; j++)
		if (!has_receiver(&config->alerts, rule->receivers[j]))
			FAULT(place, "unknown receiver: allowed are the names of \"receivers\"",
			      "/alerts/rules/%zu/receivers/%zu", i, j);
	check_thresholds(rule, i, place);
	if (rule->name == NULL)
		rule->name = rule_name(rule);
	for (size_t j = 0; j < i; j++)
		if (strcmp(config->alerts.rules[j].name, rule->name) == 0)
			FAULT(place, "an earlier rule has this name", "/alerts/rules/%zu/name", i);
}

/* --- receivers ---------------------------------------------------------------------- */

/* What is wrong with an address that alerts are sent to, or null. */
static const char *
url_fault(const char *url)
{
	struct evhttp_uri *uri = evhttp_uri_parse(url);
	const char *scheme = uri != NULL ? evhttp_uri_get_scheme(uri) : NULL;
	const char *host = uri != NULL ? evhttp_uri_get_host(uri) : NULL;
	const char *fault = NULL;

	if (uri == NULL)
		fault = "no URL (RFC 3986)";
	else if (scheme == NULL ||
	         (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0))
		fault = "a URL begins with http:// or https://";
	else if (host == NULL || host[0] == '\0')
		fault = "a URL names a host";
	else if (evhttp_uri_get_userinfo(uri) != NULL)
		fault = "no user or password in a URL: name a token_file";
	else if (evhttp_uri_get_fragment(uri) != NULL)
		fault = "no fragment (#...) in a URL that is posted to";
	else if (evhttp_uri_get_port(uri) == 0 || evhttp_uri_get_port(uri) > 65535)
		fault = "ports go from 1 to 65535";
	if (uri != NULL)
		evhttp_uri_free(uri);
	return fault;
}

static void
check_file(const char *path, const char *name, const char *key, struct config_place *place)
{
	const char *fault = path != NULL ? config_file_fault(path) : NULL;

	if (fault != NULL)
		FAULT(place, fault, "/alerts/receivers/%s/%s", name, key);
}

static void
check_receiver(const struct config_receiver *receiver, struct config_place *place, bool on_host)
{
	bool log = receiver->type == CONFIG_RECEIVER_LOG;
	const char *fault = receiver->url != NULL && !log ? url_fault(receiver->url) : NULL;

	if (log && (receiver->url != NULL || receiver->url_file != NULL ||
	            receiver->token_file != NULL || receiver->ca_file != NULL))
		FAULT(place, "a receiver of type log has no other keys", "/alerts/receivers/%s",
		      receiver->name);
	if (!log && (receiver->url != NULL) == (receiver->url_file != NULL))
		FAULT(place, "exactly one of \"url\" and \"url_file\" is needed",
		      "/alerts/receivers/%s/url", receiver->name);
	if (fault != NULL)
		FAULT(place, fault, "/alerts/receivers/%s/url", receiver->name);
	if (!on_host)
		return;
	check_file(receiver->url_file, receiver->name, "url_file", place);
	check_file(receiver->token_file, receiver->name, "token_file", place);
	check_file(receiver->ca_file, receiver->name, "ca_file", place);
}

void
config_check_alerts(struct config *config, struct config_place *place, bool on_host)
{
	const struct config_alerts *alerts = &config->alerts;
	const char *fault = alerts->dashboard_url != NULL ? url_fault(alerts->dashboard_url) : NULL;

	check_windows(alerts, place);
	for (size_t i = 0; i < alerts->rule_count; i++)
		check_rule(config, i, place);
	for (size_t i = 0; i < alerts->receiver_count; i++)
		check_receiver(&alerts->receivers[i], place, on_host);
	if (fault != NULL)
		FAULT(place, fault, "/alerts/dashboard_url");
}
