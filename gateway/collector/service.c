/* From the join to aggregates and store. */
#include <string.h>
#include "collector/access_log.h"
#include "collector/aggregate.h"
#include "collector/deep_orders.h"
#include "collector/live.h"
#include "collector/render.h"
#include "base/clock.h"
#include "collector/service.h"
#include "collector/spans.h"
#include "collector/status.h"
#include "collector/store.h"
#include "collector/wants.h"
#include "collector/watch.h"
#include "model/retention.h"

#define PROVISIONAL_NS (10 * NS_PER_S) /* no exchange is shown provisionally before */

const struct config *
service_config_of(const struct service *service, const struct exchange_record *record)
{
	return configs_of(service->configs, record->config);
}

void
service_route_name(const struct service *service, const struct exchange_record *record, size_t size,
                   const struct profile *profile, char *buf)
{
	const struct config *config = service_config_of(service, record);
	const char *method = "", *path, *name = NULL;
	size_t method_length = 0;
	if (record_text(record, size, &method, &path) == 0)
		method_length = record->method_length;
	if (record->route < config->route_count)
		name = config->routes[record->route].name;
	route_name(profile != NULL ? profile->route : NULL, method, method_length, name, buf);
}

/* Where a key of an exchange put to the store is remembered, until another takes its place: what
 * comes later of those that were not kept need not ask the store. */
static struct profile_key *
kept_place(struct service *service, const struct profile_key *key)
{
	uint64_t hash;
	memcpy(&hash, key->span_id, sizeof(hash));
	return &service->kept[hash % SERVICE_KEPT_MAX];
}

static bool
was_kept(struct service *service, const struct profile_key *key)
{
	return memcmp(kept_place(service, key), key, sizeof(*key)) == 0;
}

/* Whether the exchange is worth its room in the store; one that loses its place to it goes. */
static bool
is_kept(struct service *service, size_t route, const struct exchange_record *record,
        const struct profile_key *key, uint64_t total_ns)
{
	uint64_t end_ns = record->start_wall_ns + total_ns;
	struct retention_verdict verdict =
	    retention_add(service->retention, route, end_ns / (SPANS_SPAN_MS * NS_PER_MS), key,
	                  total_ns, record_is_error(record));
	if (verdict.drops)
		store_put_drop(service->store, &verdict.dropped);
	/* It may have been shown provisionally. */
	if (!verdict.keep && total_ns >= PROVISIONAL_NS)
		store_put_drop(service->store, key);
	return verdict.keep;
}

void
service_log_access(const struct service *service, const struct exchange_record *record, size_t size)
{
	struct access_names names = {0};
	if (service->access_log == NULL || record->flags & RECORD_PROVISIONAL)
		return;
	const struct config *config = service_config_of(service, record);
	if (record->route < config->route_count)
		names.route = config->routes[record->route].name;
	if (record->upstream < config->upstream_count) {
		const struct config_upstream *upstream = &config->upstreams[record->upstream];
		names.upstream = upstream->name;
		if (record->server < upstream->server_count)
			names.server = upstream->servers[record->server].text;
	}
	access_log_put(service->access_log, record, size, &names);
}

void
service_on_exchange(void *arg, const struct exchange_record *record, size_t size,
                    const struct profile *profile, const struct join *join,
                    enum profile_missing missing)
{
	struct service *service = arg;
	const struct config *config = service_config_of(service, record);
	char name[ROUTE_NAME_MAX + 1];
	service_route_name(service, record, size, profile, name);
	size_t route = routes_index(service->routes, name);
	bool provisional = record->flags & RECORD_PROVISIONAL;
	uint64_t total_ns = record->marks_ns[MARK_END] - record->marks_ns[MARK_START];
	struct store_exchange x = {
	    .route = route,
	    .route_name = routes_name(service->routes, route),
	    .start_wall_ns = record->start_wall_ns,
	    .total_ns = total_ns,
	    .status = record->status,
	    .provisional = provisional,
	    .replaces = total_ns >= PROVISIONAL_NS,
	    .has_tail = profile != NULL && profile->has_tail,
	    .tail_ns = profile != NULL ? profile->tail_ns : 0,
	    .missing = missing,
	};
	memcpy(x.key.trace_id, record->trace_id, TRACE_ID_SIZE);
	memcpy(x.key.span_id, record->span_id, SPAN_ID_SIZE);
	if (!provisional) {
		aggregate_add(service->aggregate, config, route, record, profile != NULL);
		watch_add(service->watch, config, route, record, profile != NULL);
		status_count(service->status, record_was_sent(record), profile != NULL,
		             clock_now_ns());
		live_add(service->live, record, size, x.route_name, profile != NULL);
		spans_add(service->spans, route, record, profile, join, missing, clock_wall_ns());
		bool deep = record->flags & RECORD_DEEP;
		if (deep)
			deep_log_exchange(service->deep_log, record, x.route_name, profile != NULL);
		if (!deep && !is_kept(service, route, record, &x.key, total_ns))
			return;
		if (profile != NULL)
			wants_add(service->wants, profile, clock_now_ns());
	}
	text_reset(&service->rendered);
	render_exchange(&service->rendered, config, record, size, x.route_name, profile, join,
	                missing);
	if (service->rendered.failed)
		return;
	x.body = service->rendered;
	*kept_place(service, &x.key) = x.key;
	store_put_exchange(service->store, &x);
}

void
service_on_late(void *arg, const struct profile_key *key)
{
	struct service *service = arg;
	if (was_kept(service, key))
		store_put_late(service->store, key);
}

void
service_on_tail(void *arg, const struct profile_key *key, uint64_t tail_ns)
{
	struct service *service = arg;
	if (was_kept(service, key))
		store_put_tail(service->store, key, tail_ns);
}
