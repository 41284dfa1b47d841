/* The supervisor's loop: signals, children, heartbeats, and the order in which things stop. */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/board.h"
#include "base/log.h"
#include "process.h"
#include "proxy/ring.h"
#include "supervisor_state.h"

#define TICK_MS 1000
#define PAUSE_MS 3000 /* our own loop stood so long: stopped or starved, and the children too */
#define SAME_SIGNAL_MS 500 /* a shell often signals process and group: one order, not two */

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
init_shared(struct supervisor *s, const char *bytes, size_t length)
{
	s->board_fd = board_create();
	s->rings_fd = board_rings_create(RING_BYTES);
	s->board = s->board_fd == -1 ? NULL : board_attach(s->board_fd);
	if (s->board == NULL || s->rings_fd == -1)
		fatal("shared memory cannot be made: %s", strerror(errno));
	atomic_store(&s->board->supervisor.pid, (int32_t)getpid());
	atomic_store(&s->board->supervisor.started_ns, clock_now_ns());
	atomic_store(&s->board->supervisor.state, BOARD_STARTING);
	s->config->serial = supervisor_seal(s, bytes, length);
	s->current = supervisor_new_worker(s, s->config, s->config->serial);
	supervisor_init_collector(s);
}

/* Every worker that has a place, told by index: null where the place is free. */
static struct child *
worker_at(struct supervisor *s, size_t index)
{
	return s->workers[index].role != NULL ? &s->workers[index] : NULL;
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

	if (s->announced || s->current->state != CHILD_SERVING ||
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
	log_console_end();
	process_notify("READY=1\nSTATUS=serving");
}

/* After the workers' end: the collector empties the rings and goes. One that is away just then
 * (killed, or ended by a signal to all processes) is started once more to do so. */
static void
stop_collector(struct supervisor *s, uint64_t now_ns)
{
	switch (s->collector.state) {
	case CHILD_DOWN:
		if (!s->now && !s->last_start && s->collector.was_ready) {
			s->last_start = true;
			s->collector.restart_ns = now_ns;
			supervisor_start_collector(s, now_ns);
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

static bool
workers_ended(struct supervisor *s)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (worker_at(s, i) != NULL && s->workers[i].state != CHILD_ENDED)
			return false;
	return true;
}

/* The workers drain first, then the collector goes: called each turn until all are gone. */
static void
stop_step(struct supervisor *s, uint64_t now_ns)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++) {
		struct child *worker = worker_at(s, i);

		if (worker != NULL && worker->state != CHILD_STOPPING)
			child_stop(worker, now_ns,
			           worker->shutdown_timeout_ms + (uint64_t)WORKER_GRACE_MS);
	}
	if (workers_ended(s))
		stop_collector(s, now_ns);
	else
		supervisor_start_collector(s, now_ns);
}

static void
stop_now(struct supervisor *s, uint64_t now_ns)
{
	s->now = true;
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (worker_at(s, i) != NULL)
			child_stop(&s->workers[i], now_ns, NOW_STOP_MS);
	if (s->collector.state == CHILD_STOPPING)
		child_stop(&s->collector, now_ns, NOW_STOP_MS);
	elders_stop(s, now_ns, true);
}

static void
begin_stop(struct supervisor *s, int number, uint64_t now_ns)
{
	if (s->stop_ns == 0) {
		log_info("%s: draining, then stopping (a second one: now)", strsignal(number));
		s->stop_ns = now_ns;
		atomic_store(&s->board->stopping, 1);
		supervisor_sockets_refuse(&s->sockets, s->config);
		reload_give_up(s);
		s->collector.again = false;
		elders_stop(s, now_ns, false);
		atomic_store(&s->board->supervisor.state, BOARD_DRAINING);
		process_notify("STOPPING=1");
		return;
	}
	if (now_ns - s->stop_ns < SAME_SIGNAL_MS * NS_PER_MS)
		return;
	log_info("%s again: stopping now", strsignal(number));
	stop_now(s, now_ns);
}

static void
reap_one(struct child *child, uint64_t now_ns)
{
	int status;

	if (child->pid <= 0 || waitpid(child->pid, &status, WNOHANG) != child->pid)
		return;
	child_on_exit(child, status, now_ns);
	child->pid = 0;
}

static void
reap(struct supervisor *s, uint64_t now_ns)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (worker_at(s, i) != NULL)
			reap_one(&s->workers[i], now_ns);
	reap_one(&s->collector, now_ns);
}

/* A gateway that never served says so at once, instead of trying for ever. */
static void
give_up_early(struct supervisor *s, struct child *child, uint64_t now_ns)
{
	if (s->announced || child->was_ready || child->state != CHILD_DOWN || s->stop_ns != 0 ||
	    !elders_gone(s))
		return;
	log_error("%s cannot start; stopping", child->role);
	child->state = CHILD_ENDED;
	s->failed = true;
	begin_stop(s, SIGTERM, now_ns);
}

/* Ours first: where the file is gone it is made anew, and given to those without our rights. */
static void
reopen_logs(struct supervisor *s)
{
	if (log_reopen() == -1)
		log_error("%s: cannot be opened again, the old file stays: %s",
		          s->config->log.error_path, strerror(errno));
	else
		log_info("USR1: logs are opened again");
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (worker_at(s, i) != NULL)
			child_signal(&s->workers[i], SIGUSR1);
	child_signal(&s->collector, SIGUSR1);
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
			reload_begin(s, now_ns);
			break;
		case SIGUSR2:
			upgrade_begin(s, now_ns);
			break;
		case SIGUSR1:
			reopen_logs(s);
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

	s->tick_ns = now_ns;
	atomic_store(&s->board->supervisor.heartbeat_ns, now_ns);
	ticket_keys_rotate(&s->board->tickets, now_ns);
	for (size_t i = 0; i <= BOARD_GENERATIONS_MAX; i++) {
		struct child *child = i < BOARD_GENERATIONS_MAX ? worker_at(s, i) : &s->collector;

		if (child == NULL)
			continue;
		if (paused && child->place != NULL)
			child_forgive(child, now_ns);
		child_watch(child, now_ns);
	}
	if (now_ns - s->measured_ns >= NS_PER_S) {
		s->measured_ns = now_ns;
		supervisor_sockets_measure(&s->sockets, s->config, s->board);
	}
	if (s->watchdog_ns == 0 || now_ns < s->watchdog_next_ns)
		return;
	s->watchdog_next_ns = now_ns + s->watchdog_ns;
	if (child_is_alive(s->current, now_ns) && child_is_alive(&s->collector, now_ns))
		process_notify("WATCHDOG=1");
}

static uint64_t
earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int
timeout_ms(struct supervisor *s, uint64_t now_ns)
{
	uint64_t next_ns = now_ns + TICK_MS * NS_PER_MS;

	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (worker_at(s, i) != NULL)
			next_ns = earlier(next_ns, child_next_ns(&s->workers[i]));
	next_ns = earlier(next_ns, child_next_ns(&s->collector));
	next_ns = earlier(next_ns, elders_next_ns(s));
	if (s->upgrade.check_pid > 0)
		next_ns = earlier(next_ns, s->upgrade.deadline_ns);
	if (s->watchdog_ns != 0)
		next_ns = earlier(next_ns, s->watchdog_next_ns);
	return next_ns <= now_ns ? 0 : (int)((next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

static void
wait_for_events(struct supervisor *s)
{
	struct pollfd polled[BOARD_GENERATIONS_MAX + 2] = {
	    {.fd = s->signal_fd, .events = POLLIN},
	    {.fd = s->collector.ready_fd, .events = POLLIN}};
	struct child *of[BOARD_GENERATIONS_MAX + 2] = {NULL, &s->collector};
	nfds_t count = 2;
	uint64_t now_ns = clock_now_ns();

	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++) {
		struct child *worker = worker_at(s, i);

		if (worker == NULL || worker->ready_fd == -1)
			continue;
		of[count] = worker;
		polled[count++] = (struct pollfd){.fd = worker->ready_fd, .events = POLLIN};
	}
	/* Signals come by descriptor: no EINTR to handle. */
	poll(polled, count, timeout_ms(s, now_ns));
	now_ns = clock_now_ns();
	for (nfds_t i = 1; i < count; i++)
		if (polled[i].revents != 0)
			child_on_ready(of[i], now_ns);
	announce(s);
	if (polled[0].revents != 0)
		on_signals(s, now_ns);
}

static void
turn(struct supervisor *s)
{
	uint64_t now_ns;

	wait_for_events(s);
	now_ns = clock_now_ns();
	give_up_early(s, s->current, now_ns);
	give_up_early(s, &s->collector, now_ns);
	watch(s, now_ns);
	elders_step(s, now_ns);
	if (s->stop_ns != 0) {
		stop_step(s, now_ns);
		return;
	}
	supervisor_free_places(s);
	reload_step(s, now_ns);
	upgrade_step(s, now_ns);
	supervisor_start_collector(s, now_ns);
	child_start(s->current, now_ns);
}

static bool
all_ended(struct supervisor *s)
{
	return workers_ended(s) && s->collector.state == CHILD_ENDED && elders_gone(s);
}

static bool
any_was_killed(struct supervisor *s)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (worker_at(s, i) != NULL && s->workers[i].was_killed)
			return true;
	return s->collector.was_killed;
}

/* The file to execute at an upgrade: the one at our path then, whatever became of ours. */
static void
remember_program(struct supervisor *s)
{
	ssize_t n = readlink("/proc/self/exe", s->program, sizeof(s->program) - 1);

	s->program[n > 0 ? n : 0] = '\0';
}

static int
take_sockets(struct supervisor *s, int upgrade_fd)
{
	if (upgrade_fd != -1 && upgrade_inherit(s, upgrade_fd) == -1)
		return -1;
	if (upgrade_fd == -1 && supervisor_sockets_adopt_passed(&s->sockets) == -1)
		return -1;
	supervisor_sockets_warn_unused(&s->sockets, s->config);
	return supervisor_sockets_open(&s->sockets, s->config);
}

static void
prepare_folders(const struct config *config)
{
	if (process_make_folder(config, config->store.path, 0750) == -1)
		log_warn("%s: folder cannot be made: %s", config->store.path, strerror(errno));
	process_make_log_folder(config);
}

int
supervisor_main(const char *path, struct config *config, const char *bytes, size_t length,
                int upgrade_fd)
{
	static struct supervisor s; /* zero, and too large for a stack */
	int null_fd;

	s.path = path;
	s.config = config;
	s.signal_fd = open_signals();
	remember_program(&s);
	if (process_raise_limits(config) == -1 || take_sockets(&s, upgrade_fd) == -1) {
		config_free(config);
		return 1;
	}
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd != -1)
		dup2(null_fd, STDIN_FILENO);
	prepare_folders(config);
	s.store.fd = -1;
	if (supervisor_store_hold(config->store.path, &s.store, &s.store) == -1) {
		supervisor_sockets_close(&s.sockets);
		config_free(config);
		return 1;
	}
	init_shared(&s, bytes, length);
	s.watchdog_ns = process_watchdog_ns();
	s.tick_ns = clock_now_ns();
	supervisor_start_collector(&s, s.tick_ns);
	child_start(s.current, s.tick_ns);
	while (!all_ended(&s))
		turn(&s);
	supervisor_sockets_close(&s.sockets);
	if (!s.announced)
		supervisor_store_undo(s.config->store.path, &s.store);
	s.failed |= any_was_killed(&s);
	config_free(s.config);
	log_info("stopped");
	return s.failed ? 1 : 0;
}
