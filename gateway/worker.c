/* The worker process: one event-loop thread on the board, its ring and the listeners; says that
 * it is ready and serves until it is told to drain. */
#include "handover.h"

#include <event2/event.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "base/board.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "proxy/http1.h"
#include "proxy/listener.h"
#include "proxy/loop.h"
#include "proxy/ring.h"
#include "proxy/tls_contexts.h"

#define ORPHAN_DRAIN_NS (3 * NS_PER_S) /* the supervisor is gone: nobody is left after 5 s */
#define SAME_TERM_NS (300 * NS_PER_MS) /* two within it are one order: to the group, and to us */

struct worker {
	struct loop loop;
	const struct config *config;
	struct board *board;
	struct board_process *process;
	struct tls_contexts *tls;
	struct event *on_term, *on_life;
	int life_fd;
	uint64_t told_ns; /* to drain; 0 = not */
};

static void
worker_drain(struct worker *worker, uint64_t limit_ns)
{
	atomic_store_explicit(&worker->process->state, BOARD_DRAINING, memory_order_release);
	worker->told_ns = clock_now_ns();
	loop_drain(&worker->loop, limit_ns);
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
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2};

	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		signal(ignored[i], SIG_IGN);
}

static int
worker_attach(struct worker *worker, const struct handover *handover)
{
	size_t slot = handover->generation % BOARD_GENERATIONS_MAX;
	unsigned char *rings = board_rings_attach(handover->rings_fd, RING_BYTES);
	struct ring *ring;

	worker->board = board_attach(handover->board_fd);
	if (!worker->board || !rings) {
		log_error("board or rings cannot be attached");
		return -1;
	}
	worker->process = &worker->board->workers[slot];
	ring = ring_attach(rings + slot * BOARD_THREADS_MAX * (size_t)RING_BYTES);
	if (!ring) {
		log_error("the ring of this worker is damaged");
		return -1;
	}
	/* Keys are read while the rights to do so are still there. */
	worker->tls = tls_contexts_open(worker->config, &worker->board->tickets);
	if (!worker->tls)
		return -1;
	if (loop_init(&worker->loop, worker->config, &worker->board->threads[slot][0], ring) < 0)
		return -1;
	worker->loop.tls = worker->tls;
	return 0;
}

static int
worker_listen(struct worker *worker, const struct handover *handover)
{
	struct event_base *base = worker->loop.base;

	worker->on_term = evsignal_new(base, SIGTERM, on_term, worker);
	worker->on_life = event_new(base, handover->life_fd, EV_READ | EV_PERSIST, on_life, worker);
	if (!worker->on_term || !worker->on_life || event_add(worker->on_term, NULL) < 0 ||
	    event_add(worker->on_life, NULL) < 0)
		return -1;
	if (handover->listener_count != worker->config->listener_count ||
	    listeners_start(&worker->loop, handover->listener_fds, handover->listener_count) < 0) {
		log_error("listeners cannot be served");
		return -1;
	}
	return 0;
}

static int
worker_serve(struct worker *worker, const struct handover *handover)
{
	if (worker_listen(worker, handover) < 0)
		return 1;
	atomic_store_explicit(&worker->process->state, BOARD_RUNNING, memory_order_release);
	if (write(handover->ready_fd, "r", 1) != 1)
		log_warn("nobody waits for this worker to be ready");
	close(handover->ready_fd);
	loop_run(&worker->loop);
	return 0;
}

int
worker_main(const struct handover *handover, const struct config *config)
{
	struct worker worker = {.config = config, .life_fd = handover->life_fd};
	int status;

	ignore_signals();
	if (!http1_parser_safe()) {
		log_error(
		    "built with an llhttp older than 9.2.1, which lets smuggled requests through");
		return 1;
	}
	if (worker_attach(&worker, handover) < 0)
		return 1;
	process_drop_rights(config);
	status = worker_serve(&worker, handover);
	if (worker.on_term)
		event_free(worker.on_term);
	if (worker.on_life)
		event_free(worker.on_life);
	loop_free(&worker.loop);
	tls_contexts_close(worker.tls);
	/* The collector, left alone by the supervisor, waits for this and no longer. */
	atomic_store_explicit(&worker.process->state, BOARD_STOPPED, memory_order_release);
	board_detach(worker.board);
	return status;
}
