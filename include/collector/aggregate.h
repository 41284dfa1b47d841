/* What every exchange adds up to: per route and minute for the store, per route and per upstream
 * since the process began for /metrics. Exchanges count when they are joined or given up. One
 * thread. */
#ifndef TAILRACE_COLLECTOR_AGGREGATE_H
#define TAILRACE_COLLECTOR_AGGREGATE_H

#include <stdbool.h>
#include "base/config.h"
#include "collector/metrics_text.h"
#include "model/record.h"
#include "model/route.h"

#define AGGREGATE_UPSTREAMS_MAX \
	256                        /* names since the start; phases of further ones count nowhere */
#define AGGREGATE_ROUTES_SHOWN 200 /* busiest routes in /metrics; the rest is shown as `other` */

struct aggregate;
struct store;

/* All borrowed for the aggregate's life. */
struct aggregate *aggregate_new(const struct routes *routes, struct store *store);
void aggregate_free(struct aggregate *aggregate);

/* `config` is the record's own: upstreams are told apart by name, whatever a reload does to their
 * order. */
void aggregate_add(struct aggregate *aggregate, const struct config *config, size_t route,
                   const struct exchange_record *record, bool joined);

/* Hands what came since the last call to the store. About once a second, and before the routes are
 * read. */
void aggregate_flush(struct aggregate *aggregate);

/* Appends the metric families tailrace_request_duration_seconds, tailrace_requests_total and
 * tailrace_phase_duration_seconds, with exemplars. */
void aggregate_metrics(const struct aggregate *aggregate, struct metrics *out);

#endif
