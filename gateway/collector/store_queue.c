/* A list of items, and where exchanges stand in it. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/store_queue.h"

struct store_item *
store_item_new(enum store_item_kind kind, const void *data, size_t length)
{
	struct store_item *item = xcalloc(1, sizeof(*item) + length + 1);
	item->kind = kind;
	item->bytes = sizeof(*item) + length + 1;
	item->length = length;
	if (length > 0)
		memcpy(item->data, data, length);
	return item;
}

void
store_item_free(struct store_item *item)
{
	if (item->kind == ITEM_NOTE)
		store_note_clear(&item->note);
	free(item);
}

static struct store_item **
place_of(struct store_queue *queue, const struct profile_key *key)
{
	uint64_t hash;
	memcpy(&hash, key->span_id, sizeof(hash));
	return &queue->places[hash % STORE_QUEUE_PLACES];
}

/* Of one that may have been shown provisionally the store may have a row. */
static bool
may_leave(const struct store_item *item)
{
	return item->kind == ITEM_EXCHANGE && !item->exchange.replaces &&
	       !item->exchange.provisional;
}

bool
store_queue_put(struct store_queue *queue, struct store_item *item)
{
	bool note = item->kind == ITEM_NOTE;
	if (queue->count >= queue->count_max + (note ? STORE_QUEUE_NOTES_EXTRA : 0) ||
	    queue->bytes + item->bytes > queue->bytes_max * (note ? 2 : 1))
		return false;
	item->next = NULL;
	item->previous = queue->last;
	*(queue->last != NULL ? &queue->last->next : &queue->first) = item;
	queue->last = item;
	queue->count++;
	queue->bytes += item->bytes;
	item->serial = ++queue->serial;
	if (may_leave(item))
		*place_of(queue, &item->exchange.key) = item;
	return true;
}

static void
leave_place(struct store_queue *queue, const struct store_item *item)
{
	struct store_item **place =
	    item->kind == ITEM_EXCHANGE ? place_of(queue, &item->exchange.key) : NULL;
	if (place != NULL && *place == item)
		*place = NULL;
}

static void
unlink_item(struct store_queue *queue, struct store_item *item)
{
	*(item->previous != NULL ? &item->previous->next : &queue->first) = item->next;
	*(item->next != NULL ? &item->next->previous : &queue->last) = item->previous;
	queue->count--;
	queue->bytes -= item->bytes;
	leave_place(queue, item);
}

struct store_item *
store_queue_cancel(struct store_queue *queue, const struct profile_key *key)
{
	struct store_item *item = *place_of(queue, key);
	if (item == NULL || memcmp(&item->exchange.key, key, sizeof(*key)) != 0)
		return NULL;
	unlink_item(queue, item);
	return item;
}

void
store_queue_keep(struct store_queue *queue, const struct profile_key *key)
{
	*place_of(queue, key) = NULL;
}

const struct store_item *
store_queue_take(struct store_queue *queue, size_t max, size_t *ret_count)
{
	struct store_item *first = queue->first, *last = NULL;
	size_t count = 0;
	for (struct store_item *item = first; item != NULL && count < max; item = item->next) {
		queue->bytes -= item->bytes;
		leave_place(queue, item);
		last = item;
		count++;
	}
	if (last != NULL) {
		queue->first = last->next;
		*(queue->first != NULL ? &queue->first->previous : &queue->last) = NULL;
		last->next = NULL;
		queue->writing = first;
	}
	queue->count -= count;
	*ret_count = count;
	return queue->writing;
}

struct store_item *
store_queue_written(struct store_queue *queue)
{
	struct store_item *items = queue->writing;
	queue->writing = NULL;
	return items;
}

void
store_queue_each(const struct store_queue *queue,
                 void (*each)(void *arg, const struct store_item *item), void *arg)
{
	for (const struct store_item *item = queue->writing; item != NULL; item = item->next)
		each(arg, item);
	for (const struct store_item *item = queue->first; item != NULL; item = item->next)
		each(arg, item);
}

uint64_t
store_items_earliest_minute(const struct store_item *items)
{
	uint64_t earliest = UINT64_MAX;
	for (const struct store_item *item = items; item != NULL; item = item->next)
		if (item->kind == ITEM_MINUTE && item->minute.minute < earliest)
			earliest = item->minute.minute;
	return earliest;
}
