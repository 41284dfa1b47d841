/* The board: shared memory of supervisor, workers and collector. Heartbeats, states and
 * counters; no secrets but the deep key and the ticket keys, no pointers. Made by the supervisor as a memfd of fixed
 * size, mapped by all.  THREADS: every field is written by one process or thread only (said
 * beside it) and read by all, as relaxed atomics; states are release/acquire. */
#ifndef TAILRACE_BASE_BOARD_H
#define TAILRACE_BASE_BOARD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "base/clock.h"
#include "base/config.h"
#include "base/ticket_keys.h"

#define BOARD_MAGIC 0x74616c72u /* "talr" */
#define BOARD_GENERATIONS_MAX 4 /* workers alive at one time, draining ones included */
#define BOARD_THREADS_MAX 8     /* threads of one worker */
#define BOARD_RINGS_MAX (BOARD_GENERATIONS_MAX * BOARD_THREADS_MAX)
#define BOARD_LISTENERS_MAX 16 /* CONFIG_LISTENERS_MAX; asserted */
#define BOARD_ADDRESS_SIZE 128
#define BOARD_LAG_BUCKETS 12  /* bucket i: up to 2^(10 + 2 i) ns; the last: any */
#define BOARD_REASONS_MAX 160 /* room for close_reasons.def; asserted */

#define BOARD_UPSTREAMS_MAX CONFIG_UPSTREAMS_MAX
#define BOARD_SERVERS_MAX CONFIG_SERVERS_MAX
#define BOARD_ENDPOINTS_MAX 64 /* addresses of one upstream: names may have several */

enum counter {
#define COUNTER(ID, metric, labels, help) COUNTER_##ID,
#include "base/counters.def"
#undef COUNTER
	COUNTER_COUNT
};

enum board_state {
	BOARD_EMPTY,    /* no process here */
	BOARD_STARTING, /* spawned, not ready */
	BOARD_RUNNING,  /* ready: serving */
	BOARD_DRAINING, /* told to stop, finishing */
	BOARD_STOPPED,  /* ended as asked */
	BOARD_DEAD,     /* ended otherwise */
};

/* One worker thread. Counters go on when a slot is used again: they are the gateway's, not the
 * process's. */
struct board_thread {
	_Atomic uint64_t heartbeat_ns; /* thread, about once a second */
	_Atomic uint64_t
	    in_flight; /* thread: exchanges begun and not ended; supervisor zeroes after death */
	_Atomic uint64_t client_connections; /* thread: open now */
	_Atomic uint64_t tls_handshakes;     /* thread: clients' under way */
	_Atomic uint64_t counters[COUNTER_COUNT];
	_Atomic uint64_t reasons[BOARD_REASONS_MAX]; /* closes and refusals by enum close_reason */
	_Atomic uint64_t loop_lag_buckets[BOARD_LAG_BUCKETS]; /* loop turns measured */
	_Atomic uint64_t loop_lag_sum_ns;
	_Atomic uint64_t loop_lag_max_ns;
};

/* One process slot. `pid`, `state`, `generation`, `restarts` are the supervisor's, except that a
 * child sets its own state to RUNNING, DRAINING and STOPPED. */
struct board_process {
	_Atomic int32_t pid;
	_Atomic uint32_t state; /* enum board_state */
	_Atomic uint64_t generation;
	_Atomic uint32_t config; /* serial of its configuration */
	_Atomic uint64_t started_ns;
	_Atomic uint64_t heartbeat_ns; /* the process's main loop */
};

enum board_server_state {
	BOARD_SERVER_NONE,    /* no address here */
	BOARD_SERVER_UP,      /* gets exchanges */
	BOARD_SERVER_EJECTED, /* cannot be connected to: tried now and then */
	BOARD_SERVER_DOWN,    /* its health checks fail: gets none */
};

/* One address of a server. `in_flight` is the slots' own counter: what /metrics shows is what the
 * limit sees. A line of its own: all threads of the worker add to it. */
struct board_endpoint {
	_Alignas(64) _Atomic uint64_t in_flight; /* slots taken */
	_Atomic uint64_t connections;            /* open: idle ones and tunnels included */
	_Atomic uint64_t tunnels;                /* of them, those that hold no slot */
	_Atomic uint32_t server;                 /* index in the upstream's servers */
	_Atomic uint32_t state;                  /* enum board_server_state */
};

struct board_server {
	_Atomic uint64_t connects, connect_failures, ejections;
	_Atomic uint64_t checks_passed, checks_failed;
};

/* An upstream in one worker; written by all its threads, by atomic addition. Of a slot whose worker
 * neither runs nor drains only the counters mean anything. */
struct board_upstream {
	_Atomic uint64_t key;     /* board_upstream_key() of what is counted here; 0 = nothing */
	_Atomic uint64_t waiting; /* exchanges in the queue now */
	_Atomic uint64_t queued;  /* exchanges that had to wait */
	_Atomic uint64_t refused_full; /* queue_max */
	_Atomic uint64_t refused_late; /* queue_timeout_ms */
	_Atomic uint64_t refused_down; /* no server is up */
	_Atomic uint64_t left;         /* the client went while it waited */
	_Atomic uint64_t retries;
	_Atomic uint64_t lookups, lookup_failures, addresses_dropped;
	struct board_server servers[BOARD_SERVERS_MAX];
	struct board_endpoint endpoints[BOARD_ENDPOINTS_MAX];
};

/* A client listener on TCP: what waits in the kernel to be accepted, measured once a second by the
 * supervisor. The text may change with a reload, in the middle of a reader's copy; its last byte
 * never. */
struct board_listener {
	char address[BOARD_ADDRESS_SIZE];
	_Atomic uint32_t depth, limit;
};

/* Deep profiles wanted of a route's next requests. The collector writes the route while `left` is 0
 * and then sets it; workers take one each. */
#define BOARD_DEEP_ORDERS 8
#define BOARD_DEEP_ROUTE_MAX 512
struct board_deep_order {
	_Atomic int64_t left;
	_Atomic uint64_t until_ns; /* CLOCK_MONOTONIC; ended then */
	char route[BOARD_DEEP_ROUTE_MAX + 1];
};

struct board {
	uint32_t magic,
	    version; /* version = hash of the build, so that two builds never share a board */
	uint64_t size;
	uint64_t created_ns;        /* CLOCK_MONOTONIC */
	uint8_t deep_key[32];       /* random, made by the supervisor at start */
	struct ticket_keys tickets; /* supervisor; workers read */
	struct board_process supervisor, collector;
	struct board_process
	    workers[BOARD_GENERATIONS_MAX]; /* slot = generation % BOARD_GENERATIONS_MAX */
	struct board_thread threads[BOARD_GENERATIONS_MAX][BOARD_THREADS_MAX];
	struct board_upstream upstreams[BOARD_GENERATIONS_MAX][BOARD_UPSTREAMS_MAX];
	/* worker, at its start: the keys of these, to look for; 0 = nothing there */
	_Atomic uint64_t upstream_keys[BOARD_GENERATIONS_MAX][BOARD_UPSTREAMS_MAX];
	struct board_listener listeners[BOARD_LISTENERS_MAX];
	_Atomic uint32_t listener_count;
	_Atomic uint64_t reloads, reloads_refused; /* supervisor */
	struct board_deep_order deep_orders[BOARD_DEEP_ORDERS];
	_Atomic uint64_t deep_open;      /* collector: orders that may be open */
	_Atomic uint64_t deep_due_ns;    /* workers: when the limit per minute is used up by */
	_Atomic uint64_t exchanges_lost; /* supervisor: in flight at the death of a worker */
	_Atomic uint64_t worker_restarts,
	    collector_restarts; /* supervisor: deaths it answered with a restart */
	_Atomic uint64_t
	    stopping; /* supervisor: 1 once the whole gateway is to end (readyz turns 503) */
};

/* Makes the board's memfd (sized, seals against resize). Returns the descriptor, or -1 with
 * errno. */
int board_create(void);

/* Maps a board. Returns null where the descriptor holds no board of this build. Never unmapped
 * but at exit or by board_detach(). */
struct board *board_attach(int fd);
void board_detach(struct board *board);

/* Maps the memory of all rings (a memfd of BOARD_RINGS_MAX * RING_BYTES, sparse), or null with
 * errno. Ring i belongs to slot i / BOARD_THREADS_MAX, thread i % BOARD_THREADS_MAX. */
int board_rings_create(size_t ring_bytes);
void *board_rings_attach(int fd, size_t ring_bytes);

/* Tells upstreams apart whose place on the board is the same, after a reload: a hash of name and
 * servers, never 0. */
uint64_t board_upstream_key(const struct config_upstream *upstream);

/* Sum over all worker threads of the field at `offset` in struct board_thread, an _Atomic uint64_t. */
uint64_t board_threads_sum(const struct board *board, size_t offset);

/* The latest that the event loop of any worker thread has been. */
uint64_t board_loop_lag_max_ns(const struct board *board);

/* Adds to a counter that several threads share. */
static inline void
board_share(_Atomic uint64_t *counter, int64_t n)
{
	atomic_fetch_add_explicit(counter, (uint64_t)n, memory_order_relaxed);
}

/* The bucket of loop_lag_buckets that `ns` counts in. */
static inline unsigned
board_lag_bucket(uint64_t ns)
{
	unsigned top = ns > 1 ? 63u - (unsigned)__builtin_clzll(ns - 1) : 0;
	unsigned bucket = top < 10 ? 0 : (top - 8) / 2;

	return bucket < BOARD_LAG_BUCKETS ? bucket : BOARD_LAG_BUCKETS - 1;
}

/* Adds to a counter of one thread: a relaxed load and store, for its only writer. */
static inline void
board_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
	                      memory_order_relaxed);
}

#endif
