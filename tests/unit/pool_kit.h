/* A group with its pools, without sockets: for the tests of pool, group and resolver. */
#ifndef POOL_KIT_H
#define POOL_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "proxy/group.h"
#include "proxy/pool.h"

#define POOLS_MAX CONFIG_THREADS_MAX

struct kit {
	struct config_upstream config;
	struct config_server servers[CONFIG_SERVERS_MAX];
	char texts[CONFIG_SERVERS_MAX][32];
	struct board_upstream board;
	struct group group;
	struct pool pools[POOLS_MAX];
	size_t pool_count;
};

static inline struct net_address
address_of(unsigned number)
{
	struct net_address address;
	char text[32];
	const char *why;

	snprintf(text, sizeof text, "10.0.%u.%u:80", number / 256, number % 256);
	assert_int_equal(net_address_parse(text, &address, &why), 0);
	return address;
}

static inline void
kit_no_wake(struct pool *pool, bool own)
{
	(void)pool;
	(void)own;
}

/* `servers` servers of weight 1 with `limit` slots each; change kit->config before kit_start(). */
static inline struct kit *
kit_new(size_t servers, uint32_t limit)
{
	struct kit *kit = aligned_alloc(64, (sizeof *kit + 63) / 64 * 64);

	memset(kit, 0, sizeof *kit);
	kit->config = (struct config_upstream){.name = (char *)(uintptr_t) "app",
	                                       .servers = kit->servers,
	                                       .server_count = servers,
	                                       .max_connections = limit,
	                                       .queue_max = 1024,
	                                       .health = {.rise = 2, .fall = 3}};
	for (size_t i = 0; i < servers; i++) {
		snprintf(kit->texts[i], sizeof kit->texts[i], "s%zu:80", i);
		kit->servers[i] = (struct config_server){
		    .text = kit->texts[i], .address = address_of((unsigned)i), .weight = 1};
	}
	return kit;
}

static inline void
kit_start(struct kit *kit, size_t pools, void (*wake)(struct pool *pool, bool own))
{
	group_init(&kit->group, &kit->config, &kit->board, wake);
	for (size_t i = 0; i < pools; i++)
		pool_init(&kit->pools[kit->pool_count++], &kit->group, NULL);
}

static inline void
kit_free(struct kit *kit)
{
	for (size_t i = 0; i < kit->pool_count; i++)
		pool_free(&kit->pools[i]);
	group_free(&kit->group);
	free(kit);
}

/* The number of the server whose slot was taken, -1 = queued, -2 = full, -3 = down. */
static inline int
take(struct kit *kit, struct waiter *waiter, uint64_t now_ns)
{
	struct server *server;

	switch (pool_take_slot(&kit->pools[0], waiter, now_ns, &server)) {
	case POOL_GRANTED:
		return server->number;
	case POOL_QUEUED:
		return -1;
	case POOL_FULL:
		return -2;
	default:
		return -3;
	}
}

static inline uint64_t
in_flight(const struct kit *kit, size_t endpoint)
{
	return atomic_load(&kit->board.endpoints[endpoint].in_flight);
}

#endif
