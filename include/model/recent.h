/* A route's last windows, packed: what the time after a change is measured by. Bounded. Pure; one
 * thread. */
#ifndef TAILRACE_MODEL_RECENT_H
#define TAILRACE_MODEL_RECENT_H

#include <stddef.h>
#include <stdint.h>

#include "model/detector_blocks.h"

#define RECENT_WINDOWS 180 /* half an hour of 10 s */

struct recent {
	struct detector_blocks windows;
};

void recent_init(struct recent *recent);
void recent_clear(struct recent *recent); /* frees; usable again as after init */

/* Keeps a window, newer than all before, in place of the one RECENT_WINDOWS before it. */
void recent_put(struct recent *recent, int64_t number, const struct detector_cell *cells,
                size_t count);

/* Adds the windows of [from, until) to `counts`. Returns their requests. */
uint64_t recent_sum(const struct recent *recent, int64_t from, int64_t until,
                    uint64_t counts[DETECTOR_BUCKETS]);

#endif
