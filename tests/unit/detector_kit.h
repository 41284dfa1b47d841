/* Made-up ticks for the detector's tests: the same in every run. Included by one test file each. */
#ifndef TAILRACE_TESTS_DETECTOR_KIT_H
#define TAILRACE_TESTS_DETECTOR_KIT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "model/detector.h"

#define KIT_START_S 1799971200 /* a midnight, UTC */
#define KIT_WINDOW_S 10
#define KIT_EVENTS_MAX 256

static uint64_t kit_seed = 0x9e3779b97f4a7c15ull;

static inline double
kit_uniform(void) /* xorshift64*, in (0, 1) */
{
	kit_seed ^= kit_seed >> 12;
	kit_seed ^= kit_seed << 25;
	kit_seed ^= kit_seed >> 27;
	return ((double)(kit_seed * 0x2545f4914f6cdd1dull >> 11) + 0.5) / 9007199254740992.0;
}

/* n log-normal latencies around `ms`, as cells. Returns how many cells. */
static inline size_t
kit_cells(struct detector_cell cells[DETECTOR_BUCKETS], unsigned n, double ms)
{
	uint64_t counts[DETECTOR_BUCKETS] = {0};
	size_t used = 0;

	for (unsigned i = 0; i < n; i++) {
		double z = sqrt(-2 * log(kit_uniform())) * cos(6.283185307179586 * kit_uniform());

		counts[detector_bucket(ms * exp(0.3 * z))]++;
	}
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		if (counts[i] > 0)
			cells[used++] = (struct detector_cell){i, counts[i]};
	return used;
}

struct kit_events {
	struct detector_event list[KIT_EVENTS_MAX];
	size_t count;
};

static inline void
kit_on_event(void *arg, const struct detector_event *event)
{
	struct kit_events *events = arg;

	if (events->count < KIT_EVENTS_MAX)
		events->list[events->count++] = *event;
}

/* `ticks` windows of n requests around `ms`, from t_s on. Returns the time after the last. */
static inline int64_t
kit_run(struct detector *detector, struct detector_route *route, int64_t t_s, unsigned ticks,
        unsigned n, double ms)
{
	struct detector_cell cells[DETECTOR_BUCKETS];

	for (; ticks > 0; ticks--, t_s += KIT_WINDOW_S) {
		size_t used = kit_cells(cells, n, ms);

		detector_tick(detector, route, t_s, cells, used);
	}
	return t_s;
}

/* The first event of a state from t_s on; null without. */
static inline const struct detector_event *
kit_find(const struct kit_events *events, enum detector_state state, int64_t t_s)
{
	for (size_t i = 0; i < events->count; i++)
		if (events->list[i].state == state && events->list[i].t_s >= t_s &&
		    !events->list[i].improved)
			return &events->list[i];
	return NULL;
}

#endif
