/* The part of /metrics that is about upstreams and their servers. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_METRICS_UPSTREAM_H
#define TAILRACE_COLLECTOR_METRICS_UPSTREAM_H

#include "collector/metrics_text.h"
#include "collector/service.h"

#define METRICS_SERVERS_MAX 256u /* with samples of their own; the rest is server="other" */

/* Counters are summed over the workers there have been, gauges over those that serve or drain. */
void metrics_upstreams(const struct service *service, struct metrics *out);

#endif
