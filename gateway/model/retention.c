/* The slowest in a heap, the sample by a reservoir (Vitter's algorithm R) over all that are not in
 * the heap. */
#include <stdlib.h>
#include "base/xmem.h"
#include "model/retention.h"

struct kept {
	struct profile_key key;
	uint64_t total_ns;
};

struct places {
	struct kept *at; /* owned */
	unsigned count, room;
};

struct window {
	uint64_t start;
	uint64_t touched;       /* by the route's count of exchanges; 0 = free */
	uint64_t count, others; /* exchanges; those that are not among the slowest */
	struct places slowest;  /* a heap with the least first */
	struct places sample;
};

struct route_kept {
	struct window windows[RETENTION_WINDOWS];
	uint64_t count;
};

struct retention {
	struct route_kept **routes; /* owned; null = nothing came yet */
	size_t route_count;
	unsigned keep_slowest, keep_random;
	uint64_t state; /* of the random numbers */
};

struct retention *
retention_new(size_t routes, unsigned keep_slowest, unsigned keep_random, uint64_t seed)
{
	struct retention *r = xcalloc(1, sizeof(*r));
	r->routes = xcalloc(routes, sizeof(*r->routes));
	r->route_count = routes;
	r->keep_slowest = keep_slowest;
	r->keep_random = keep_random;
	r->state = seed;
	return r;
}

void
retention_free(struct retention *r)
{
	if (r == NULL)
		return;
	for (size_t i = 0; i < r->route_count; i++) {
		for (size_t k = 0; r->routes[i] != NULL && k < RETENTION_WINDOWS; k++) {
			free(r->routes[i]->windows[k].slowest.at);
			free(r->routes[i]->windows[k].sample.at);
		}
		free(r->routes[i]);
	}
	free(r->routes);
	free(r);
}

/* xorshift64* (Vigna 2016); `below` > 0. */
static uint64_t
random_below(struct retention *r, uint64_t below)
{
	r->state = r->state != 0 ? r->state : 0x9e3779b97f4a7c15ull;
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return (r->state * 0x2545f4914f6cdd1dull >> 11) % below;
}

static void
places_add(struct places *places, const struct kept *kept)
{
	if (places->count == places->room) {
		places->room = places->room > 0 ? 2 * places->room : 4;
		places->at = xrealloc(places->at, places->room, sizeof(*places->at));
	}
	places->at[places->count++] = *kept;
}

static struct window *
window_get(struct route_kept *route, uint64_t start)
{
	struct window *oldest = &route->windows[0];
	for (size_t i = 0; i < RETENTION_WINDOWS; i++) {
		struct window *w = &route->windows[i];
		if (w->touched > 0 && w->start == start)
			return w;
		if (w->touched < oldest->touched)
			oldest = w;
	}
	struct window empty = {
	    .start = start, .slowest = oldest->slowest, .sample = oldest->sample};
	empty.slowest.count = empty.sample.count = 0;
	*oldest = empty;
	return oldest;
}

/* --- the heap of the slowest: the least slow first --------------- */

static void
swap(struct kept *a, struct kept *b)
{
	struct kept c = *a;
	*a = *b;
	*b = c;
}

static void
sift_up(struct kept *heap, size_t at)
{
	for (; at > 0 && heap[at].total_ns < heap[(at - 1) / 2].total_ns; at = (at - 1) / 2)
		swap(&heap[at], &heap[(at - 1) / 2]);
}

static void
sift_down(struct kept *heap, size_t count)
{
	for (size_t at = 0;;) {
		size_t least = at;
		for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
			if (heap[child].total_ns < heap[least].total_ns)
				least = child;
		if (least == at)
			return;
		swap(&heap[at], &heap[least]);
		at = least;
	}
}

/* Takes `kept` in where it belongs there. What is left for the sample: itself, or whom it displaced
 * (*kept then). Returns false where nothing is left. */
static bool
slowest_take(struct retention *r, struct window *w, struct kept *kept)
{
	struct places *slowest = &w->slowest;
	if (slowest->count < r->keep_slowest) {
		places_add(slowest, kept);
		sift_up(slowest->at, slowest->count - 1);
		return false;
	}
	if (r->keep_slowest == 0 || kept->total_ns <= slowest->at[0].total_ns)
		return true;
	swap(&slowest->at[0], kept);
	sift_down(slowest->at, slowest->count);
	return true;
}

/* The newest window of a route, and the one before it; null where there is none. */
static void
newest_of(const struct route_kept *route, const struct window **ret_newest,
          const struct window **ret_last)
{
	*ret_newest = *ret_last = NULL;
	for (size_t i = 0; i < RETENTION_WINDOWS; i++) {
		const struct window *w = &route->windows[i];
		if (w->touched > 0 && (*ret_newest == NULL || w->start > (*ret_newest)->start))
			*ret_newest = w;
	}
	for (size_t i = 0; i < RETENTION_WINDOWS; i++) {
		const struct window *w = &route->windows[i];
		if (w->touched > 0 && w != *ret_newest &&
		    (*ret_last == NULL || w->start > (*ret_last)->start))
			*ret_last = w;
	}
}

/* Takes `kept` into the sample or not. Returns whether somebody is left without a place (*kept
 * then). Where the window before was busy its number tells how many of a hundred are enough: nobody
 * is written to lose his place. */
static bool
sample_take(struct retention *r, const struct route_kept *route, struct window *w,
            struct kept *kept)
{
	const struct window *newest, *last;
	w->others++;
	newest_of(route, &newest, &last);
	if (last != NULL && last != w && last->others > 2 * r->keep_random) {
		bool taken = random_below(r, last->others) < r->keep_random &&
		             w->sample.count < 2 * r->keep_random;
		if (taken)
			places_add(&w->sample, kept);
		return !taken;
	}
	if (w->sample.count < r->keep_random) {
		places_add(&w->sample, kept);
		return false;
	}
	uint64_t at = random_below(r, w->others);
	if (at < r->keep_random)
		swap(&w->sample.at[at], kept);
	return true;
}

static bool
same(const struct profile_key *a, const struct profile_key *b)
{
	for (size_t i = 0; i < SPAN_ID_SIZE; i++)
		if (a->span_id[i] != b->span_id[i])
			return false;
	for (size_t i = 0; i < TRACE_ID_SIZE; i++)
		if (a->trace_id[i] != b->trace_id[i])
			return false;
	return true;
}

struct retention_verdict
retention_add(struct retention *r, size_t route, uint64_t window, const struct profile_key *key,
              uint64_t total_ns, bool error)
{
	struct retention_verdict verdict = {.keep = true};
	struct kept kept = {*key, total_ns};
	if (r->routes[route] == NULL)
		r->routes[route] = xcalloc(1, sizeof(*r->routes[route]));
	struct window *w = window_get(r->routes[route], window);
	w->touched = ++r->routes[route]->count;
	w->count++;
	if (error || !slowest_take(r, w, &kept) || !sample_take(r, r->routes[route], w, &kept))
		return verdict;
	verdict.keep = !same(&kept.key, key);
	verdict.drops = verdict.keep;
	verdict.dropped = kept.key;
	return verdict;
}

/* The window that tells most: the last whole one, or the newest where it is the busier already. */
static const struct window *
telling(const struct route_kept *route)
{
	const struct window *newest, *last;
	newest_of(route, &newest, &last);
	return last == NULL || newest->others > last->others ? newest : last;
}

void
retention_forecast(const struct retention *r, size_t route, uint64_t *ret_over_ns, double *ret_rate)
{
	*ret_over_ns = UINT64_MAX;
	*ret_rate = 0;
	if (route >= r->route_count || r->routes[route] == NULL)
		return;
	const struct window *w = telling(r->routes[route]);
	if (w->others <= r->keep_random) {
		*ret_over_ns = 0;
		*ret_rate = 1;
		return;
	}
	if (r->keep_slowest > 0)
		*ret_over_ns = w->slowest.at[0].total_ns;
	*ret_rate = (double)r->keep_random / (double)w->others;
}
