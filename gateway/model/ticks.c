/* A ring of windows; in each a sparse histogram per route that had requests. */
#include "model/ticks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"

#define CELLS_FIRST 16

struct counts {
	uint32_t requests, errors, sent, joined;
	struct detector_cell *cells; /* owned */
	size_t used, room;
};

struct window {
	int64_t number;
	struct counts *routes[TICKS_ROUTES_MAX]; /* owned; kept for the slot's next window */
	uint16_t busy[TICKS_ROUTES_MAX];         /* routes with requests, in order of coming */
	size_t busy_count, taken;
};

struct ticks {
	struct window **slots; /* owned; null = never used */
	size_t open;
	int64_t first; /* oldest window of which not all was taken */
	int64_t final; /* those before are final */
	int64_t last;  /* newest window with exchanges */
};

struct ticks *
ticks_new(size_t open, int64_t first)
{
	struct ticks *ticks = xcalloc(1, sizeof(*ticks));

	assert(open > 0 && open <= TICKS_OPEN_MAX);
	ticks->open = open;
	ticks->first = ticks->final = first;
	ticks->last = first - 1;
	ticks->slots = xcalloc(open, sizeof(struct window *));
	return ticks;
}

static void
window_free(struct window *window)
{
	for (size_t i = 0; window != NULL && i < TICKS_ROUTES_MAX; i++) {
		if (window->routes[i] != NULL)
			free(window->routes[i]->cells);
		free(window->routes[i]);
	}
	free(window);
}

void
ticks_free(struct ticks *ticks)
{
	if (ticks == NULL)
		return;
	for (size_t i = 0; i < ticks->open; i++)
		window_free(ticks->slots[i]);
	free(ticks->slots);
	free(ticks);
}

static struct window *
window_at(struct ticks *ticks, int64_t number)
{
	struct window **slot = &ticks->slots[(uint64_t)number % ticks->open];

	if (*slot == NULL)
		*slot = xcalloc(1, sizeof(**slot));
	if ((*slot)->number != number && (*slot)->busy_count == 0)
		(*slot)->number = number;
	return *slot;
}

static void
add_cell(struct counts *counts, unsigned bucket)
{
	size_t low = 0, high = counts->used;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (counts->cells[middle].bucket < bucket)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < counts->used && counts->cells[low].bucket == bucket) {
		counts->cells[low].count++;
		return;
	}
	if (counts->used == counts->room) {
		counts->room = counts->room > 0 ? 2 * counts->room : CELLS_FIRST;
		counts->cells = xrealloc(counts->cells, counts->room, sizeof(*counts->cells));
	}
	memmove(&counts->cells[low + 1], &counts->cells[low],
	        (counts->used - low) * sizeof(*counts->cells));
	counts->cells[low] = (struct detector_cell){bucket, 1};
	counts->used++;
}

bool
ticks_add(struct ticks *ticks, int64_t number, const struct ticks_event *event)
{
	struct window *window;
	struct counts *counts;

	assert(event->route < TICKS_ROUTES_MAX && number >= 0);
	if (number < ticks->final || number - ticks->first >= (int64_t)ticks->open)
		return false;
	window = window_at(ticks, number);
	counts = window->routes[event->route];
	if (counts == NULL)
		counts = window->routes[event->route] = xcalloc(1, sizeof(*counts));
	if (counts->requests == 0)
		window->busy[window->busy_count++] = (uint16_t)event->route;
	counts->requests++;
	counts->errors += event->error;
	counts->sent += event->sent;
	counts->joined += event->joined;
	if (event->watched)
		add_cell(counts, histogram_bucket(event->latency_ns));
	if (number > ticks->last)
		ticks->last = number;
	return true;
}

/* The window's rows were all taken: its counts are cleared for the next one in its slot. */
static void
window_clear(struct window *window)
{
	for (size_t i = 0; i < window->busy_count; i++) {
		struct counts *counts = window->routes[window->busy[i]];

		counts->requests = counts->errors = counts->sent = counts->joined = 0;
		counts->used = 0;
	}
	window->busy_count = window->taken = 0;
}

bool
ticks_take(struct ticks *ticks, int64_t before, struct ticks_row *ret)
{
	if (ticks->final < before)
		ticks->final = before;
	while (ticks->first < before) {
		struct window *window = ticks->slots[(uint64_t)ticks->first % ticks->open];

		if (ticks->first > ticks->last) {
			ticks->first = before;
			return false;
		}
		if (window != NULL && window->number == ticks->first &&
		    window->taken < window->busy_count) {
			size_t route = window->busy[window->taken++];
			const struct counts *counts = window->routes[route];

			*ret = (struct ticks_row){.number = ticks->first,
			                          .route = route,
			                          .requests = counts->requests,
			                          .errors = counts->errors,
			                          .sent = counts->sent,
			                          .joined = counts->joined,
			                          .cells = counts->cells,
			                          .cell_count = counts->used};
			return true;
		}
		if (window != NULL && window->number == ticks->first)
			window_clear(window);
		ticks->first++;
	}
	return false;
}
