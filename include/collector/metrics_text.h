/* Pieces of the two formats of /metrics: Prometheus text 0.0.4, and OpenMetrics 1.0.0 with
 * exemplars. Writers write both alike; what differs is here. */
#ifndef TAILRACE_COLLECTOR_METRICS_TEXT_H
#define TAILRACE_COLLECTOR_METRICS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/record.h"
#include "model/text.h"

struct metrics {
	struct text text;
	bool open; /* OpenMetrics */
};

/* One exchange that stands for a bucket; zero = none yet. */
struct exemplar {
	uint64_t ns;      /* its value */
	uint64_t wall_ns; /* when it ended */
	uint8_t trace_id[TRACE_ID_SIZE];
};

/* The lines HELP and TYPE of a family; `type` is counter (then `metric` ends in _total), gauge,
 * histogram or info (then it ends in _info). */
void metrics_head(struct metrics *out, const char *metric, const char *type, const char *help);

/* `name="value"` with the value escaped, cut where `buf` is too small. */
void metrics_label(char *buf, size_t size, const char *name, const char *value);

/* One sample; `labels` without braces, "" = none. */
void metrics_sample(struct metrics *out, const char *metric, const char *labels, uint64_t value);

/* The same in seconds, to the nanosecond. */
void metrics_seconds(struct metrics *out, const char *metric, const char *labels, uint64_t ns);

/* One bucket of a histogram, cumulative. `le` is the bound in seconds, as OpenMetrics writes it
 * ("0.001", "1.0", "1e-05", "+Inf"); `exemplar` may be null. */
void metrics_bucket(struct metrics *out, const char *metric, const char *labels, const char *le,
                    uint64_t count, const struct exemplar *exemplar);

/* Call once, last. */
void metrics_end(struct metrics *out);

#endif
