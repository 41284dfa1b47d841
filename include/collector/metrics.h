/* GET /metrics, Prometheus text or (where Accept names it) OpenMetrics: the board, the loop's counters, join, store and aggregates.
 * Loop's thread. */
#ifndef TAILRACE_COLLECTOR_METRICS_H
#define TAILRACE_COLLECTOR_METRICS_H

#include "collector/service.h"
#include "collector/metrics_text.h"

void metrics_write(const struct service *service, struct metrics *out);

struct evhttp_request;
void metrics_request(struct service *service, struct evhttp_request *request, const char *rest);

#endif
