/* One byte ring in shared memory per (generation, thread): length-prefixed records, single producer (a
 * worker thread), single consumer (the collector). Full: the record is dropped and counted; nobody ever
 * waits. Positions live in the memory itself, so either side may die and a successor goes on.
 *
 * THREADS: ring_reserve/ring_commit on the producer's thread, ring_peek/ring_release on the consumer's;
 * they meet only in two atomics (release/acquire). TSan runs over both (tests/unit/test_ring.c). */
#ifndef TAILRACE_PROXY_RING_H
#define TAILRACE_PROXY_RING_H

#include <stddef.h>
#include <stdint.h>

#define RING_BYTES (4u << 20) /* of one ring, header included; a power of two */

struct ring; /* a view on mapped memory */

/* Views RING_BYTES of mapped memory as a ring. Fresh (zeroed) memory is made an empty ring. Returns
 * null where the memory holds something else or its positions are impossible. */
struct ring *ring_attach(void *memory);

/* Producer: room for `length` bytes, 8-byte aligned, or null (dropped, counted). Nothing is visible
 * to the consumer before ring_commit(). */
void *ring_reserve(struct ring *ring, size_t length);
void ring_commit(struct ring *ring);

/* Consumer: the oldest record, or null when empty; borrowed until ring_release(). A corrupt length
 * empties the ring and counts one drop. */
const void *ring_peek(struct ring *ring, size_t *ret_length);
void ring_release(struct ring *ring);

/* Records dropped since the memory was made. Any thread. */
uint64_t ring_dropped(const struct ring *ring);

/* Nothing unread. Any thread. */
int ring_is_empty(const struct ring *ring);

#endif
