/* Single-producer, single-consumer byte ring in shared memory. Records never wrap: where one
 * does not fit before the end, a skip mark sends the consumer to the start. */
#include "proxy/ring.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#define RING_MAGIC 0x7274726372696e67ull
#define RING_HEADER 256u
#define RING_DATA (RING_BYTES - RING_HEADER)
#define RING_ALIGN 8u
#define RING_SKIP UINT64_MAX

/* Positions count bytes and only grow; the place is position % RING_DATA. Each side's fields
 * have a cache line of their own. `reserved` is the producer's scratch: what ring_commit() will
 * publish. */
struct ring {
	_Atomic uint64_t magic;
	_Alignas(64) _Atomic uint64_t written;
	uint64_t reserved;
	uint64_t seen_read; /* producer's copy of `read`, refreshed only when the ring looks full */
	_Atomic uint64_t dropped;
	_Alignas(64) _Atomic uint64_t read;
	uint64_t peeked; /* consumer's scratch: where ring_release() goes */
	_Atomic uint64_t corrupt;
};

_Static_assert(sizeof(struct ring) <= RING_HEADER, "the ring's header outgrew its room");
_Static_assert(RING_DATA % RING_ALIGN == 0, "records are aligned");

static unsigned char *
ring_at(struct ring *ring, uint64_t position)
{
	return (unsigned char *)ring + RING_HEADER + position % RING_DATA;
}

static bool
positions_possible(const struct ring *ring)
{
	uint64_t written = atomic_load_explicit(&ring->written, memory_order_acquire);
	uint64_t read = atomic_load_explicit(&ring->read, memory_order_acquire);

	return read <= written && written - read <= RING_DATA && written % RING_ALIGN == 0 &&
	       read % RING_ALIGN == 0;
}

struct ring *
ring_attach(void *memory)
{
	struct ring *ring = memory;
	uint64_t fresh = 0;

	if (atomic_compare_exchange_strong(&ring->magic, &fresh, RING_MAGIC))
		return ring;
	if (fresh != RING_MAGIC || !positions_possible(ring))
		return NULL;
	return ring;
}

static void *
ring_refuse(struct ring *ring)
{
	atomic_fetch_add_explicit(&ring->dropped, 1, memory_order_relaxed);
	return NULL;
}

void *
ring_reserve(struct ring *ring, size_t length)
{
	uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);
	uint64_t size =
	    sizeof(uint64_t) + ((length + RING_ALIGN - 1) & ~(uint64_t)(RING_ALIGN - 1));
	uint64_t to_end = RING_DATA - written % RING_DATA;
	uint64_t skip = size > to_end ? to_end : 0;
	uint64_t prefix = length;

	if (length == 0 || length > RING_DATA / 4)
		return ring_refuse(ring);
	if (written + skip + size - ring->seen_read > RING_DATA) {
		ring->seen_read = atomic_load_explicit(&ring->read, memory_order_acquire);
		if (written + skip + size - ring->seen_read > RING_DATA)
			return ring_refuse(ring);
	}
	if (skip) {
		uint64_t mark = RING_SKIP;

		memcpy(ring_at(ring, written), &mark, sizeof mark);
		written += skip;
	}
	memcpy(ring_at(ring, written), &prefix, sizeof prefix);
	ring->reserved = written + size;
	return ring_at(ring, written) + sizeof prefix;
}

void
ring_commit(struct ring *ring)
{
	atomic_store_explicit(&ring->written, ring->reserved, memory_order_release);
}

static void
ring_empty(struct ring *ring, uint64_t written)
{
	atomic_fetch_add_explicit(&ring->corrupt, 1, memory_order_relaxed);
	atomic_store_explicit(&ring->read, written, memory_order_release);
}

const void *
ring_peek(struct ring *ring, size_t *ret_length)
{
	uint64_t read = atomic_load_explicit(&ring->read, memory_order_relaxed);
	uint64_t written = atomic_load_explicit(&ring->written, memory_order_acquire);
	uint64_t prefix, size;

	if (read == written)
		return NULL;
	memcpy(&prefix, ring_at(ring, read), sizeof prefix);
	if (prefix == RING_SKIP) {
		read += RING_DATA - read % RING_DATA;
		if (read >= written) {
			ring_empty(ring, written);
			return NULL;
		}
		memcpy(&prefix, ring_at(ring, read), sizeof prefix);
	}
	size = sizeof prefix + ((prefix + RING_ALIGN - 1) & ~(uint64_t)(RING_ALIGN - 1));
	if (prefix == 0 || prefix > RING_DATA / 4 || size > written - read ||
	    size > RING_DATA - read % RING_DATA) {
		ring_empty(ring, written);
		return NULL;
	}
	ring->peeked = read + size;
	*ret_length = (size_t)prefix;
	return ring_at(ring, read) + sizeof prefix;
}

void
ring_release(struct ring *ring)
{
	atomic_store_explicit(&ring->read, ring->peeked, memory_order_release);
}

uint64_t
ring_dropped(const struct ring *ring)
{
	return atomic_load_explicit(&ring->dropped, memory_order_relaxed) +
	       atomic_load_explicit(&ring->corrupt, memory_order_relaxed);
}

int
ring_is_empty(const struct ring *ring)
{
	return atomic_load_explicit(&ring->read, memory_order_acquire) ==
	       atomic_load_explicit(&ring->written, memory_order_acquire);
}
