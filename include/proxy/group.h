/* An upstream group as all threads of a worker see it: the addresses of its servers with their slots and
 * health, and the queue of exchanges that wait for a slot. Threads look at it through a pool each
 * (pool.h). Taking and returning a slot is one atomic operation; the mutex is taken only where every
 * server is full, or an address changed. */
#ifndef TAILRACE_PROXY_GROUP_H
#define TAILRACE_PROXY_GROUP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/board.h"
#include "base/config.h"

#define EJECT_FAILURES 3u     /* connects in a row that failed: then it is left alone */
#define EJECT_MIN_NS NS_PER_S /* for so long at first, doubled each time it fails again */
#define EJECT_MAX_NS (30 * NS_PER_S)

struct pool;

/* One address. What the mutex guards is copied by each pool when `version` changed. */
struct endpoint {
	struct board_endpoint *board; /* slots, connections, state */
	struct net_address address;   /* mutex; stays when the address goes, until another comes */
	uint32_t epoch;               /* mutex; another number for each address */
	_Atomic uint16_t server;      /* index in config->servers; changed under the mutex */
	bool live;                    /* mutex; the name still has this address */
	_Atomic uint32_t failures;    /* connects in a row that failed */
	_Atomic uint32_t rounds;      /* trials of an ejected one that failed */
	_Atomic uint64_t ejected_until_ns; /* 0 = not; after it one exchange may try */
	_Atomic bool down;                 /* by its health checks */
};

enum waiter_state { WAITER_QUEUED, WAITER_GRANTED };

/* An exchange in the queue; embedded in it. Everything is guarded by the group's mutex while it waits. */
struct waiter {
	struct waiter *next, **link; /* in the queue, or among its pool's granted ones */
	struct pool *pool;           /* of the thread that waits */
	uint16_t granted;            /* endpoint whose slot it was given */
	enum waiter_state state;
};

#define GROUP_NO_ENDPOINT UINT16_MAX

struct group {
	const struct config_upstream *config;
	struct board_upstream *board;
	pthread_mutex_t mutex;
	struct waiter *first, **last; /* mutex */
	_Atomic uint32_t waiting; /* changed under the mutex; read without, to see if one waits */
	_Atomic uint32_t version; /* of the addresses */
	struct endpoint endpoints[BOARD_ENDPOINTS_MAX];
	_Atomic uint32_t endpoint_count;        /* used or once used; only grows */
	struct pool *pools[CONFIG_THREADS_MAX]; /* before the threads start */
	size_t pool_count;
	_Atomic uint32_t live_count;    /* endpoints that are live */
	_Atomic uint32_t ejected_count; /* of them, ejected ones */
	void (*wake)(struct pool *pool,
	             bool own); /* makes the pool's thread call pool_serve(); any thread */
};

/* Begins with the addresses of the configuration. The board's gauges for it start from zero, its counters
 * go on where they are of the same servers. */
void group_init(struct group *group, const struct config_upstream *config,
                struct board_upstream *board, void (*wake)(struct pool *pool, bool own));
void group_free(struct group *group);

/* The addresses a server has now, instead of those it had: same ones keep their slots and health. More
 * than there is room for are dropped and counted. Returns whether anything changed. Any thread. */
bool group_set_addresses(struct group *group, size_t server, const struct net_address *addresses,
                         size_t count);

/* The outcome of a connect to an endpoint: several failures in a row eject it for a while, where there is
 * another one. Any thread. */
void group_connected(struct group *group, size_t endpoint);
void group_reachable(struct group *group, size_t endpoint); /* as a health check found */
void group_connect_failed(struct group *group, size_t endpoint, uint64_t now_ns);

/* The verdict of the health checks, given whenever it changes. Any thread. */
void group_set_down(struct group *group, size_t endpoint, bool down);

/* Whether an exchange may be sent there now. Where its time of ejection is over, the one that asks first
 * is told yes, and the others wait for what became of it. Any thread. */
bool group_try_ejected(struct group *group, size_t endpoint, uint64_t now_ns);

/* Takes a slot where there is a free one. Any thread. */
static inline bool
group_take_slot(struct group *group, size_t endpoint)
{
	_Atomic uint64_t *in_flight = &group->endpoints[endpoint].board->in_flight;
	uint64_t old = atomic_load_explicit(in_flight, memory_order_relaxed);

	while (old < group->config->max_connections)
		if (atomic_compare_exchange_weak(in_flight, &old, old + 1))
			return true;
	return false;
}

#endif
