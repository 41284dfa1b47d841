/* What every route did in a window of time, kept from one question to the next: minutes that will
 * not change any more are added once, and subtracted once when they leave the window, so that an
 * answer reads the last two or three minutes only. Query thread only.
 *
 * A window is a number of equal parts of whole minutes, aligned to their length; the last one is
 * running. Up to an hour a part is a minute. */
#ifndef TAILRACE_COLLECTOR_ROUTE_WINDOWS_H
#define TAILRACE_COLLECTOR_ROUTE_WINDOWS_H

#include <sqlite3.h>
#include <stdint.h>
#include "collector/unwritten.h"
#include "model/histogram.h"
#include "model/phase.h"

#define ROUTE_WINDOWS_MAX 2 /* lengths that are kept; a further one takes the oldest's place */
#define ROUTE_WINDOW_PARTS 60
#define ROUTE_SETTLED_MIN 2 /* after so many whole minutes one is taken for final */

/* One route's sums; borrowed. */
struct route_window {
	int64_t id;
	uint64_t requests, errors, sent, joined;
	const uint64_t *phases_ns; /* PHASE_COUNT */
	const struct histogram *total;
	const uint64_t *p95_ns; /* of each part; UINT64_MAX = nothing came */
	size_t parts;
};

struct route_windows;
struct route_windows *route_windows_new(void);
void route_windows_free(struct route_windows *windows); /* null-safe */

/* Nothing is kept: the next questions read another file. */
void route_windows_clear(struct route_windows *windows);

/* The length of the window that `minutes` are answered by, in minutes. */
uint64_t route_windows_minutes(uint64_t minutes);

/* What the store says of minutes that are not what they were: written late, or taken away. */
void route_windows_changed(struct route_windows *windows, const struct store_changes *changes);

/* Calls `each` for every route with a request in the window that ends with `now_minute`, in the
 * order of their IDs. `unwritten` is what `db` (null = no store) does not show. Returns SQLITE_OK,
 * or the error of a statement; an interrupted one goes on where it was the next time. */
int route_windows_read(struct route_windows *windows, sqlite3 *db, uint64_t minutes,
                       uint64_t now_minute, const struct unwritten *unwritten,
                       void (*each)(void *arg, const struct route_window *route), void *arg);

#endif
