/* Pieces of the Prometheus text format (version 0.0.4). */
#ifndef TAILRACE_COLLECTOR_METRICS_TEXT_H
#define TAILRACE_COLLECTOR_METRICS_TEXT_H

#include <stddef.h>
#include "model/text.h"

/* The lines # HELP and # TYPE of a family; `type` is counter, gauge or histogram. */
void metrics_head(struct text *out, const char *metric, const char *type, const char *help);

/* `name="value"` with the value escaped, cut where `buf` is too small. */
void metrics_label(char *buf, size_t size, const char *name, const char *value);

/* One sample; `labels` without braces, "" = none. */
void metrics_sample(struct text *out, const char *metric, const char *labels, uint64_t value);

#endif
