/* A group as one loop thread sees it: its copy of the addresses, idle connections, the choice of a server,
 * slots and the queue for them. One per loop and group; its thread's only, but for what is said to be
 * the group's. */
#ifndef TAILRACE_PROXY_POOL_H
#define TAILRACE_PROXY_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/config.h"
#include "proxy/group.h"

struct loop;
struct upstream;

#define SERVER_IDLE_MAX 1024u /* idle connections kept per address and thread */

/* One address, as copied from its endpoint. */
struct server {
	struct pool *pool;
	const struct config_server *config;
	const struct config_upstream *group;
	struct endpoint *endpoint; /* shared by all threads */
	struct net_address address;
	uint32_t epoch;  /* connections of another one are not kept */
	bool live;       /* gets exchanges */
	uint16_t index;  /* of the endpoint */
	uint16_t number; /* in the group's config->servers */
	int64_t credit;  /* round robin */
	uint32_t idle_count, idle_size;
	struct upstream **idle;
};

struct pool {
	const struct config_upstream *config;
	struct group *group;
	struct loop *loop;
	struct server *servers; /* BOARD_ENDPOINTS_MAX; the first server_count were ever used */
	size_t server_count;
	uint32_t version;                       /* of the group's addresses that were copied */
	size_t turn;                            /* where the search for the least loaded starts */
	struct waiter *granted, **granted_last; /* the group's mutex; oldest first */
	_Atomic bool serve_wanted;              /* pool_serve() has something to do; any thread */
};

int pools_init(struct loop *loop);
void pools_free(struct loop *loop); /* closes idle connections */

/* One pool, registered with its group; before threads start. */
void pool_init(struct pool *pool, struct group *group, struct loop *loop);
void pool_free(struct pool *pool);

/* Takes over what changed in the group's addresses; connections to those that went are closed. */
void pool_refresh(struct pool *pool);

enum pool_answer {
	POOL_GRANTED, /* the slot is *ret's; it must be given back */
	POOL_QUEUED,  /* pool_serve() will say; until then pool_leave() takes it back */
	POOL_FULL,    /* every server is full, and so is the queue */
	POOL_DOWN,    /* no server is up */
};

/* A slot at a server, by the group's `balance`, or a place in the queue. `waiter` must stay while it is
 * queued. */
enum pool_answer pool_take_slot(struct pool *pool, struct waiter *waiter, uint64_t now_ns,
                                struct server **ret);

/* A slot for another attempt, in exchange for the one at `server`: at another server where one is free (one
 * that refuses at once has the fewest in flight, and would be given its own retries), else the same. It
 * never waits: who has a slot keeps one. */
struct server *pool_next_slot(struct server *server, uint64_t now_ns);

/* Gives a slot back, and it may go to the first who waits, on whichever thread. */
void pool_return_slot(struct server *server, uint64_t now_ns);

/* Takes a waiter out of the queue, or gives back the slot that it was granted in the meantime. */
void pool_leave(struct pool *pool, struct waiter *waiter, uint64_t now_ns);

/* The next of this pool's waiters that was granted a slot (*ret), or null. After wake(), and at the end of a
 * turn where serve_wanted is set: until it returns null. */
struct waiter *pool_serve(struct pool *pool, uint64_t now_ns, struct server **ret);

/* An idle connection, chosen at random so that the processes behind one port share the work. Null for a
 * server that was ejected: only a new connection tells that it is back. */
struct upstream *pool_take_idle(struct server *server, uint64_t now_ns);

/* Keeps an idle connection; false when there are too many, or the address is not the server's any more. */
bool pool_keep_idle(struct server *server, struct upstream *upstream);
void pool_forget_idle(struct server *server, struct upstream *upstream);

#endif
