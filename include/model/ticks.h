/* What routes did in the windows that are not final yet: exchanges arrive when they are joined or
 * given up, up to the join timeout after they ended, and a window is handed on once none can come
 * any more. Bounded; memory of a window is used again. Pure; one thread. */
#ifndef TAILRACE_MODEL_TICKS_H
#define TAILRACE_MODEL_TICKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/detector_scale.h"

#define TICKS_ROUTES_MAX 1001
#define TICKS_OPEN_MAX 1024 /* windows not final at one time */

/* One exchange. */
struct ticks_event {
	size_t route;
	bool watched; /* its latency counts */
	bool error, sent, joined;
	uint64_t latency_ns;
};

/* One route in one window. */
struct ticks_row {
	int64_t number; /* window = time / window_s */
	size_t route;
	uint32_t requests, errors, sent, joined;
	const struct detector_cell *cells; /* rising; borrowed until the next call */
	size_t cell_count;
};

struct ticks;

/* Up to `open` windows (at most TICKS_OPEN_MAX) are open at a time, from number `first` on.
 * Owned. */
struct ticks *ticks_new(size_t open, int64_t first);
void ticks_free(struct ticks *ticks); /* null-safe */

/* Counts an exchange in window `number`. Returns false where that window is final already or too
 * far ahead of the oldest open one. */
bool ticks_add(struct ticks *ticks, int64_t number, const struct ticks_event *event);

/* Takes one row of the windows before `before`, in order of time; from then on these are final,
 * whether all of their rows are taken or not. False where there is none left. */
bool ticks_take(struct ticks *ticks, int64_t before, struct ticks_row *ret);

#endif
