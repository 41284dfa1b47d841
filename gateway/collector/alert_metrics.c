/* tailrace_incident_active, what became of alerts, what the detector could not look at. */
#include <stdio.h>
#include "collector/aggregate.h"
#include "collector/alert_metrics.h"
#include "collector/deliver.h"
#include "collector/incident.h"
#include "collector/metrics_text.h"
#include "collector/watch.h"

static void
incidents(const struct service *service, struct metrics *out)
{
	char label[ROUTE_NAME_MAX * 2 + 16];
	size_t shown = 0;
	metrics_head(out, "tailrace_incident_active", "gauge",
	             "Incidents of a route that are going on.");
	for (size_t i = 0; i < routes_count(service->routes); i++) {
		const struct detector_route *route = watch_route(service->watch, i);
		unsigned active = incidents_active(service->incidents, i);
		/* As many quiet routes as the other families show, and all with an incident. */
		if (route == NULL || (active == 0 && shown >= AGGREGATE_ROUTES_SHOWN))
			continue;
		shown++;
		metrics_label(label, sizeof(label), "route", routes_name(service->routes, i));
		metrics_sample(out, "tailrace_incident_active", label, active);
	}
}

static void
detector(const struct service *service, struct metrics *out)
{
	struct watch_stats stats;
	watch_stats(service->watch, &stats);
	metrics_head(out, "tailrace_detector_late_total", "counter",
	             "Exchanges that came after their window was final.");
	metrics_sample(out, "tailrace_detector_late_total", "", stats.late);
	metrics_head(out, "tailrace_rules_overflow_total", "counter",
	             "Windows of routes for whose rules there was no room.");
	metrics_sample(out, "tailrace_rules_overflow_total", "", stats.tracks_overflow);
}

static const char *
receiver_name(const struct service *service, size_t index)
{
	return index < service->config->alerts.receiver_count
	           ? service->config->alerts.receivers[index].name
	           : "log";
}

static void
one_family(const struct service *service, struct metrics *out, const char *metric, const char *help,
           size_t field)
{
	size_t count = service->config->alerts.receiver_count;
	metrics_head(out, metric, "counter", help);
	for (size_t i = 0; i < (count > 0 ? count : 1); i++) {
		struct deliver_stats stats;
		char label[160];
		deliver_stats(service->deliver, i, &stats);
		metrics_label(label, sizeof(label), "receiver", receiver_name(service, i));
		metrics_sample(out, metric, label,
		               *(const uint64_t *)(const void *)((const char *)&stats + field));
	}
}

static void
delivery(const struct service *service, struct metrics *out)
{
	one_family(service, out, "tailrace_alerts_delivered_total", "Alerts that a receiver took.",
	           offsetof(struct deliver_stats, delivered));
	one_family(service, out, "tailrace_alert_failures_total",
	           "Attempts to deliver that failed and are made again.",
	           offsetof(struct deliver_stats, failed));
	one_family(service, out, "tailrace_alerts_dropped_full_total",
	           "Alerts given up because the outbox was full.",
	           offsetof(struct deliver_stats, dropped_full));
	one_family(service, out, "tailrace_alerts_dropped_age_total",
	           "Alerts given up because no receiver took them for too long.",
	           offsetof(struct deliver_stats, dropped_age));
	metrics_head(out, "tailrace_outbox_waiting", "gauge", "Alerts that wait to be delivered.");
	metrics_sample(out, "tailrace_outbox_waiting", "", deliver_waiting(service->deliver));
}

void
alert_metrics(const struct service *service, struct metrics *out)
{
	incidents(service, out);
	detector(service, out);
	delivery(service, out);
}
