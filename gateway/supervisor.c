/* The supervisor's loop: signals, children, heartbeats, and the order in which things stop. */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/board.h"
#include "base/log.h"
#include "process.h"
#include "proxy/ring.h"
#include "supervisor_child.h"
#include "supervisor_sockets.h"
#include "supervisor_spawn.h"

#define TICK_MS 1000
#define PAUSE_MS 3000 /* our own loop stood so long: stopped or starved, and the children too */
#define SAME_SIGNAL_MS 500      /* a shell often signals process and group: one order, not two */
#define WORKER_GRACE_MS 5000    /* beyond worker.shutdown_timeout_ms */
#define COLLECTOR_STOP_MS 10000 /* to empty the rings and commit */
#define NOW_STOP_MS 2000        /* the same, after a second signal */

struct supervisor {
	const struct config *config;
	struct supervisor_sockets sockets;
	struct board *board;
	struct child worker, collector;
	int signal_fd;
	uint64_t tick_ns; /* of the last turn that looked at heartbeats */
	uint64_t watchdog_ns, watchdog_next_ns;
	uint64_t stop_ns; /* when told to stop first; 0 = not */
	bool now;         /* told twice */
	bool last_start;  /* the collector was started for the rings' rest */
	bool announced;   /* the start was reported as done */
	bool failed;
};

/* The checked bytes, which nobody can change any more. */
static int
seal_config(const char *bytes, size_t length)
{
	int fd = memfd_create("tailrace-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd == -1 || write(fd, bytes, length) != (ssize_t)length ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1)
		fatal("configuration cannot be handed over: %s", strerror(errno));
	return fd;
}

static int
open_signals(void)
{
	sigset_t mask;
	int fd;

	sigemptyset(&mask);
	for (const int *s =
	         (const int[]){SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD, 0};
	     *s != 0; s++)
		sigaddset(&mask, *s);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd == -1)
		fatal("signalfd: %s", strerror(errno));
	return fd;
}

static void
init_child(struct child *child, const char *role, struct supervisor *s, struct handover handover,
           const int *fds, size_t count)
{
	*child = (struct child){
	    .role = role, .board = s->board, .handover = handover, .life_fd = -1, .ready_fd = -1};
	memcpy(child->handover.listener_fds, fds, count * sizeof(*fds));
	for (size_t i = 0; i < count; i++)
		child->handover.listener_of[i] = (uint16_t)i;
	child->handover.listener_count = count;
}

static void
init_shared(struct supervisor *s, const char *bytes, size_t length)
{
	struct handover handover = {.config_fd = seal_config(bytes, length),
	                            .board_fd = board_create(),
	                            .rings_fd = board_rings_create(RING_BYTES)};

	s->board = handover.board_fd == -1 ? NULL : board_attach(handover.board_fd);
	if (s->board == NULL || handover.rings_fd == -1)
		fatal("shared memory cannot be made: %s", strerror(errno));
	atomic_store(&s->board->supervisor.pid, (int32_t)getpid());
	atomic_store(&s->board->supervisor.started_ns, clock_now_ns());
	atomic_store(&s->board->supervisor.state, BOARD_STARTING);
	init_child(&s->worker, SPAWN_ROLE_WORKER, s, handover, s->sockets.fds, s->sockets.count);
	memcpy(s->worker.handover.listener_of, s->sockets.of, sizeof(s->sockets.of));
	s->worker.threads = s->config->worker.threads;
	init_child(&s->collector, SPAWN_ROLE_COLLECTOR, s, handover, s->sockets.control_fds,
	           s->sockets.control_count);
	s->collector.place = &s->board->collector;
}

/* "127.0.0.1:8080, unix:/x" of any array of structs that begin with their text. */
static void
join_texts(char *buf, size_t size, const void *items, size_t count, size_t item_size)
{
	size_t n = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < count && n < size; i++) {
		const char *text;

		memcpy(&text, (const char *)items + i * item_size, sizeof(text));
		n += (size_t)snprintf(buf + n, size - n, "%s%s", i > 0 ? ", " : "", text);
	}
}

/* Once both serve: the line for people, the datagram for the service manager. */
static void
announce(struct supervisor *s)
{
	const struct config *config = s->config;
	char clients[512], control[512];

	if (s->announced || s->worker.state != CHILD_SERVING ||
	    s->collector.state != CHILD_SERVING || s->stop_ns != 0)
		return;
	s->announced = true;
	atomic_store(&s->board->supervisor.state, BOARD_RUNNING);
	join_texts(clients, sizeof(clients), config->listeners, config->listener_count,
	           sizeof(*config->listeners));
	join_texts(control, sizeof(control), config->control.listeners,
	           config->control.listener_count, sizeof(*config->control.listeners));
	printf("tailrace %s ready: clients on %s; control on %s; store %s\n", TAILRACE_VERSION,
	       clients, control, config->store.path);
	fflush(stdout);
	process_notify("READY=1\nSTATUS=serving");
}

/* After the worker's end: the collector empties the rings and goes. One that is away just then
 * (killed, or ended by a signal to all processes) is started once more to do so. */
static void
stop_collector(struct supervisor *s, uint64_t now_ns)
{
	switch (s->collector.state) {
	case CHILD_DOWN:
		if (!s->now && !s->last_start && s->collector.was_ready) {
			s->last_start = true;
			s->collector.restart_ns = now_ns;
			child_start(&s->collector, now_ns);
			return;
		}
		break;
	case CHILD_STARTING:
		if (!s->now)
			return;
		break;
	case CHILD_STOPPING:
	case CHILD_ENDED:
		return;
	case CHILD_SERVING:
		break;
	}
	child_stop(&s->collector, now_ns, s->now ? NOW_STOP_MS : COLLECTOR_STOP_MS);
}

/* The worker drains first, then the collector goes: called each turn until both are gone. */
static void
stop_step(struct supervisor *s, uint64_t now_ns)
{
	uint64_t drain_ms = s->config->worker.shutdown_timeout_ms + (uint64_t)WORKER_GRACE_MS;

	if (s->worker.state != CHILD_STOPPING)
		child_stop(&s->worker, now_ns, drain_ms);
	if (s->worker.state == CHILD_ENDED)
		stop_collector(s, now_ns);
	else
		child_start(&s->collector, now_ns);
}

static void
begin_stop(struct supervisor *s, int number, uint64_t now_ns)
{
	if (s->stop_ns == 0) {
		log_info("%s: draining, then stopping (a second one: now)", strsignal(number));
		s->stop_ns = now_ns;
		atomic_store(&s->board->stopping, 1);
		supervisor_sockets_refuse(&s->sockets);
		atomic_store(&s->board->supervisor.state, BOARD_DRAINING);
		process_notify("STOPPING=1");
		return;
	}
	if (now_ns - s->stop_ns < SAME_SIGNAL_MS * NS_PER_MS)
		return;
	log_info("%s again: stopping now", strsignal(number));
	s->now = true;
	child_stop(&s->worker, now_ns, NOW_STOP_MS);
	if (s->collector.state == CHILD_STOPPING)
		child_stop(&s->collector, now_ns, NOW_STOP_MS);
}

static void
reap(struct supervisor *s, uint64_t now_ns)
{
	struct child *const children[] = {&s->worker, &s->collector};
	int status;

	for (size_t i = 0; i < 2; i++) {
		struct child *child = children[i];

		if (child->pid <= 0 || waitpid(child->pid, &status, WNOHANG) != child->pid)
			continue;
		child_on_exit(child, status, now_ns);
		child->pid = 0;
	}
}

/* A gateway that never served says so at once, instead of trying for ever. */
static void
give_up_early(struct supervisor *s, struct child *child, uint64_t now_ns)
{
	if (child->was_ready || child->state != CHILD_DOWN || s->stop_ns != 0)
		return;
	log_error("%s cannot start; stopping", child->role);
	child->state = CHILD_ENDED;
	s->failed = true;
	begin_stop(s, SIGTERM, now_ns);
}

static void
on_signals(struct supervisor *s, uint64_t now_ns)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch ((int)info.ssi_signo) {
		case SIGTERM:
		case SIGINT:
		case SIGQUIT:
			begin_stop(s, (int)info.ssi_signo, now_ns);
			break;
		case SIGHUP:
			log_warn("HUP ignored: reloading is not in this version");
			break;
		case SIGUSR2:
			log_warn("USR2 ignored: upgrading in place is not in this version");
			break;
		case SIGUSR1:
			log_warn("USR1 ignored: log files are not in this version");
			break;
		default:
			break;
		}
	}
	reap(s, now_ns);
}

/* Heartbeats count only while we ran ourselves: after SIGSTOP or a long freeze all are old. */
static void
watch(struct supervisor *s, uint64_t now_ns)
{
	bool paused = now_ns - s->tick_ns > PAUSE_MS * NS_PER_MS;

	if (paused) {
		child_forgive(&s->worker, now_ns);
		child_forgive(&s->collector, now_ns);
	}
	s->tick_ns = now_ns;
	atomic_store(&s->board->supervisor.heartbeat_ns, now_ns);
	ticket_keys_rotate(&s->board->tickets, now_ns);
	child_watch(&s->worker, now_ns);
	child_watch(&s->collector, now_ns);
	if (s->watchdog_ns == 0 || now_ns < s->watchdog_next_ns)
		return;
	s->watchdog_next_ns = now_ns + s->watchdog_ns;
	if (child_is_alive(&s->worker, now_ns) && child_is_alive(&s->collector, now_ns))
		process_notify("WATCHDOG=1");
}

static int
timeout_ms(const struct supervisor *s, uint64_t now_ns)
{
	uint64_t next_ns = now_ns + TICK_MS * NS_PER_MS;
	uint64_t worker_ns = child_next_ns(&s->worker), collector_ns = child_next_ns(&s->collector);

	if (worker_ns < next_ns)
		next_ns = worker_ns;
	if (collector_ns < next_ns)
		next_ns = collector_ns;
	if (s->watchdog_ns != 0 && s->watchdog_next_ns < next_ns)
		next_ns = s->watchdog_next_ns;
	return next_ns <= now_ns ? 0 : (int)((next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static void
turn(struct supervisor *s)
{
	struct pollfd polled[3] = {{.fd = s->signal_fd, .events = POLLIN},
	                           {.fd = s->worker.ready_fd, .events = POLLIN},
	                           {.fd = s->collector.ready_fd, .events = POLLIN}};
	uint64_t now_ns = clock_now_ns();

	poll(polled, 3, timeout_ms(s, now_ns)); /* signals come by descriptor: no EINTR to handle */
	now_ns = clock_now_ns();
	if (polled[1].revents != 0)
		child_on_ready(&s->worker, now_ns);
	if (polled[2].revents != 0)
		child_on_ready(&s->collector, now_ns);
	announce(s);
	if (polled[0].revents != 0)
		on_signals(s, now_ns);
	give_up_early(s, &s->worker, now_ns);
	give_up_early(s, &s->collector, now_ns);
	watch(s, now_ns);
	if (s->stop_ns != 0) {
		stop_step(s, now_ns);
		return;
	}
	child_start(&s->collector, now_ns);
	child_start(&s->worker, now_ns);
}

int
supervisor_main(const struct config *config, const char *bytes, size_t length)
{
	struct supervisor s = {.config = config};
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd != -1)
		dup2(null_fd, STDIN_FILENO);
	process_raise_limits(config);
	s.signal_fd = open_signals();
	if (supervisor_sockets_open(config, &s.sockets) == -1)
		return 1;
	if (process_make_folder(config, config->store.path, 0750) == -1)
		log_warn("%s: folder cannot be made: %s", config->store.path, strerror(errno));
	init_shared(&s, bytes, length);
	s.watchdog_ns = process_watchdog_ns();
	s.tick_ns = clock_now_ns();
	child_start(&s.collector, s.tick_ns);
	child_start(&s.worker, s.tick_ns);
	while (s.worker.state != CHILD_ENDED || s.collector.state != CHILD_ENDED)
		turn(&s);
	supervisor_sockets_close(config, &s.sockets);
	if (s.worker.was_killed || s.collector.was_killed)
		s.failed = true;
	log_info("stopped");
	return s.failed ? 1 : 0;
}
