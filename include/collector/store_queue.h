/* What waits before the store's writer: items in order, bounded by number and by bytes. An exchange
 * that lost its place before it was written leaves at once. Not locked: the store's mutex guards
 * all of it, but for the items of the batch that store_queue_take() handed out: those may be read
 * by both sides and are changed by none. */
#ifndef TAILRACE_COLLECTOR_STORE_QUEUE_H
#define TAILRACE_COLLECTOR_STORE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "collector/store.h"
#include "collector/store_notes.h"

#define STORE_QUEUE_PLACES 16384 /* exchanges found again by their key; one per hash */

enum store_item_kind {
	ITEM_EXCHANGE,
	ITEM_MINUTE,
	ITEM_LATE,
	ITEM_TAIL,
	ITEM_DROP,
	ITEM_PIN,
	ITEM_UNPIN,
	ITEM_ROLLUP,
	ITEM_STACKS,
	ITEM_NOTE,
	ITEM_DETAIL,
};

struct store_item {
	struct store_item *next, *previous;
	enum store_item_kind kind;
	uint64_t serial; /* in the order of putting, from 1 */
	size_t bytes;    /* of all it holds, itself included */
	union {
		struct store_exchange exchange; /* ITEM_EXCHANGE; its body lies in `data` */
		struct store_sums minute;       /* ITEM_MINUTE; `data`: its histogram, encoded */
		struct store_rollup rollup;     /* ITEM_ROLLUP; its body lies in `data` */
		struct store_note note;         /* ITEM_NOTE; owned */
		struct {
			struct profile_key key;
			uint64_t tail_ns; /* ITEM_TAIL */
		} of;                     /* of an exchange; ITEM_DETAIL: `data`, none = gone */
	};
	size_t length;
	char data[]; /* `length` bytes and a NUL */
};

struct store_queue {
	struct store_item *first, *last;
	struct store_item *writing; /* the batch taken last, until store_queue_written() */
	size_t count, bytes;        /* that wait */
	uint64_t serial;            /* of the last one put */
	size_t count_max, bytes_max;
	struct store_item *places[STORE_QUEUE_PLACES];
};

/* An item with a copy of `length` bytes. */
struct store_item *store_item_new(enum store_item_kind kind, const void *data, size_t length);
void store_item_free(struct store_item *item);

/* Takes the item over; false: the queue is full, and it stays the caller's. Notes have
 * STORE_QUEUE_NOTES_EXTRA items and as many bytes again to themselves. */
bool store_queue_put(struct store_queue *queue, struct store_item *item);

/* Takes away an exchange that waits, where nothing else can hold it. Returns the item, for the
 * caller to free, or null. */
struct store_item *store_queue_cancel(struct store_queue *queue, const struct profile_key *key);
/* From here on it is not taken away. */
void store_queue_keep(struct store_queue *queue, const struct profile_key *key);

/* At most `max` items off the queue, in order. They are the queue's until store_queue_written(). */
const struct store_item *store_queue_take(struct store_queue *queue, size_t max, size_t *ret_count);
/* What was taken is done with. Returns the items, the caller's to free. */
struct store_item *store_queue_written(struct store_queue *queue);

/* Of a list of items; UINT64_MAX = none is a minute. */
uint64_t store_items_earliest_minute(const struct store_item *items);

/* Everything that is not written, in order. */
void store_queue_each(const struct store_queue *queue,
                      void (*each)(void *arg, const struct store_item *item), void *arg);

#endif
