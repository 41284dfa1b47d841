/* Slots and idle connections per server. */
#include "proxy/pool.h"

#include <stdlib.h>
#include "base/xmem.h"
#include "proxy/loop.h"
#include "proxy/upstream.h"

int
pools_init(struct loop *loop)
{
	const struct config *config = loop->config;

	loop->pools = xcalloc(config->upstream_count, sizeof *loop->pools);
	for (size_t i = 0; i < config->upstream_count; i++) {
		struct pool *pool = &loop->pools[i];

		pool->config = &config->upstreams[i];
		pool->server_count = pool->config->server_count;
		pool->servers = xcalloc(pool->server_count, sizeof *pool->servers);
		for (size_t j = 0; j < pool->server_count; j++) {
			pool->servers[j].config = &pool->config->servers[j];
			pool->servers[j].group = pool->config;
		}
	}
	return 0;
}

void
pools_free(struct loop *loop)
{
	for (size_t i = 0; loop->pools && i < loop->config->upstream_count; i++) {
		struct pool *pool = &loop->pools[i];

		for (size_t j = 0; j < pool->server_count; j++) {
			struct server *server = &pool->servers[j];

			while (server->idle_count > 0)
				upstream_close(server->idle[server->idle_count - 1]);
			free(server->idle);
		}
		free(pool->servers);
	}
	free(loop->pools);
	loop->pools = NULL;
}

static bool
is_better(const struct server *server, const struct server *best, const struct server *failed)
{
	if (!best || best == failed || server == failed)
		return !best || best == failed;
	return server->in_flight < best->in_flight;
}

struct server *
pool_take_slot(struct pool *pool, const struct server *failed)
{
	struct server *best = NULL;

	for (size_t i = 0; i < pool->server_count; i++) {
		struct server *server = &pool->servers[(pool->turn + i) % pool->server_count];

		if (server->in_flight < pool->config->max_connections &&
		    is_better(server, best, failed))
			best = server;
	}
	if (!best)
		return NULL;
	pool->turn = (size_t)(best - pool->servers) + 1;
	best->in_flight++;
	return best;
}

void
pool_return_slot(struct server *server)
{
	server->in_flight--;
}

struct upstream *
pool_take_idle(struct server *server, uint64_t now_ns)
{
	struct upstream *upstream;
	size_t at;

	if (server->idle_count == 0)
		return NULL;
	/* The low bits of a nanosecond clock are random enough for sharing out work. */
	at = server->idle_count == 1 ? 0
	                             : (now_ns * 0x9e3779b97f4a7c15ull >> 32) % server->idle_count;
	upstream = server->idle[at];
	pool_forget_idle(server, upstream);
	return upstream;
}

bool
pool_keep_idle(struct server *server, struct upstream *upstream)
{
	if (server->idle_count >= SERVER_IDLE_MAX)
		return false;
	if (server->idle_count == server->idle_size) {
		server->idle_size = server->idle_size ? server->idle_size * 2 : 8;
		server->idle = xrealloc(server->idle, server->idle_size, sizeof *server->idle);
	}
	upstream->idle_index = server->idle_count;
	server->idle[server->idle_count++] = upstream;
	return true;
}

void
pool_forget_idle(struct server *server, struct upstream *upstream)
{
	struct upstream *last = server->idle[--server->idle_count];

	server->idle[upstream->idle_index] = last;
	last->idle_index = upstream->idle_index;
}
