/* The store's queue, looked through for one question. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/query.h"
#include "collector/store_queue.h"
#include "collector/unwritten.h"

struct taking {
	struct unwritten *into;
	const struct query_job *job;
	size_t exchange_room, note_room, minute_room;
};

static bool
is_of_one(const struct query_job *job)
{
	return job->kind == QUERY_REQUEST || job->kind == QUERY_PROFILE;
}

static bool
is_of_trace(const struct taking *t, const struct profile_key *key)
{
	return is_of_one(t->job) && memcmp(key->trace_id, t->job->key.trace_id, TRACE_ID_SIZE) == 0;
}

/* Room for one more of `count`. */
static void *
grown(void *array, size_t count, size_t *room, size_t size)
{
	if (count < *room)
		return array;
	*room = *room > 0 ? 2 * *room : 64;
	return xrealloc(array, *room, size);
}

static void
take_exchange(struct taking *t, const struct store_item *item)
{
	struct unwritten *u = t->into;
	bool whole = is_of_trace(t, &item->exchange.key);
	if (is_of_one(t->job)
	        ? !whole
	        : t->job->kind != QUERY_REQUESTS ||
	              (t->job->has_route && strcmp(t->job->route, item->exchange.route_name) != 0))
		return;
	u->exchanges =
	    grown(u->exchanges, u->exchange_count, &t->exchange_room, sizeof(*u->exchanges));
	struct store_exchange *x = &u->exchanges[u->exchange_count++];
	*x = item->exchange;
	x->body = (struct text){0};
	if (whole)
		text_add(&x->body, item->data, item->length);
}

static struct unwritten_note *
note_of(struct taking *t, const struct profile_key *key)
{
	struct unwritten *u = t->into;
	for (size_t i = 0; i < u->note_count; i++)
		if (memcmp(&u->notes[i].key, key, sizeof(*key)) == 0)
			return &u->notes[i];
	u->notes = grown(u->notes, u->note_count, &t->note_room, sizeof(*u->notes));
	u->notes[u->note_count] = (struct unwritten_note){.key = *key};
	return &u->notes[u->note_count++];
}

static void
take_note(struct taking *t, const struct store_item *item)
{
	if (!is_of_trace(t, &item->of.key))
		return;
	struct unwritten_note *note = note_of(t, &item->of.key);
	if (item->kind == ITEM_LATE) {
		note->late = true;
	} else if (item->kind == ITEM_TAIL) {
		note->has_tail = true;
		note->tail_ns = item->of.tail_ns;
	} else if (item->length == 0) {
		note->gone = true;
	} else {
		text_reset(&note->detail);
		text_add(&note->detail, item->data, item->length);
	}
}

static void
take_minute(struct taking *t, const struct store_item *item)
{
	struct unwritten *u = t->into;
	u->minutes = grown(u->minutes, u->minute_count, &t->minute_room, sizeof(*u->minutes));
	u->minutes[u->minute_count++] = (struct unwritten_minute){
	    .sums = item->minute, .offset = u->histograms.length, .length = item->length};
	text_add(&u->histograms, item->data, item->length);
}

static void
on_item(void *arg, const struct store_item *item)
{
	struct taking *t = arg;
	if (item->kind == ITEM_EXCHANGE)
		take_exchange(t, item);
	else if (item->kind == ITEM_LATE || item->kind == ITEM_TAIL || item->kind == ITEM_DETAIL)
		take_note(t, item);
	else if (item->kind == ITEM_MINUTE && t->job->kind == QUERY_ROUTES)
		take_minute(t, item);
}

void
unwritten_take(struct unwritten *unwritten, struct store *store, const struct query_job *job)
{
	struct taking taking = {.into = unwritten, .job = job};
	*unwritten = (struct unwritten){0};
	store_each_unwritten(store, on_item, &taking);
	for (size_t i = 0; i < unwritten->minute_count; i++)
		unwritten->minutes[i].route_id =
		    store_route_id(store, unwritten->minutes[i].sums.route);
}

void
unwritten_free(struct unwritten *unwritten)
{
	for (size_t i = 0; i < unwritten->exchange_count; i++)
		text_free(&unwritten->exchanges[i].body);
	for (size_t i = 0; i < unwritten->note_count; i++)
		text_free(&unwritten->notes[i].detail);
	free(unwritten->exchanges);
	free(unwritten->notes);
	free(unwritten->minutes);
	text_free(&unwritten->histograms);
	*unwritten = (struct unwritten){0};
}

bool
unwritten_has_new_route(const struct unwritten *unwritten)
{
	for (size_t i = 0; i < unwritten->minute_count; i++)
		if (unwritten->minutes[i].route_id == 0)
			return true;
	return false;
}
