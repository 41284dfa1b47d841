/* States, what is still to be learned, changes; deploys and incidents. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "collector/incident.h"
#include "collector/watch.h"
#include "collector/watch_show.h"

#define CHANGE_WINDOWS 30 /* what is compared with the baseline */
#define CHANGE_QUANTILE 2 /* of detector_quantiles: p95 */

static void
put_json(struct text *out, json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT);
	if (text != NULL)
		text_puts(out, text);
	else
		out->failed = true;
	free(text);
	json_decref(object);
}

/* What a route has, needs, and when it is expected to have it; null where it is compared. */
static void
put_learning(const struct service *service, const struct detector_route *route, struct text *out)
{
	const struct watch *watch = service->watch;
	if (route->compared) {
		text_puts(out, "null");
		return;
	}
	struct detector_progress progress = detector_route_progress(
	    route, detector_params(watch_detector(watch)), watch_now_s(watch));
	text_printf(out,
	            "{\"have\":%lld,\"need\":%lld,\"ready_at\":", (long long)progress.have_requests,
	            (long long)progress.need_requests);
	if (progress.ready_s > 0)
		text_printf(out, "%lld}", (long long)watch_wall_s(watch, progress.ready_s));
	else
		text_puts(out, "null}");
}

/* ns of the quantile, in the middle of its bucket. */
static int64_t
quantile_ns(const double counts[DETECTOR_BUCKETS], double total, double q)
{
	double seen = 0;
	unsigned i = 0;
	for (; i < DETECTOR_BUCKETS - 1; i++) {
		seen += counts[i];
		if (counts[i] > 0 && seen >= q * total)
			break;
	}
	return (int64_t)(detector_edge_ms(i) * exp2(-0.5 / HISTOGRAM_PER_OCTAVE) * NS_PER_MS);
}

static void
put_change(const struct service *service, size_t index, const struct detector_route *route,
           struct text *out)
{
	const struct watch *watch = service->watch;
	uint64_t counts[DETECTOR_BUCKETS] = {0}, n = 0;
	double before[DETECTOR_BUCKETS], now[DETECTOR_BUCKETS], total = 0;
	int64_t from_s =
	    route->last_s - CHANGE_WINDOWS * (service->config->alerts.window_ms / 1000);
	if (route->compared)
		total = detector_baseline(watch_detector(watch), route, route->last_s, before);
	if (total > 0)
		n = watch_since(watch, index, from_s > 0 ? from_s : 0, counts);
	if (n == 0) {
		text_puts(out, "null");
		return;
	}
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		now[i] = (double)counts[i];
	int differs = detector_edges_differ(before, total, now, (double)n, CHANGE_QUANTILE,
	                                    route->edges.phi[CHANGE_QUANTILE]);
	double q = detector_quantiles[CHANGE_QUANTILE];
	text_printf(out, "{\"p95_before_ns\":%lld,\"p95_ns\":%lld,\"certain\":%s}",
	            (long long)quantile_ns(before, total, q),
	            (long long)quantile_ns(now, (double)n, q), differs != 0 ? "true" : "false");
}

void
watch_show_routes(const struct service *service, struct text *out)
{
	for (size_t i = 0; i < routes_count(service->routes); i++) {
		const struct detector_route *route = watch_route(service->watch, i);
		if (route == NULL || route->last_s < 0)
			continue;
		enum detector_state state =
		    route->shown == DETECTOR_NO_DATA ? DETECTOR_NO_DATA : route->state;
		text_add(out, route->name, strlen(route->name) + 1);
		text_printf(out, "\"state\":\"%s\",", detector_state_name(state));
		text_puts(out, "\"learning\":");
		put_learning(service, route, out);
		text_puts(out, ",\"change\":");
		put_change(service, i, route, out);
		text_add(out, "", 1);
	}
}

void
watch_show_events(const struct service *service, size_t route, int64_t from_s, int64_t to_s,
                  struct text *out)
{
	json_t *deploys = json_array(), *incidents = json_array();
	size_t count;
	const struct watch_deploy *all = watch_deploys(service->watch, &count);
	for (size_t i = 0; i < count; i++) {
		int64_t at_s = watch_wall_s(service->watch, all[i].at_s);
		if (at_s >= from_s && at_s < to_s)
			json_array_append_new(deploys,
			                      json_pack("{s:I, s:s}", "t", (json_int_t)at_s,
			                                "version", all[i].version));
	}
	incidents_of_route(service->incidents, route, from_s, to_s, incidents);
	put_json(out, json_pack("{s:o, s:o}", "deploys", deploys, "incidents", incidents));
}
