/* From the join to aggregates and store. */
#include <string.h>
#include "collector/aggregate.h"
#include "collector/render.h"
#include "collector/service.h"
#include "collector/store.h"

void
service_route_name(const struct service *service, const struct exchange_record *record, size_t size,
                   const struct profile *profile, char *buf)
{
	const struct config *config = service->config;
	const char *method = "", *path, *name = NULL;
	size_t method_length = 0;
	if (record_text(record, size, &method, &path) == 0)
		method_length = record->method_length;
	if (record->route < config->route_count)
		name = config->routes[record->route].name;
	route_name(profile != NULL ? profile->route : NULL, method, method_length, name, buf);
}

void
service_on_exchange(void *arg, const struct exchange_record *record, size_t size,
                    const struct profile *profile, const struct join *join,
                    enum profile_missing missing)
{
	struct service *service = arg;
	char name[ROUTE_NAME_MAX + 1];
	service_route_name(service, record, size, profile, name);
	size_t route = routes_index(service->routes, name);
	if (!(record->flags & RECORD_PROVISIONAL))
		aggregate_add(service->aggregate, route, record, profile != NULL);
	struct store_exchange x = {
	    .route = route,
	    .route_name = routes_name(service->routes, route),
	    .start_wall_ns = record->start_wall_ns,
	    .total_ns = record->marks_ns[MARK_END] - record->marks_ns[MARK_START],
	    .status = record->status,
	    .provisional = record->flags & RECORD_PROVISIONAL,
	    .has_tail = profile != NULL && profile->has_tail,
	    .tail_ns = profile != NULL ? profile->tail_ns : 0,
	    .missing = missing,
	};
	memcpy(x.key.trace_id, record->trace_id, TRACE_ID_SIZE);
	memcpy(x.key.span_id, record->span_id, SPAN_ID_SIZE);
	render_exchange(&x.body, service->config, record, size, x.route_name, profile, join,
	                missing);
	if (x.body.failed)
		text_free(&x.body);
	else
		store_put_exchange(service->store, &x);
}

void
service_on_late(void *arg, const struct profile_key *key)
{
	struct service *service = arg;
	store_put_late(service->store, key);
}

void
service_on_tail(void *arg, const struct profile_key *key, uint64_t tail_ns)
{
	struct service *service = arg;
	store_put_tail(service->store, key, tail_ns);
}
