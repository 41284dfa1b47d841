/* The metrics of detector, incidents and delivery. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_ALERT_METRICS_H
#define TAILRACE_COLLECTOR_ALERT_METRICS_H

#include "collector/service.h"
#include "model/text.h"

/* Appends their families in Prometheus text. */
void alert_metrics(const struct service *service, struct text *out);

#endif
