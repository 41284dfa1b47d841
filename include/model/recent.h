/* A route's last windows, packed: what the time after a change is measured by. Bounded. Pure; one
 * thread. */
#ifndef TAILRACE_MODEL_RECENT_H
#define TAILRACE_MODEL_RECENT_H

#include <stddef.h>
#include <stdint.h>

#include "model/detector_scale.h"

#define RECENT_WINDOWS 180 /* half an hour of 10 s */

struct recent_window {
	int64_t number;
	uint8_t *packed; /* owned; null = empty */
	uint32_t size;
};

struct recent {
	struct recent_window windows[RECENT_WINDOWS];
};

void recent_init(struct recent *recent);
void recent_clear(struct recent *recent); /* frees; usable again as after init */

/* Keeps a window, in place of the one RECENT_WINDOWS before it. */
void recent_put(struct recent *recent, int64_t number, const struct detector_cell *cells,
                size_t count);

/* Adds the windows of [from, until) to `counts`. Returns their requests. */
uint64_t recent_sum(const struct recent *recent, int64_t from, int64_t until,
                    uint64_t counts[DETECTOR_BUCKETS]);

#endif
