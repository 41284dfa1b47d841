/* GET /metrics: Prometheus text of the board, the loop's counters, join, store and aggregates.
 * Loop's thread. */
#ifndef TAILRACE_COLLECTOR_METRICS_H
#define TAILRACE_COLLECTOR_METRICS_H

#include "collector/service.h"
#include "model/text.h"

void metrics_write(const struct service *service, struct text *out);

struct evhttp_request;
void metrics_request(struct service *service, struct evhttp_request *request, const char *rest);

#endif
