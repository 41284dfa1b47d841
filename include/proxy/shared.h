/* What the loop threads of one worker process have in common. Made before they start, freed after they
 * ended; every field says who may touch it. */
#ifndef TAILRACE_PROXY_SHARED_H
#define TAILRACE_PROXY_SHARED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/config.h"
#include "proxy/group.h"

struct shared {
	const struct config *config; /* immutable */
	_Atomic uint64_t clients;    /* client connections of all threads */
	struct group *groups;        /* one per config->upstreams entry */
};

/* Makes the groups of a worker in its slot of the board. Main thread. */
void shared_init(struct shared *shared, const struct config *config, struct board_upstream *board);
void shared_free(struct shared *shared);

/* Room for one more client connection below limits.connections: takes it, or says false. Any thread. */
static inline bool
shared_take_client(struct shared *shared)
{
	uint64_t limit = shared->config->limits.connections;

	if (atomic_fetch_add_explicit(&shared->clients, 1, memory_order_relaxed) < limit)
		return true;
	atomic_fetch_sub_explicit(&shared->clients, 1, memory_order_relaxed);
	return false;
}

static inline void
shared_return_client(struct shared *shared)
{
	atomic_fetch_sub_explicit(&shared->clients, 1, memory_order_relaxed);
}

#endif
