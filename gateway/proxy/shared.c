/* Making and freeing of what threads share. */
#include "proxy/shared.h"

#include <stdlib.h>
#include "base/xmem.h"
#include "proxy/loop.h"
#include "proxy/pool.h"

/* The pool's own thread comes to the end of its turn by itself. */
static void
wake_pool(struct pool *pool, bool own)
{
	atomic_store_explicit(&pool->loop->serve_wanted, true, memory_order_release);
	if (!own)
		loop_wake(pool->loop);
}

void
shared_init(struct shared *shared, const struct config *config, struct board_upstream *board)
{
	shared->config = config;
	shared->groups = xcalloc(config->upstream_count, sizeof *shared->groups);
	for (size_t i = 0; i < config->upstream_count; i++)
		group_init(&shared->groups[i], &config->upstreams[i], &board[i], wake_pool);
}

void
shared_free(struct shared *shared)
{
	for (size_t i = 0; shared->groups && i < shared->config->upstream_count; i++)
		group_free(&shared->groups[i]);
	free(shared->groups);
	shared->groups = NULL;
}
