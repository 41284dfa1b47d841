/* Choice, slots, queue and idle connections. Between a slot given back and one who begins to wait
 * the order is: the former takes one off `in_flight`, then reads `waiting`; the latter adds to
 * `waiting`, then tries `in_flight` again. All are sequentially consistent: one sees the other. */
#include "proxy/pool.h"

#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "proxy/loop.h"
#include "proxy/upstream.h"

/* --- addresses ----------------------------------------------------------- */

static void
close_idle(struct server *server)
{
	while (server->idle_count > 0)
		upstream_close(server->idle[server->idle_count - 1]);
}

/* Copies what the mutex guards. Returns whether the server has another address than before. */
static bool
copy_endpoint(struct server *server)
{
	const struct endpoint *endpoint = server->endpoint;
	bool other = server->epoch != endpoint->epoch;

	server->live = endpoint->live;
	if (other) {
		server->epoch = endpoint->epoch;
		server->address = endpoint->address;
		server->number = endpoint->server;
		server->config = &server->group->servers[server->number];
	}
	return other || !server->live;
}

void
pool_refresh(struct pool *pool)
{
	struct group *group = pool->group;
	bool gone[BOARD_ENDPOINTS_MAX];

	if (pool->version == atomic_load_explicit(&group->version, memory_order_acquire))
		return;
	pthread_mutex_lock(&group->mutex);
	pool->version = atomic_load(&group->version);
	pool->server_count = atomic_load(&group->endpoint_count);
	for (size_t i = 0; i < pool->server_count; i++)
		gone[i] = copy_endpoint(&pool->servers[i]);
	pthread_mutex_unlock(&group->mutex);
	for (size_t i = 0; i < pool->server_count; i++)
		if (gone[i])
			close_idle(&pool->servers[i]);
}

/* --- choice -------------------------------------------------------------- */

/* What stands in the way of a server, worst last. */
enum fitness { FITS, FITS_AGAIN, FITS_EJECTED, FITS_NOT };

static enum fitness
fitness(const struct server *server, uint16_t failed)
{
	const struct endpoint *endpoint = server->endpoint;

	if (!server->live || atomic_load_explicit(&endpoint->down, memory_order_relaxed) ||
	    atomic_load_explicit(&endpoint->board->in_flight, memory_order_relaxed) >=
	        server->group->max_connections)
		return FITS_NOT;
	if (atomic_load_explicit(&endpoint->ejected_until_ns, memory_order_relaxed) != 0)
		return FITS_EJECTED;
	return server->index == failed ? FITS_AGAIN : FITS;
}

static uint64_t
load(const struct server *server)
{
	return atomic_load_explicit(&server->endpoint->board->in_flight, memory_order_relaxed) + 1;
}

/* Fewest in flight for its weight; equal ones in their turn. */
static struct server *
least_outstanding(struct pool *pool, uint16_t failed, enum fitness wanted)
{
	struct server *best = NULL;
	uint64_t best_load = 0;

	for (size_t i = 0; i < pool->server_count; i++) {
		size_t at = pool->turn + i;
		struct server *server =
		    &pool->servers[at < pool->server_count ? at : at - pool->server_count];
		uint64_t own;

		if (fitness(server, failed) != wanted)
			continue;
		own = load(server);
		if (best && own * best->config->weight >= best_load * server->config->weight)
			continue;
		best = server;
		best_load = own;
	}
	if (best)
		pool->turn = (size_t)(best - pool->servers + 1) % pool->server_count;
	return best;
}

/* Smooth weighted round robin: who has waited for longest, measured in shares. */
static struct server *
round_robin(struct pool *pool, uint16_t failed, enum fitness wanted)
{
	struct server *best = NULL;
	int64_t total = 0;

	for (size_t i = 0; i < pool->server_count; i++) {
		struct server *server = &pool->servers[i];

		if (fitness(server, failed) != wanted)
			continue;
		server->credit += server->config->weight;
		total += server->config->weight;
		if (!best || server->credit > best->credit)
			best = server;
	}
	if (best)
		best->credit -= total;
	return best;
}

/* An ejected server whose time is over: one exchange finds out whether it is back. */
static struct server *
on_trial(struct pool *pool, uint64_t now_ns)
{
	for (size_t i = 0; i < pool->server_count; i++)
		if (fitness(&pool->servers[i], GROUP_NO_ENDPOINT) == FITS_EJECTED &&
		    group_try_ejected(pool->group, i, now_ns))
			return &pool->servers[i];
	return NULL;
}

/* Whether a server could be taken that is not ejected, were it not full. */
static bool
any_well(const struct pool *pool)
{
	for (size_t i = 0; i < pool->server_count; i++) {
		const struct endpoint *endpoint = pool->servers[i].endpoint;

		if (pool->servers[i].live && !atomic_load(&endpoint->down) &&
		    atomic_load(&endpoint->ejected_until_ns) == 0)
			return true;
	}
	return false;
}

static struct server *
choose(struct pool *pool, uint16_t failed, uint64_t now_ns)
{
	bool in_turn = pool->config->balance == CONFIG_ROUND_ROBIN;
	struct server *server = NULL;

	if (pool->server_count == 1) {
		server = &pool->servers[0];
		return fitness(server, GROUP_NO_ENDPOINT) != FITS_NOT ? server : NULL;
	}
	if (atomic_load_explicit(&pool->group->ejected_count, memory_order_relaxed) > 0)
		server = on_trial(pool, now_ns);

	for (enum fitness wanted = FITS; !server && wanted < FITS_NOT; wanted++) {
		/* With all of them ejected, any is better than none. */
		if (wanted == FITS_EJECTED && any_well(pool))
			break;
		server = in_turn ? round_robin(pool, failed, wanted)
		                 : least_outstanding(pool, failed, wanted);
	}
	return server;
}

/* The best server with a slot, taken; null where all are full or down. */
static struct server *
choose_and_take(struct pool *pool, uint16_t failed, uint64_t now_ns)
{
	struct server *server;

	/* Another thread may take the last slot between the look and the grasp: then that server is
	 * full, and the next look passes it over. */
	while ((server = choose(pool, failed, now_ns)) != NULL)
		if (group_take_slot(pool->group, server->index))
			return server;
	return NULL;
}

static bool
any_up(const struct pool *pool)
{
	for (size_t i = 0; i < pool->server_count; i++)
		if (pool->servers[i].live && !atomic_load(&pool->servers[i].endpoint->down))
			return true;
	return false;
}

/* --- queue --------------------------------------------------------------- */

static void
unlink_waiter(struct waiter *waiter, struct waiter ***last)
{
	*waiter->link = waiter->next;
	if (waiter->next)
		waiter->next->link = waiter->link;
	else
		*last = waiter->link;
}

static void
append_waiter(struct waiter *waiter, struct waiter ***last)
{
	waiter->next = NULL;
	waiter->link = *last;
	**last = waiter;
	*last = &waiter->next;
}

static void
count_waiting(struct group *group, int change)
{
	uint32_t waiting = atomic_fetch_add(&group->waiting, (uint32_t)change) + (uint32_t)change;

	atomic_store_explicit(&group->board->waiting, waiting, memory_order_relaxed);
}

/* Under the mutex: slots to those who wait, first come first served, as long as there are any. */
static void
grant(struct pool *pool, uint64_t now_ns)
{
	struct group *group = pool->group;

	while (group->first) {
		struct waiter *waiter = group->first;
		struct server *server = choose_and_take(pool, GROUP_NO_ENDPOINT, now_ns);

		if (!server)
			return;
		unlink_waiter(waiter, &group->last);
		count_waiting(group, -1);
		waiter->state = WAITER_GRANTED;
		waiter->granted = server->index;
		append_waiter(waiter, &waiter->pool->granted_last);
		if (!atomic_exchange(&waiter->pool->serve_wanted, true))
			group->wake(waiter->pool, waiter->pool == pool);
	}
}

static void
serve_waiting(struct pool *pool, uint64_t now_ns)
{
	if (atomic_load(&pool->group->waiting) == 0)
		return;
	pool_refresh(pool);
	pthread_mutex_lock(&pool->group->mutex);
	grant(pool, now_ns);
	pthread_mutex_unlock(&pool->group->mutex);
}

/* Joins the queue, unless a slot has become free since it was looked for. */
static enum pool_answer
join_queue(struct pool *pool, struct waiter *waiter, uint64_t now_ns)
{
	struct group *group = pool->group;
	enum pool_answer answer = POOL_QUEUED;

	pthread_mutex_lock(&group->mutex);
	if (atomic_load(&group->waiting) >= pool->config->queue_max) {
		pthread_mutex_unlock(&group->mutex);
		return POOL_FULL;
	}
	waiter->state = WAITER_QUEUED;
	append_waiter(waiter, &group->last);
	count_waiting(group, 1);
	grant(pool, now_ns);
	if (waiter->state == WAITER_GRANTED) {
		unlink_waiter(waiter, &pool->granted_last);
		answer = POOL_GRANTED;
	} else {
		board_share(&group->board->queued, 1);
	}
	pthread_mutex_unlock(&group->mutex);
	return answer;
}

enum pool_answer
pool_take_slot(struct pool *pool, struct waiter *waiter, uint64_t now_ns, struct server **ret)
{
	enum pool_answer answer;

	pool_refresh(pool);
	waiter->pool = pool;
	/* Nobody overtakes those who wait. */
	if (atomic_load(&pool->group->waiting) == 0) {
		*ret = choose_and_take(pool, GROUP_NO_ENDPOINT, now_ns);
		if (*ret)
			return POOL_GRANTED;
	}
	if (!any_up(pool)) {
		board_share(&pool->group->board->refused_down, 1);
		return POOL_DOWN;
	}
	answer = join_queue(pool, waiter, now_ns);
	if (answer == POOL_GRANTED)
		*ret = &pool->servers[waiter->granted];
	else if (answer == POOL_FULL)
		board_share(&pool->group->board->refused_full, 1);
	return answer;
}

static void
return_slot(struct pool *pool, uint16_t endpoint)
{
	atomic_fetch_sub(&pool->group->endpoints[endpoint].board->in_flight, 1);
}

void
pool_return_slot(struct server *server, uint64_t now_ns)
{
	return_slot(server->pool, server->index);
	serve_waiting(server->pool, now_ns);
}

struct server *
pool_next_slot(struct server *server, uint64_t now_ns)
{
	struct server *other;

	pool_refresh(server->pool);
	other = choose_and_take(server->pool, server->index, now_ns);
	if (!other)
		return server;
	pool_return_slot(server, now_ns);
	return other;
}

void
pool_leave(struct pool *pool, struct waiter *waiter, uint64_t now_ns)
{
	struct group *group = pool->group;

	pthread_mutex_lock(&group->mutex);
	if (waiter->state == WAITER_QUEUED) {
		unlink_waiter(waiter, &group->last);
		count_waiting(group, -1);
	} else {
		unlink_waiter(waiter, &pool->granted_last);
		return_slot(pool, waiter->granted);
		grant(pool, now_ns);
	}
	pthread_mutex_unlock(&group->mutex);
}

struct waiter *
pool_serve(struct pool *pool, uint64_t now_ns, struct server **ret)
{
	struct group *group = pool->group;
	struct waiter *waiter;

	pthread_mutex_lock(&group->mutex);
	/* Off before the look: what is granted from now on sets it again. */
	atomic_store(&pool->serve_wanted, false);
	grant(pool, now_ns);
	waiter = pool->granted;
	if (waiter)
		unlink_waiter(waiter, &pool->granted_last);
	if (pool->granted)
		atomic_store(&pool->serve_wanted, true);
	pthread_mutex_unlock(&group->mutex);
	pool_refresh(pool); /* another thread may have granted what only it knew of */
	if (waiter)
		*ret = &pool->servers[waiter->granted];
	return waiter;
}

/* --- idle connections ---------------------------------------------------- */

struct upstream *
pool_take_idle(struct server *server, uint64_t now_ns)
{
	struct upstream *upstream;
	size_t at;

	if (server->idle_count == 0 ||
	    atomic_load_explicit(&server->endpoint->ejected_until_ns, memory_order_relaxed) != 0)
		return NULL;
	/* The low bits of a nanosecond clock are random enough for sharing out work. */
	at = server->idle_count == 1 ? 0
	                             : (now_ns * 0x9e3779b97f4a7c15ull >> 32) % server->idle_count;
	upstream = server->idle[at];
	pool_forget_idle(server, upstream);
	return upstream;
}

/* False where memory is short: then the connection is not kept. */
static bool
grow_idle(struct server *server)
{
	uint32_t size = server->idle_size ? server->idle_size * 2 : 8;
	struct upstream **idle = xmem_try(size * sizeof *idle);

	if (!idle)
		return false;
	if (server->idle_count > 0)
		memcpy(idle, server->idle, server->idle_count * sizeof *idle);
	free(server->idle);
	server->idle = idle;
	server->idle_size = size;
	return true;
}

bool
pool_keep_idle(struct server *server, struct upstream *upstream)
{
	if (server->idle_count >= SERVER_IDLE_MAX || !server->live ||
	    upstream->epoch != server->epoch)
		return false;
	if (server->idle_count == server->idle_size && !grow_idle(server))
		return false;
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

/* --- life ---------------------------------------------------------------- */

void
pool_init(struct pool *pool, struct group *group, struct loop *loop)
{
	pool->config = group->config;
	pool->group = group;
	pool->loop = loop;
	pool->granted_last = &pool->granted;
	pool->servers = xcalloc(BOARD_ENDPOINTS_MAX, sizeof *pool->servers);
	for (size_t i = 0; i < BOARD_ENDPOINTS_MAX; i++) {
		pool->servers[i].pool = pool;
		pool->servers[i].group = group->config;
		pool->servers[i].endpoint = &group->endpoints[i];
		pool->servers[i].index = (uint16_t)i;
	}
	group->pools[group->pool_count++] = pool;
	pool_refresh(pool);
}

void
pool_free(struct pool *pool)
{
	for (size_t i = 0; pool->servers && i < BOARD_ENDPOINTS_MAX; i++) {
		close_idle(&pool->servers[i]);
		free(pool->servers[i].idle);
	}
	free(pool->servers);
}

int
pools_init(struct loop *loop)
{
	struct shared *shared = loop->shared;

	loop->pools = xcalloc(loop->config->upstream_count, sizeof *loop->pools);
	for (size_t i = 0; i < loop->config->upstream_count; i++)
		pool_init(&loop->pools[i], &shared->groups[i], loop);
	return 0;
}

void
pools_free(struct loop *loop)
{
	for (size_t i = 0; loop->pools && i < loop->config->upstream_count; i++)
		pool_free(&loop->pools[i]);
	free(loop->pools);
	loop->pools = NULL;
}
