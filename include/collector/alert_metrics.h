/* The metrics of detector, incidents and delivery. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_ALERT_METRICS_H
#define TAILRACE_COLLECTOR_ALERT_METRICS_H

#include "collector/metrics_text.h"
#include "collector/service.h"

/* Appends their families. */
void alert_metrics(const struct service *service, struct metrics *out);

#endif
