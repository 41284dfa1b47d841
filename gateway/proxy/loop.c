/* The event loop thread: turns, reaper, deferred clients, heartbeat and loop lag, drain. */
#include "proxy/loop.h"

#include <event2/event.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/log.h"
#include "proxy/client.h"
#include "proxy/exchange.h"
#include "proxy/listener.h"
#include "proxy/pool.h"
#include "proxy/proxy.h"
#include "proxy/tls.h"

_Static_assert(CLOSE_REASON_COUNT <= BOARD_REASONS_MAX, "the board has no room for all reasons");

static void
on_heartbeat(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	uint64_t now_ns = loop_now(loop);

	(void)fd;
	(void)what;
	loop->wall_offset_ns = clock_wall_ns() - now_ns;
	atomic_store_explicit(&loop->board->heartbeat_ns, now_ns, memory_order_relaxed);
}

static struct event_base *
base_make(void)
{
	struct event_config *wishes = event_config_new();
	struct event_base *base;

	if (!wishes)
		return NULL;
	event_config_set_flag(wishes, EVENT_BASE_FLAG_NOLOCK);
	base = event_base_new_with_config(wishes);
	event_config_free(wishes);
	return base;
}

static int
heartbeat_start(struct loop *loop)
{
	struct timeval second = {.tv_sec = 1};

	loop->heartbeat = event_new(loop->base, -1, EV_PERSIST, on_heartbeat, loop);
	if (!loop->heartbeat || evtimer_add(loop->heartbeat, &second) < 0)
		return -1;
	on_heartbeat(-1, 0, loop);
	return 0;
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct loop *loop = arg;
	uint64_t count;
	uint32_t told;

	(void)what;
	if (read(fd, &count, sizeof count) < 0)
		return;
	told = atomic_exchange_explicit(&loop->told, 0, memory_order_acquire);
	if (told & LOOP_TOLD_DRAIN)
		loop_drain(loop, atomic_load_explicit(&loop->told_limit_ns, memory_order_relaxed));
	if (told & LOOP_TOLD_RELEASE)
		loop->held = false;
}

void
loop_wake(struct loop *loop)
{
	uint64_t one = 1;

	/* Fails only where it was woken 2^64 times without a look: it will look. */
	if (write(loop->wake_fd, &one, sizeof one) < 0)
		return;
}

void
loop_tell(struct loop *loop, uint32_t what, uint64_t limit_ns)
{
	if (what & LOOP_TOLD_DRAIN)
		atomic_store_explicit(&loop->told_limit_ns, limit_ns, memory_order_relaxed);
	atomic_fetch_or_explicit(&loop->told, what, memory_order_release);
	loop_wake(loop);
}

static int
wake_start(struct loop *loop)
{
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0)
		return -1;
	loop->on_wake = event_new(loop->base, loop->wake_fd, EV_READ | EV_PERSIST, on_wake, loop);
	return loop->on_wake ? event_add(loop->on_wake, NULL) : -1;
}

static void on_drain_timer(struct timer *timer, uint64_t now_ns);

int
loop_init(struct loop *loop, struct shared *shared, struct board_thread *board, struct ring *ring)
{
	memset(loop, 0, sizeof *loop);
	loop->config = shared->config;
	loop->shared = shared;
	loop->board = board;
	loop->ring = ring;
	loop->wake_fd = -1;
	loop->ready_tail = &loop->ready;
	loop->drain_timer.fire = on_drain_timer;
	loop->base = base_make();
	if (!loop->base || wheel_init(&loop->wheel, loop->base, clock_now_ns()) < 0 ||
	    wake_start(loop) < 0 || heartbeat_start(loop) < 0 || pools_init(loop) < 0) {
		log_error("event loop cannot be made");
		return -1;
	}
	return 0;
}

void
loop_reap(struct loop *loop, struct reapable *reapable)
{
	reapable->next = loop->dead;
	loop->dead = reapable;
}

static void
run_ready(struct loop *loop)
{
	struct client *client = loop->ready;

	loop->ready = NULL;
	loop->ready_tail = &loop->ready;
	while (client) {
		struct client *next = client->ready_next;

		client->ready_next = NULL;
		client->is_ready = false;
		client_run_ready(client);
		client = next;
	}
}

/* How long the last callback of the turn had waited for the others: our own loop's lag. */
static void
turn_measure(struct loop *loop)
{
	struct board_thread *board = loop->board;
	uint64_t lag_ns;

	if (loop->turn_ns == 0)
		return;
	lag_ns = loop->now_ns - loop->turn_ns;
	loop->turn_ns = 0;
	board_add(&board->loop_lag_buckets[board_lag_bucket(lag_ns)], 1);
	board_add(&board->loop_lag_sum_ns, lag_ns);
	if (lag_ns > atomic_load_explicit(&board->loop_lag_max_ns, memory_order_relaxed))
		atomic_store_explicit(&board->loop_lag_max_ns, lag_ns, memory_order_relaxed);
}

/* Exchanges that were granted a slot while they waited; what they do may grant others theirs. */
static void
serve_granted(struct loop *loop)
{
	struct pool *const end = loop->pools + loop->config->upstream_count;

	atomic_store(&loop->serve_wanted, false);
	for (struct pool *pool = loop->pools; pool < end; pool++) {
		struct waiter *waiter;
		struct server *server;

		if (!atomic_load_explicit(&pool->serve_wanted, memory_order_acquire))
			continue;
		while ((waiter = pool_serve(pool, loop_now(loop), &server)) != NULL)
			proxy_granted(waiter, server);
		pool = loop->pools - 1; /* again from the first */
	}
}

static void
turn_end(struct loop *loop)
{
	if (loop->ready)
		run_ready(loop);
	if (loop->again)
		tls_run_again(loop);
	if (atomic_load_explicit(&loop->serve_wanted, memory_order_acquire) && loop->pools)
		serve_granted(loop);
	while (loop->dead) {
		struct reapable *reapable = loop->dead;

		loop->dead = reapable->next;
		reapable->reap(reapable);
	}
	turn_measure(loop);
	if (loop->draining && !loop->held && (loop->client_count == 0 || loop->expired))
		loop->stopped = true;
}

void
loop_run(struct loop *loop)
{
	while (!loop->stopped) {
		int flags = EVLOOP_ONCE | (loop->ready || loop->again ? EVLOOP_NONBLOCK : 0);

		loop->turn_ns = 0; /* read while starting: the wait for events is no lag */
		if (event_base_loop(loop->base, flags) < 0) {
			log_error("event loop failed");
			return;
		}
		turn_end(loop);
	}
}

static void
drain_clients(struct loop *loop, uint64_t now_ns, bool all)
{
	struct client *next;

	for (struct client *client = loop->clients; client; client = next) {
		next = client->next;
		if (!all)
			client_drain(client, now_ns);
		else if (client->exchange)
			proxy_fail(client->exchange, CLOSE_SHUTDOWN);
		else
			client_close(client, CLOSE_SHUTDOWN);
	}
}

static void
on_drain_timer(struct timer *timer, uint64_t now_ns)
{
	struct loop *loop =
	    (struct loop *)(void *)((char *)timer - offsetof(struct loop, drain_timer));
	uint64_t next_ns = now_ns + 100 * NS_PER_MS;

	if (now_ns >= loop->drain_end_ns) {
		drain_clients(loop, now_ns, true);
		loop->expired = true;
		return;
	}
	if (now_ns >= loop->drain_idle_ns)
		drain_clients(loop, now_ns, false);
	timer_set(&loop->wheel, &loop->drain_timer,
	          next_ns < loop->drain_end_ns ? next_ns : loop->drain_end_ns, now_ns);
}

void
loop_drain(struct loop *loop, uint64_t limit_ns)
{
	uint64_t now_ns = loop_now(loop);
	uint64_t end_ns = now_ns + limit_ns;

	if (!loop->draining) {
		loop->draining = true;
		loop->drain_end_ns = UINT64_MAX;
		listeners_close(loop);
	}
	if (end_ns < loop->drain_end_ns) {
		loop->drain_end_ns = end_ns;
		loop->drain_idle_ns =
		    end_ns - (limit_ns / 2 < DRAIN_LINGER_NS ? limit_ns / 2 : DRAIN_LINGER_NS);
	}
	if (limit_ns == 0 || loop->client_count == 0)
		on_drain_timer(&loop->drain_timer, now_ns);
	else
		timer_set(&loop->wheel, &loop->drain_timer, now_ns + 100 * NS_PER_MS, now_ns);
}

void
loop_free(struct loop *loop)
{
	struct client *next;

	for (struct client *client = loop->clients; client; client = next) {
		next = client->next;
		client_close(client, CLOSE_SHUTDOWN);
	}
	pools_free(loop);
	turn_end(loop); /* frees what was closed */
	exchanges_free(loop);
	block_pool_clear(&loop->blocks);
	wheel_free(&loop->wheel);
	if (loop->heartbeat)
		event_free(loop->heartbeat);
	if (loop->on_wake)
		event_free(loop->on_wake);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	if (loop->base)
		event_base_free(loop->base);
}
