/* The worker process: event-loop threads, each with its place on the board, its ring and its share
 * of the listening sockets; says that it is ready and serves until it is told to drain. */
#include "handover.h"

#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/board.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "proxy/error_pages.h"
#include "proxy/health.h"
#include "proxy/deep.h"
#include "proxy/http1.h"
#include "proxy/listener.h"
#include "proxy/loop.h"
#include "proxy/resolver.h"
#include "proxy/ring.h"
#include "proxy/shared.h"
#include "proxy/tls_contexts.h"

#define ORPHAN_DRAIN_NS (3 * NS_PER_S) /* the supervisor is gone: nobody is left after 5 s */
#define SAME_TERM_NS (300 * NS_PER_MS) /* two within it are one order: to the group, and to us */

_Static_assert(CONFIG_THREADS_MAX == BOARD_THREADS_MAX, "every thread has a place on the board");

struct worker;

/* The first runs on the main thread and hears the signals. */
struct worker_thread {
	struct loop loop;
	struct worker *worker;
	pthread_t thread;
	bool made, running;
};

struct worker {
	struct worker_thread threads[CONFIG_THREADS_MAX];
	size_t thread_count;
	_Atomic uint32_t others; /* threads beside the first that have not ended */
	struct shared shared;
	struct resolver resolver;
	struct health health; /* on the first thread's loop */
	const struct config *config;
	struct board *board;
	struct board_process *process;
	struct tls_contexts *tls;
	struct deep_policy *deep;
	struct event *on_term, *on_life;
	uint64_t told_ns; /* to drain; 0 = not */
};

static void
worker_drain(struct worker *worker, uint64_t limit_ns)
{
	atomic_store_explicit(&worker->process->state, BOARD_DRAINING, memory_order_release);
	if (worker->told_ns == 0)
		log_info("draining: %llu client connections",
		         (unsigned long long)atomic_load(&worker->shared.clients));
	worker->told_ns = clock_now_ns();
	for (size_t i = 1; i < worker->thread_count; i++)
		loop_tell(&worker->threads[i].loop, LOOP_TOLD_DRAIN, limit_ns);
	loop_drain(&worker->threads[0].loop, limit_ns);
}

static void
on_term(evutil_socket_t signal_number, short what, void *arg)
{
	struct worker *worker = arg;

	(void)signal_number;
	(void)what;
	if (worker->told_ns == 0)
		worker_drain(worker, worker->config->worker.shutdown_timeout_ms * NS_PER_MS);
	else if (clock_now_ns() - worker->told_ns > SAME_TERM_NS)
		worker_drain(worker, 0);
}

/* Nobody writes into the pipe: readable means that its last writer is gone. */
static void
on_life(evutil_socket_t fd, short what, void *arg)
{
	struct worker *worker = arg;
	uint64_t limit_ns = worker->config->worker.shutdown_timeout_ms * NS_PER_MS;

	(void)fd;
	(void)what;
	event_del(worker->on_life);
	log_warn("the supervisor is gone");
	worker_drain(worker, limit_ns < ORPHAN_DRAIN_NS ? limit_ns : ORPHAN_DRAIN_NS);
}

static void
ignore_signals(void)
{
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGUSR2};

	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		signal(ignored[i], SIG_IGN);
}

/* --- making ready -------------------------------------------------------- */

/* Where the collector looks for an upstream: its index may be another after a reload. */
static void
tell_upstreams(struct worker *worker, size_t slot)
{
	const struct config *config = worker->config;

	for (size_t i = 0; i < BOARD_UPSTREAMS_MAX; i++)
		atomic_store(&worker->board->upstream_keys[slot][i],
		             i < config->upstream_count ? board_upstream_key(&config->upstreams[i])
		                                        : 0);
}

static int
worker_attach(struct worker *worker, const struct handover *handover)
{
	size_t slot = handover->generation % BOARD_GENERATIONS_MAX;
	unsigned char *rings = board_rings_attach(handover->rings_fd, RING_BYTES);

	worker->board = board_attach(handover->board_fd);
	if (!worker->board || !rings) {
		log_error("board or rings cannot be attached");
		return -1;
	}
	worker->process = &worker->board->workers[slot];
	/* Keys are read while the rights to do so are still there. */
	worker->tls = tls_contexts_open(worker->config, &worker->board->tickets);
	if (!worker->tls)
		return -1;
	worker->deep = deep_policy_new(worker->config, worker->board);
	if (!worker->deep)
		return -1;
	shared_init(&worker->shared, worker->config, worker->board->upstreams[slot]);
	tell_upstreams(worker, slot);
	for (size_t i = 0; i < worker->thread_count; i++) {
		struct worker_thread *thread = &worker->threads[i];
		struct ring *ring =
		    ring_attach(rings + (slot * BOARD_THREADS_MAX + i) * (size_t)RING_BYTES);

		if (!ring) {
			log_error("the ring of thread %zu of this worker is damaged", i);
			return -1;
		}
		thread->worker = worker;
		thread->made = true;
		if (loop_init(&thread->loop, &worker->shared, &worker->board->threads[slot][i],
		              ring) < 0)
			return -1;
		thread->loop.tls = worker->tls;
		thread->loop.deep = worker->deep;
	}
	return 0;
}

/* Whether thread `thread` of `threads` serves socket `socket` of the `sockets` of one listener:
 * spare sockets are shared out among the threads, and too few among them too. */
static bool
serves(size_t thread, size_t threads, size_t socket, size_t sockets)
{
	return sockets >= threads ? socket % threads == thread : thread % sockets == socket;
}

/* Each thread has descriptors of its own, which it closes when it drains. */
static int
thread_listen(struct worker_thread *thread, size_t index, const struct handover *handover)
{
	size_t threads = thread->worker->thread_count, count = 0;
	int fds[HANDOVER_LISTENERS_MAX];
	uint16_t of[HANDOVER_LISTENERS_MAX];

	for (size_t i = 0; i < handover->listener_count; i++) {
		size_t before = 0, sockets = 0;

		for (size_t j = 0; j < handover->listener_count; j++) {
			if (handover->listener_of[j] != handover->listener_of[i])
				continue;
			sockets++;
			before += j < i;
		}
		if (!serves(index, threads, before, sockets))
			continue;
		of[count] = handover->listener_of[i];
		fds[count] = fcntl(handover->listener_fds[i], F_DUPFD_CLOEXEC, 0);
		if (fds[count++] < 0)
			return -1;
	}
	return listeners_start(&thread->loop, fds, of, count);
}

static int
worker_listen(struct worker *worker, const struct handover *handover)
{
	struct event_base *base = worker->threads[0].loop.base;

	worker->on_term = evsignal_new(base, SIGTERM, on_term, worker);
	worker->on_life = event_new(base, handover->life_fd, EV_READ | EV_PERSIST, on_life, worker);
	if (!worker->on_term || !worker->on_life || event_add(worker->on_term, NULL) < 0 ||
	    event_add(worker->on_life, NULL) < 0)
		return -1;
	for (size_t i = 0; i < handover->listener_count; i++)
		if (handover->listener_of[i] >= worker->config->listener_count)
			return -1;
	for (size_t i = 0; i < worker->thread_count; i++)
		if (thread_listen(&worker->threads[i], i, handover) < 0)
			return -1;
	for (size_t i = 0; i < handover->listener_count; i++)
		close(handover->listener_fds[i]);
	return 0;
}

/* --- running ------------------------------------------------------------- */

static void *
thread_run(void *arg)
{
	struct worker_thread *thread = arg;
	struct worker *worker = thread->worker;

	loop_run(&thread->loop);
	if (atomic_fetch_sub(&worker->others, 1) == 1)
		loop_tell(&worker->threads[0].loop, LOOP_TOLD_RELEASE, 0);
	return NULL;
}

/* The other threads; signals stay with the first. */
static int
threads_start(struct worker *worker)
{
	sigset_t all, before;
	int failed = 0;

	if (worker->thread_count == 1)
		return 0;
	worker->threads[0].loop.held = true;
	atomic_store(&worker->others, (uint32_t)(worker->thread_count - 1));
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (size_t i = 1; i < worker->thread_count && !failed; i++) {
		struct worker_thread *thread = &worker->threads[i];
		char name[32];

		failed = pthread_create(&thread->thread, NULL, thread_run, thread);
		thread->running = failed == 0;
		snprintf(name, sizeof name, "loop %zu", i);
		if (!failed)
			pthread_setname_np(thread->thread, name);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		log_error("thread cannot be started: %s", strerror(failed));
	return failed ? -1 : 0;
}

static int
worker_serve(struct worker *worker, const struct handover *handover)
{
	if (worker_listen(worker, handover) < 0) {
		log_error("listeners cannot be served");
		return 1;
	}
	health_start(&worker->health, &worker->threads[0].loop);
	resolver_start(&worker->resolver, worker->shared.groups, worker->config->upstream_count,
	               net_address_lookup);
	if (threads_start(worker) < 0)
		fatal("the worker cannot run with fewer threads than it was told");
	atomic_store_explicit(&worker->process->state, BOARD_RUNNING, memory_order_release);
	if (write(handover->ready_fd, "r", 1) != 1)
		log_warn("nobody waits for this worker to be ready");
	close(handover->ready_fd);
	loop_run(&worker->threads[0].loop);
	return 0;
}

static void
worker_free(struct worker *worker)
{
	if (worker->on_term)
		event_free(worker->on_term);
	if (worker->on_life)
		event_free(worker->on_life);
	for (size_t i = 1; i < worker->thread_count; i++)
		if (worker->threads[i].running)
			pthread_join(worker->threads[i].thread, NULL);
	health_stop(&worker->health);
	if (!resolver_stop(&worker->resolver))
		return; /* within a lookup: it may still touch what would be freed */
	for (size_t i = 0; i < worker->thread_count; i++)
		if (worker->threads[i].made)
			loop_free(&worker->threads[i].loop);
	shared_free(&worker->shared);
	tls_contexts_close(worker->tls);
	deep_policy_free(worker->deep);
}

int
worker_main(const struct handover *handover, const struct config *config)
{
	static struct worker worker; /* zero, and too large for a stack */
	int status;

	worker.config = config;
	worker.thread_count = config->worker.threads;
	ignore_signals();
	if (!http1_parser_safe()) {
		log_error(
		    "built with an llhttp older than 9.2.1, which lets smuggled requests through");
		return 1;
	}
	if (worker_attach(&worker, handover) < 0)
		return 1;
	error_pages_load(config);
	process_drop_rights(config);
	status = worker_serve(&worker, handover);
	worker_free(&worker);
	error_pages_free();
	/* The collector, left alone by the supervisor, waits for this and no longer. */
	atomic_store_explicit(&worker.process->state, BOARD_STOPPED, memory_order_release);
	board_detach(worker.board);
	return status;
}
