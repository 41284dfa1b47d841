/* One event-loop thread: base, clock readings, pools, deferred work, end-of-turn reaper, heartbeat, drain.
 * Everything that hangs off a loop is touched by its thread only; the board and the ring are how others
 * learn of it. */
#ifndef TAILRACE_PROXY_LOOP_H
#define TAILRACE_PROXY_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/board.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/log_limit.h"
#include "model/close_reason.h"
#include "model/trace_context.h"
#include "proxy/block.h"
#include "proxy/ring.h"
#include "proxy/shared.h"
#include "proxy/timer.h"

/* Idle clients may send one more request until so long before the end of a drain: then they are shut
 * down for writing, and may still close themselves. Half of a drain at most. */
#define DRAIN_LINGER_NS NS_PER_S

struct event;
struct event_base;
struct client;
struct deep_policy;
struct exchange;
struct listener;
struct pool;
struct tls;
struct tls_contexts;

/* First member of what may be freed only when no callback can hold it any more. */
struct reapable {
	struct reapable *next;
	void (*reap)(struct reapable *reapable);
};

struct loop {
	struct event_base *base;
	const struct config *config;
	struct shared *shared;          /* of all loops of the worker */
	const struct deep_policy *deep; /* borrowed; null = nobody is asked */
	struct board_thread *board;
	struct ring *ring;
	struct wheel wheel;
	struct block_pool blocks;
	struct id_pool ids;
	uint64_t now_ns;         /* newest clock reading */
	uint64_t turn_ns;        /* first reading of this turn; 0 = none yet */
	uint64_t wall_offset_ns; /* CLOCK_REALTIME - CLOCK_MONOTONIC, renewed each second */
	uint32_t generation;
	struct client *clients; /* all of them */
	size_t client_count;
	struct client *ready,
	    **ready_tail; /* clients with buffered bytes to look at after this turn */
	struct exchange *free_exchanges;
	size_t free_exchange_count;
	struct tls *again;              /* connections with bytes that no event tells of */
	const struct tls_contexts *tls; /* the worker's; null = all is in clear */
	struct client *handshakes, *handshakes_last; /* under way, oldest first */
	size_t handshake_count;
	struct reapable *dead;
	struct listener *listeners;
	size_t listener_count;
	struct pool *pools;        /* one per config->upstreams entry */
	struct log_limit refusals; /* of the log lines about them */
	struct log_limit failures; /* of those about servers */
	struct event *heartbeat;
	uint32_t ack_turn, ack_count; /* overlay client_ack: exchanges begun; records held */
	struct timer drain_timer;
	uint64_t drain_end_ns, drain_idle_ns;
	bool draining, stopped;
	bool expired;              /* the time to drain is over */
	_Atomic bool serve_wanted; /* a pool's is set */
	bool held;                 /* does not stop: other loops still run */
	int wake_fd;               /* eventfd: other threads left something to do */
	struct event *on_wake;
	_Atomic uint32_t told;          /* what other threads ask for: LOOP_TOLD_* */
	_Atomic uint64_t told_limit_ns; /* of LOOP_TOLD_DRAIN */
};

/* Makes the base, timers and pools. `shared`, `ring` and `board` outlive the loop. Returns 0, or -1
 * (logged). */
int loop_init(struct loop *loop, struct shared *shared, struct board_thread *board,
              struct ring *ring);

/* Serves until stopped: after loop_drain() when the last client is gone or the time is up. */
void loop_run(struct loop *loop);
void loop_free(struct loop *loop);

/* Accept what is queued, close the listeners, let exchanges end; `limit_ns` caps it. Again with a smaller
 * limit: shortens it. 0: now. */
void loop_drain(struct loop *loop, uint64_t limit_ns);

/* Asks another thread's loop to drain (limit as in loop_drain()), or to stop being held. Any thread. */
#define LOOP_TOLD_DRAIN 1u
#define LOOP_TOLD_RELEASE 2u
void loop_tell(struct loop *loop, uint32_t what, uint64_t limit_ns);

/* Makes the loop come to the end of a turn. Any thread. */
void loop_wake(struct loop *loop);

/* Frees at the end of the turn. */
void loop_reap(struct loop *loop, struct reapable *reapable);

/* Reads the clock: the time of the system call that just returned. */
static inline uint64_t
loop_now(struct loop *loop)
{
	loop->now_ns = clock_now_ns();
	if (loop->turn_ns == 0)
		loop->turn_ns = loop->now_ns;
	return loop->now_ns;
}

/* How long what was read at `at_ns` had waited for the callbacks before it in this turn. */
static inline uint64_t
loop_lag_at(const struct loop *loop, uint64_t at_ns)
{
	return loop->turn_ns != 0 && at_ns > loop->turn_ns ? at_ns - loop->turn_ns : 0;
}

static inline void
loop_count(struct loop *loop, enum counter counter, uint64_t n)
{
	board_add(&loop->board->counters[counter], n);
}

static inline void
loop_reason(struct loop *loop, enum close_reason reason)
{
	board_add(&loop->board->reasons[reason], 1);
}

static inline void
loop_gauge(_Atomic uint64_t *gauge, int64_t change)
{
	board_add(gauge, (uint64_t)change);
}

#endif
