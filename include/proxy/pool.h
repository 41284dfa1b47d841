/* Servers of one upstream group: slots in flight, idle connections, choice. One per loop and group. */
#ifndef TAILRACE_PROXY_POOL_H
#define TAILRACE_PROXY_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/config.h"

struct loop;
struct upstream;

#define SERVER_IDLE_MAX 1024u /* idle connections kept per server */

struct server {
	const struct config_server *config;
	const struct config_upstream *group;
	uint32_t in_flight; /* slots taken */
	uint32_t idle_count, idle_size;
	struct upstream **idle;
};

struct pool {
	const struct config_upstream *config;
	struct server *servers;
	size_t server_count;
	size_t turn; /* where the search for the least loaded starts */
};

int pools_init(struct loop *loop);
void pools_free(struct loop *loop); /* closes idle connections */

/* A slot at the server with the fewest exchanges in flight, or null when all are full. `failed`
 * (null: none) is taken only where every other one is full: a server that refuses at once has the
 * fewest in flight, and would be given its own retries. */
struct server *pool_take_slot(struct pool *pool, const struct server *failed);
void pool_return_slot(struct server *server);

/* An idle connection, chosen at random so that the processes behind one port share the work. */
struct upstream *pool_take_idle(struct server *server, uint64_t now_ns);

/* Keeps an idle connection; false when there are too many. */
bool pool_keep_idle(struct server *server, struct upstream *upstream);
void pool_forget_idle(struct server *server, struct upstream *upstream);

#endif
