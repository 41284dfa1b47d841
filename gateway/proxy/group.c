/* Addresses, health and ejection of a group's servers. Slots and the queue are pool.c's. */
#include "proxy/group.h"

#include <string.h>
#include "base/log.h"
#include "proxy/pool.h"

/* --- state as others see it ---------------------------------------------- */

/* Under the mutex, whenever the state of an endpoint changed. */
static void
publish(struct group *group, size_t index)
{
	uint32_t ejected = 0;

	struct endpoint *endpoint = &group->endpoints[index];
	enum board_server_state state = BOARD_SERVER_UP;

	if (!endpoint->live)
		state = BOARD_SERVER_NONE;
	else if (atomic_load_explicit(&endpoint->down, memory_order_relaxed))
		state = BOARD_SERVER_DOWN;
	else if (atomic_load_explicit(&endpoint->ejected_until_ns, memory_order_relaxed) != 0)
		state = BOARD_SERVER_EJECTED;
	atomic_store_explicit(&endpoint->board->server, endpoint->server, memory_order_relaxed);
	atomic_store_explicit(&endpoint->board->state, (uint32_t)state, memory_order_relaxed);
	for (size_t i = 0; i < atomic_load(&group->endpoint_count); i++)
		ejected += group->endpoints[i].live &&
		           atomic_load(&group->endpoints[i].ejected_until_ns) != 0;
	atomic_store(&group->ejected_count, ejected);
}

static void
publish_locked(struct group *group, size_t index)
{
	pthread_mutex_lock(&group->mutex);
	publish(group, index);
	pthread_mutex_unlock(&group->mutex);
}

/* More can be served than before: those who wait are looked at by one of the threads. */
static void
serve_waiting(struct group *group)
{
	if (atomic_load(&group->waiting) > 0 && group->pool_count > 0) {
		atomic_store(&group->pools[0]->serve_wanted, true);
		group->wake(group->pools[0], false);
	}
}

/* --- addresses ----------------------------------------------------------- */

static bool
same_address(const struct net_address *a, const struct net_address *b)
{
	return a->length == b->length && memcmp(&a->sa, &b->sa, a->length) == 0;
}

static bool
is_among(const struct net_address *address, const struct net_address *addresses, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (same_address(address, &addresses[i]))
			return true;
	return false;
}

static void
endpoint_begin(struct group *group, size_t index, size_t server, const struct net_address *address)
{
	struct endpoint *endpoint = &group->endpoints[index];

	endpoint->address = *address;
	endpoint->epoch++;
	endpoint->server = (uint16_t)server;
	endpoint->live = true;
	atomic_fetch_add(&group->live_count, 1);
	atomic_store(&endpoint->failures, 0);
	atomic_store(&endpoint->rounds, 0);
	atomic_store(&endpoint->ejected_until_ns, 0);
	atomic_store(&endpoint->down, false);
	publish(group, index);
}

/* The same address come back, else a place without exchanges in flight; -1: none. A place never
 * used comes before one whose idle connections other threads may still hold. */
static int
find_place(struct group *group, size_t server, const struct net_address *address)
{
	uint32_t count = atomic_load(&group->endpoint_count);
	int found = -1;

	for (size_t i = 0; i < count; i++) {
		const struct endpoint *endpoint = &group->endpoints[i];

		if (endpoint->live)
			continue;
		if (endpoint->server == server && same_address(&endpoint->address, address))
			return (int)i;
		if (found < 0 && atomic_load(&endpoint->board->in_flight) == 0)
			found = (int)i;
	}
	if (count == BOARD_ENDPOINTS_MAX)
		return found;
	atomic_store(&group->endpoint_count, count + 1);
	return (int)count;
}

static bool
retire_missing(struct group *group, size_t server, const struct net_address *addresses,
               size_t count)
{
	bool changed = false;

	for (size_t i = 0; i < atomic_load(&group->endpoint_count); i++) {
		struct endpoint *endpoint = &group->endpoints[i];

		if (!endpoint->live || endpoint->server != server ||
		    is_among(&endpoint->address, addresses, count))
			continue;
		endpoint->live = false;
		atomic_fetch_sub(&group->live_count, 1);
		publish(group, i);
		changed = true;
	}
	return changed;
}

static bool
has_address(const struct group *group, size_t server, const struct net_address *address)
{
	for (size_t i = 0; i < group->endpoint_count; i++)
		if (group->endpoints[i].live && group->endpoints[i].server == server &&
		    same_address(&group->endpoints[i].address, address))
			return true;
	return false;
}

bool
group_set_addresses(struct group *group, size_t server, const struct net_address *addresses,
                    size_t count)
{
	bool changed;

	pthread_mutex_lock(&group->mutex);
	changed = retire_missing(group, server, addresses, count);
	for (size_t i = 0; i < count; i++) {
		int place;

		if (has_address(group, server, &addresses[i]))
			continue;
		place = find_place(group, server, &addresses[i]);
		if (place < 0) {
			board_share(&group->board->addresses_dropped, 1);
			continue;
		}
		endpoint_begin(group, (size_t)place, server, &addresses[i]);
		changed = true;
	}
	if (changed)
		atomic_fetch_add(&group->version, 1);
	pthread_mutex_unlock(&group->mutex);
	if (changed)
		serve_waiting(group);
	return changed;
}

/* --- health -------------------------------------------------------------- */

void
group_connected(struct group *group, size_t index)
{
	board_share(&group->board->servers[group->endpoints[index].server].connects, 1);
	group_reachable(group, index);
}

void
group_reachable(struct group *group, size_t index)
{
	struct endpoint *endpoint = &group->endpoints[index];

	if (atomic_load_explicit(&endpoint->failures, memory_order_relaxed) == 0)
		return;
	atomic_store(&endpoint->failures, 0);
	atomic_store(&endpoint->rounds, 0);
	if (atomic_exchange(&endpoint->ejected_until_ns, 0) == 0)
		return;
	log_info("%s: server %s can be connected to again", group->config->name,
	         group->config->servers[endpoint->server].text);
	publish_locked(group, index);
	serve_waiting(group);
}

static uint64_t
ejection_ns(uint32_t rounds)
{
	uint64_t ns = EJECT_MIN_NS;

	while (rounds-- > 0 && ns < EJECT_MAX_NS)
		ns *= 2;
	return ns < EJECT_MAX_NS ? ns : EJECT_MAX_NS;
}

void
group_connect_failed(struct group *group, size_t index, uint64_t now_ns)
{
	struct endpoint *endpoint = &group->endpoints[index];
	uint32_t failures = atomic_fetch_add(&endpoint->failures, 1) + 1;
	uint64_t not_ejected = 0;

	board_share(&group->board->servers[endpoint->server].connect_failures, 1);
	if (failures < EJECT_FAILURES || atomic_load(&group->live_count) < 2)
		return;
	if (!atomic_compare_exchange_strong(&endpoint->ejected_until_ns, &not_ejected,
	                                    now_ns + ejection_ns(0)))
		return; /* a trial that failed, or one sent before */
	board_share(&group->board->servers[endpoint->server].ejections, 1);
	log_warn("%s: server %s cannot be connected to: left alone for a while",
	         group->config->name, group->config->servers[endpoint->server].text);
	publish_locked(group, index);
}

bool
group_try_ejected(struct group *group, size_t index, uint64_t now_ns)
{
	struct endpoint *endpoint = &group->endpoints[index];
	uint64_t until_ns = atomic_load(&endpoint->ejected_until_ns);
	uint32_t rounds = atomic_load(&endpoint->rounds) + 1;

	if (until_ns == 0)
		return true;
	/* Whoever moves the time on is the trial; should it fail, the next one comes then. */
	if (now_ns < until_ns ||
	    !atomic_compare_exchange_strong(&endpoint->ejected_until_ns, &until_ns,
	                                    now_ns + ejection_ns(rounds)))
		return false;
	atomic_store(&endpoint->rounds, rounds);
	return true;
}

void
group_set_down(struct group *group, size_t index, bool down)
{
	struct endpoint *endpoint = &group->endpoints[index];

	atomic_store(&endpoint->down, down);
	publish_locked(group, index);
	if (!down)
		serve_waiting(group);
}

/* --- life ---------------------------------------------------------------- */

static void
board_begin(struct board_upstream *board, uint64_t key)
{
	if (atomic_load(&board->key) != key)
		memset(board, 0, sizeof *board);
	atomic_store(&board->key, key);
	atomic_store(&board->waiting, 0);
	for (size_t i = 0; i < BOARD_ENDPOINTS_MAX; i++) {
		atomic_store(&board->endpoints[i].in_flight, 0);
		atomic_store(&board->endpoints[i].connections, 0);
		atomic_store(&board->endpoints[i].tunnels, 0);
		atomic_store(&board->endpoints[i].state, BOARD_SERVER_NONE);
	}
}

void
group_init(struct group *group, const struct config_upstream *config, struct board_upstream *board,
           void (*wake)(struct pool *pool, bool own))
{
	memset(group, 0, sizeof *group);
	group->config = config;
	group->board = board;
	group->wake = wake;
	group->last = &group->first;
	pthread_mutex_init(&group->mutex, NULL);
	board_begin(board, board_upstream_key(config));
	for (size_t i = 0; i < BOARD_ENDPOINTS_MAX; i++)
		group->endpoints[i].board = &board->endpoints[i];
	for (size_t i = 0; i < config->server_count; i++)
		group_set_addresses(group, i, &config->servers[i].address,
		                    config->servers[i].address.length > 0 ? 1 : 0);
}

void
group_free(struct group *group)
{
	pthread_mutex_destroy(&group->mutex);
}
