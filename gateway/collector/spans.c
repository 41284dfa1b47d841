/* Windows of all routes: filling, closing, saving, forgetting. */
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/store.h"
#include "collector/spans.h"
#include "collector/spans_rows.h"
#include <uthash.h>
#include <utlist.h>

#define PACK_AFTER_MS \
	2000 /* most exchanges are joined by then; later ones make a window of their own */
#define STACKS_SAVED_AGAIN_S 3600 /* so that the store knows which ones are in use */
#define STACKS_UNUSED_S (2 * SPANS_MEMORY_MS / 1000)
#define STACKS_TICK_BYTES (4u << 20)   /* in one second */
#define STACKS_END_BYTES (16u << 20)   /* at the end: half of what the queue holds */
#define STACKS_ITEM_BYTES (256u << 10) /* stacks are saved in items of about so much */

/* A closed window. Both lists are in the order of closing. */
struct packed {
	struct packed *prev, *next; /* of all */
	struct packed *next_of_route;
	size_t route;
	uint64_t start_ms;
	bool saved;
	size_t length;
	char bytes[]; /* rollup_encode()'s */
};

struct open {
	struct open *next;
	uint64_t start_ms;
	struct rollup *rollup; /* owned */
};

struct route_spans {
	struct open *open; /* newest first */
	size_t open_count;
	struct packed *first, *last; /* oldest first */
	struct span_rows *rows;      /* owned: keys in use */
	uint64_t saved_chunk;        /* the last minute whose windows were saved */
};

/* One round over all routes, a few in each tick: a thousand windows that end at once are packed,
 * and a minute of them saved, without an answer having to wait for it. */
struct sweep {
	bool runs;
	bool saves;  /* a minute was over: stacks that nobody uses may go */
	size_t next; /* route */
	uint64_t now_ms, started_ms;
};

struct spans {
	struct spans_options options;
	const struct routes *routes;
	struct store *store;
	struct flame *flame;
	struct route_spans of[ROUTES_MAX + 1];
	struct packed *oldest; /* list of all */
	struct sweep sweep;
	struct spans_stats stats;
	struct rollup_part *parts; /* of the exchange being added */
};

struct spans *
spans_new(const struct spans_options *options, const struct routes *routes, struct store *store)
{
	struct spans *w = xcalloc(1, sizeof(*w));
	w->options = *options;
	w->routes = routes;
	w->store = store;
	w->flame = flame_new(options->stacks_max, options->frames_max);
	w->parts = xcalloc(SPAN_PARTS_MAX, sizeof(*w->parts));
	return w;
}

static void
packed_forget(struct spans *w, struct packed *p)
{
	struct route_spans *of = &w->of[p->route];
	of->first = p->next_of_route; /* the oldest of all is the oldest of its route */
	if (of->first == NULL)
		of->last = NULL;
	DL_DELETE(w->oldest, p);
	w->stats.packed--;
	w->stats.packed_bytes -= sizeof(*p) + p->length;
	free(p);
}

void
spans_free(struct spans *w)
{
	if (w == NULL)
		return;
	while (w->oldest != NULL)
		packed_forget(w, w->oldest);
	for (size_t i = 0; i <= ROUTES_MAX; i++) {
		while (w->of[i].open != NULL) {
			struct open *open = w->of[i].open;
			w->of[i].open = open->next;
			rollup_free(open->rollup);
			free(open);
		}
		span_rows_free(w->of[i].rows);
	}
	flame_free(w->flame);
	free(w->parts);
	free(w);
}

/* --- closing --------------- */

static size_t
fold(struct spans *w, struct rollup *rollup)
{
	struct rollup_parents parents = {w->flame, flame_parent};
	return rollup_fold(rollup, ROLLUP_ROWS_WINDOW, &parents);
}

/* Takes the window off the route's list and packs it. */
static void
open_close(struct spans *w, size_t route, struct open *open)
{
	struct route_spans *of = &w->of[route];
	struct text bytes = {0};
	LL_DELETE(of->open, open);
	of->open_count--;
	w->stats.open--;
	w->stats.rows_folded_window += fold(w, open->rollup);
	rollup_encode(open->rollup, &bytes);
	struct packed *p = xcalloc(1, sizeof(*p) + bytes.length);
	p->route = route;
	p->start_ms = open->start_ms;
	p->length = bytes.length;
	if (bytes.length > 0)
		memcpy(p->bytes, bytes.data, bytes.length);
	DL_APPEND(w->oldest, p);
	if (of->last == NULL)
		of->first = p;
	else
		of->last->next_of_route = p;
	of->last = p;
	w->stats.packed++;
	w->stats.packed_bytes += sizeof(*p) + p->length;
	text_free(&bytes);
	rollup_free(open->rollup);
	free(open);
}

/* Past its end and the join's time, or further in the future than any exchange can end: the clock
 * was set back. */
static bool
is_over(const struct spans *w, uint64_t start_ms, uint64_t now_ms, uint64_t wait_ms)
{
	return now_ms >= start_ms + w->options.span_ms + wait_ms ||
	       start_ms > now_ms + w->options.span_ms;
}

static bool
is_final(const struct spans *w, uint64_t start_ms, uint64_t now_ms)
{
	return is_over(w, start_ms, now_ms, w->options.join_timeout_ms);
}

/* An open window takes ten times the memory of a packed one. */
static bool
is_packed(const struct spans *w, uint64_t start_ms, uint64_t now_ms)
{
	uint64_t wait_ms = w->options.join_timeout_ms;
	return is_over(w, start_ms, now_ms, wait_ms < PACK_AFTER_MS ? wait_ms : PACK_AFTER_MS);
}

static void
close_final(struct spans *w, size_t route, uint64_t now_ms, bool all)
{
	struct open *open, *next;
	LL_FOREACH_SAFE(w->of[route].open, open, next)
	{
		if (all || is_packed(w, open->start_ms, now_ms))
			open_close(w, route, open);
	}
}

/* --- filling --------------- */

static struct open *
open_get(struct spans *w, size_t route, uint64_t start_ms)
{
	struct route_spans *of = &w->of[route];
	struct open *open, *oldest = NULL;
	LL_FOREACH(of->open, open)
	{
		if (open->start_ms == start_ms)
			return open;
		if (oldest == NULL || open->start_ms < oldest->start_ms)
			oldest = open;
	}
	if (of->open_count >= SPANS_OPEN_MAX)
		open_close(w, route, oldest);
	open = xcalloc(1, sizeof(*open));
	open->start_ms = start_ms;
	open->rollup = rollup_new();
	LL_PREPEND(of->open, open);
	of->open_count++;
	w->stats.open++;
	return open;
}

void
spans_add(struct spans *w, size_t route, const struct exchange_record *record,
          const struct profile *profile, const struct join *join, enum profile_missing missing,
          uint64_t now_wall_ns)
{
	struct route_spans *of = &w->of[route];
	struct rollup_exchange x;
	uint64_t now_ms = now_wall_ns / NS_PER_MS;
	span_exchange(record, profile, join, missing, w->flame, now_ms / 1000, w->parts, &x);
	if (of->rows == NULL)
		of->rows = span_rows_new(w->options.rows_max);
	for (size_t i = 0; i < x.part_count; i++)
		w->stats.rows_folded_route +=
		    span_rows_admit(of->rows, &w->parts[i], w->flame, now_ms);
	uint64_t end_ms = (record->start_wall_ns + x.total_ns) / NS_PER_MS;
	uint64_t start_ms = end_ms - end_ms % w->options.span_ms;
	w->stats.reopened += is_final(w, start_ms, now_ms);
	struct open *open = open_get(w, route, start_ms);
	rollup_add(open->rollup, &x);
	if (open->rollup->row_count > SPANS_ROWS_LIVE)
		w->stats.rows_folded_window += fold(w, open->rollup);
}

/* --- saving --------------- */

struct saving {
	struct spans *w;
	struct text text;
	size_t told, max;
};

static void
stacks_put(struct saving *saving)
{
	if (saving->text.length > 0)
		store_put_stacks(saving->w->store, &saving->text);
	text_free(&saving->text);
}

static bool
on_unsaved_stack(void *arg, uint64_t stack)
{
	struct saving *saving = arg;
	flame_write(saving->w->flame, stack, &saving->text);
	text_add(&saving->text, "", 1);
	if (saving->text.length < STACKS_ITEM_BYTES)
		return true;
	saving->told += saving->text.length;
	stacks_put(saving);
	return saving->told < saving->max;
}

/* About `max` bytes of stacks that the store does not have: it may get tens of megabytes of new
 * ones at once, which its queue does not hold. */
static void
save_stacks(struct spans *w, uint64_t now_ms, size_t max)
{
	struct saving saving = {.w = w, .max = max};
	flame_each_unsaved(w->flame, now_ms / 1000, STACKS_SAVED_AGAIN_S, on_unsaved_stack,
	                   &saving);
	stacks_put(&saving);
}

static void
rows_put(struct spans *w, size_t route, uint64_t chunk_ms, struct text *chunk)
{
	if (chunk->length > 0 && !chunk->failed)
		store_put_rollup(w->store, &(struct store_rollup){
		                               .route = route,
		                               .route_name = routes_name(w->routes, route),
		                               .start_s = chunk_ms / 1000,
		                               .body = *chunk,
		                           });
	text_free(chunk);
}

/* One item for each minute of a route: windows are in order unless exchanges came late. */
static void
save_route(struct spans *w, size_t route)
{
	struct text chunk = {0};
	uint64_t chunk_ms = 0;
	for (struct packed *p = w->of[route].first; p != NULL; p = p->next_of_route) {
		if (p->saved)
			continue;
		uint64_t start_ms = p->start_ms - p->start_ms % SPANS_CHUNK_MS;
		if (start_ms != chunk_ms)
			rows_put(w, route, chunk_ms, &chunk);
		chunk_ms = start_ms;
		rollup_chunk_put(&chunk, p->start_ms, w->options.span_ms, p->bytes, p->length);
		p->saved = true;
	}
	rows_put(w, route, chunk_ms, &chunk);
}

static void
forget(struct spans *w, uint64_t now_ms)
{
	while (w->oldest != NULL) {
		struct packed *p = w->oldest;
		bool old = p->start_ms + w->options.span_ms + SPANS_MEMORY_MS <= now_ms;
		bool full = w->stats.packed_bytes > w->options.bytes_max;
		if (!old && !full)
			return;
		if (!p->saved)
			save_route(w, p->route);
		w->stats.left_early += !old;
		packed_forget(w, p);
	}
}

/* Closes what is final of a route; saves once every window of a minute is final, so that the minute
 * is written once. True: it is a new minute. */
static bool
visit(struct spans *w, size_t route, uint64_t now_ms)
{
	struct route_spans *of = &w->of[route];
	uint64_t chunk = (now_ms - w->options.join_timeout_ms) / SPANS_CHUNK_MS;
	close_final(w, route, now_ms, false);
	if (chunk == of->saved_chunk)
		return false;
	of->saved_chunk = chunk;
	save_route(w, route);
	if (of->rows != NULL)
		span_rows_forget(of->rows, now_ms - SPANS_MEMORY_MS);
	return true;
}

/* Not within a second of the one before, whichever way the clock is set. */
static bool
sweep_begins(struct spans *w, uint64_t now_ms)
{
	struct sweep *sweep = &w->sweep;
	if (now_ms >= sweep->started_ms && now_ms - sweep->started_ms < SPANS_SWEEP_MS)
		return false;
	*sweep = (struct sweep){.runs = true, .now_ms = now_ms, .started_ms = now_ms};
	save_stacks(w, now_ms, STACKS_TICK_BYTES);
	return true;
}

bool
spans_tick(struct spans *w, uint64_t now_wall_ns)
{
	struct sweep *sweep = &w->sweep;
	if (!sweep->runs && !sweep_begins(w, now_wall_ns / NS_PER_MS))
		return false;
	for (size_t n = 0; n < SPANS_ROUTES_TICK && sweep->next < routes_count(w->routes); n++)
		sweep->saves |= visit(w, sweep->next++, sweep->now_ms);
	forget(w, sweep->now_ms);
	sweep->runs = sweep->next < routes_count(w->routes);
	if (!sweep->runs && sweep->saves && flame_count(w->flame) > w->options.stacks_max / 2)
		flame_prune(w->flame, sweep->now_ms / 1000 - STACKS_UNUSED_S);
	return sweep->runs;
}

void
spans_finish(struct spans *w, uint64_t now_wall_ns)
{
	for (size_t i = 0; i < routes_count(w->routes); i++)
		close_final(w, i, 0, true);
	save_stacks(w, now_wall_ns / NS_PER_MS, STACKS_END_BYTES);
	for (size_t i = 0; i < routes_count(w->routes); i++)
		save_route(w, i);
}

/* --- reading --------------- */

void
spans_sum(const struct spans *w, size_t route, uint64_t from_ms, uint64_t to_ms,
          struct rollup *into)
{
	const struct open *open;
	for (const struct packed *p = w->of[route].first; p != NULL; p = p->next_of_route)
		if (p->start_ms >= from_ms && p->start_ms < to_ms)
			rollup_decode(p->bytes, p->length, into);
	LL_FOREACH(w->of[route].open, open)
	{
		if (open->start_ms >= from_ms && open->start_ms < to_ms)
			rollup_merge(into, open->rollup);
	}
}

void
spans_pack(const struct spans *w, size_t route, uint64_t from_ms, uint64_t to_ms,
           struct text *saved, struct text *unsaved)
{
	const struct open *open;
	for (const struct packed *p = w->of[route].first; p != NULL; p = p->next_of_route)
		if (p->start_ms >= from_ms && p->start_ms < to_ms)
			rollup_chunk_put(p->saved ? saved : unsaved, p->start_ms,
			                 w->options.span_ms, p->bytes, p->length);
	LL_FOREACH(w->of[route].open, open)
	{
		if (open->start_ms >= from_ms && open->start_ms < to_ms)
			rollup_chunk_add(unsaved, open->start_ms, w->options.span_ms, open->rollup);
	}
}

void
spans_names(const struct spans *w, size_t route, struct text *out)
{
	if (w->of[route].rows != NULL)
		span_rows_write(w->of[route].rows, w->flame, out);
}

void
spans_stats(const struct spans *w, struct spans_stats *ret)
{
	*ret = w->stats;
	ret->stacks = flame_count(w->flame);
	ret->stacks_overflowed = flame_overflowed(w->flame);
}
