/* Life of one child: started, ready, watched, ended, started again later each time it dies
 * young. */
#include "supervisor_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log.h"
#include "supervisor_spawn.h"

static void
set_place(struct child *child, enum board_state state)
{
	atomic_store_explicit(&child->place->state, (uint32_t)state, memory_order_release);
}

static void
close_pipes(struct child *child)
{
	if (child->life_fd != -1)
		close(child->life_fd);
	if (child->ready_fd != -1)
		close(child->ready_fd);
	child->life_fd = -1;
	child->ready_fd = -1;
}

static bool
is_worker(const struct child *child)
{
	return child->threads > 0;
}

/* A start that failed and a process that died are answered alike. */
static void
plan_restart(struct child *child, uint64_t now_ns)
{
	child->state = CHILD_DOWN;
	child->backoff_ms = child->backoff_ms == 0 ? CHILD_BACKOFF_MIN_MS : child->backoff_ms * 2;
	if (child->backoff_ms > CHILD_BACKOFF_MAX_MS)
		child->backoff_ms = CHILD_BACKOFF_MAX_MS;
	child->restart_ns = now_ns + child->backoff_ms * NS_PER_MS;
}

void
child_forgive(struct child *child, uint64_t now_ns)
{
	size_t slot = child->handover.generation % BOARD_GENERATIONS_MAX;

	atomic_store(&child->place->heartbeat_ns, now_ns);
	for (size_t i = 0; i < child->threads; i++)
		atomic_store(&child->board->threads[slot][i].heartbeat_ns, now_ns);
}

/* Others may still drain in theirs: a generation whose place is taken is passed over. */
static struct board_process *
next_place(struct child *child)
{
	struct board_process *place;

	do {
		child->handover.generation = ++*child->generations;
		place = &child->board->workers[child->handover.generation % BOARD_GENERATIONS_MAX];
	} while (atomic_load(&place->pid) > 0);
	return place;
}

/* Its life line: end of file says that we are gone. The collector's carries orders too. */
static int
make_life_line(const struct child *child, int ret[2])
{
	int pair[2], result;

	if (is_worker(child))
		return pipe2(ret, O_CLOEXEC);
	result = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
	ret[0] = pair[1];
	ret[1] = pair[0];
	return result;
}

/* The generation's slot on the board, fresh: what a dead process left there is counted already. */
static void
take_place(struct child *child, uint64_t now_ns)
{
	if (is_worker(child))
		child->place = next_place(child);
	else
		child->handover.generation++;
	child_forgive(child, now_ns);
	atomic_store(&child->place->generation, child->handover.generation);
	atomic_store(&child->place->config, child->handover.config_serial);
	atomic_store(&child->place->started_ns, now_ns);
	set_place(child, BOARD_STARTING);
}

bool
child_start(struct child *child, uint64_t now_ns)
{
	int life[2], ready[2];

	if (child->state != CHILD_DOWN || now_ns < child->restart_ns)
		return false;
	take_place(child, now_ns);
	if (make_life_line(child, life) == -1)
		fatal("%s: pipe: %s", child->role, strerror(errno));
	if (pipe2(ready, O_CLOEXEC) == -1)
		fatal("%s: pipe: %s", child->role, strerror(errno));
	child->handover.life_fd = life[0];
	child->handover.ready_fd = ready[1];
	child->pid = spawn_child(child->role, &child->handover);
	close(life[0]);
	close(ready[1]);
	child->life_fd = life[1];
	child->ready_fd = ready[0];
	child->started_ns = now_ns;
	if (child->pid == -1) {
		log_error("%s cannot be started: %s", child->role, strerror(errno));
		close_pipes(child);
		plan_restart(child, now_ns);
		return false;
	}
	child->state = CHILD_STARTING;
	child->deadline_ns = now_ns + CHILD_READY_MS * NS_PER_MS;
	atomic_store(&child->place->pid, (int32_t)child->pid);
	return true;
}

void
child_on_ready(struct child *child, uint64_t now_ns)
{
	char byte;
	ssize_t n = read(child->ready_fd, &byte, 1);

	if (n == -1 && (errno == EINTR || errno == EAGAIN))
		return;
	close(child->ready_fd);
	child->ready_fd = -1;
	/* End of file without a byte: it is dying, and its exit will tell. */
	if (n != 1 || child->state != CHILD_STARTING)
		return;
	child->state = CHILD_SERVING;
	child->was_ready = true;
	set_place(child, BOARD_RUNNING);
	log_info("%s ready after %llu ms, pid %d", child->role,
	         (unsigned long long)((now_ns - child->started_ns) / NS_PER_MS), (int)child->pid);
}

/* What the process still had in flight is lost; its counters stay, its gauges are void. */
static uint64_t
count_lost(struct child *child)
{
	struct board *board = child->board;
	size_t slot = child->handover.generation % BOARD_GENERATIONS_MAX;
	uint64_t lost = 0;

	for (size_t i = 0; is_worker(child) && i < BOARD_THREADS_MAX; i++) {
		struct board_thread *thread = &board->threads[slot][i];

		lost += atomic_exchange(&thread->in_flight, 0);
		atomic_store(&thread->client_connections, 0);
	}
	board_add(&board->exchanges_lost, lost);
	return lost;
}

static void
log_death(const struct child *child, int status, uint64_t lost)
{
	const char *how = WIFSIGNALED(status) ? "was ended by signal" : "ended with status";
	int number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);

	if (child->once)
		log_error("%s[%d] %s %d before it served", child->role, (int)child->pid, how,
		          number);
	else
		log_error("%s[%d] %s %d, %llu exchanges lost, next start in %u ms", child->role,
		          (int)child->pid, how, number, (unsigned long long)lost,
		          child->backoff_ms);
}

/* One that was not ready yet may have had no handler of the signal either. */
static bool
ended_as_told(const struct child *child, int status)
{
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGTERM && !child->was_ready;
	return WEXITSTATUS(status) == 0;
}

void
child_on_exit(struct child *child, int status, uint64_t now_ns)
{
	uint64_t lost = count_lost(child);
	bool told = child->state == CHILD_STOPPING;

	close_pipes(child);
	atomic_store(&child->place->pid, 0);
	set_place(child, told ? BOARD_STOPPED : BOARD_DEAD);
	if (told && child->again) {
		child->again = false;
		child->state = CHILD_DOWN;
		child->restart_ns = now_ns;
		return;
	}
	if (told) {
		child->state = CHILD_ENDED;
		child->was_killed |= !ended_as_told(child, status);
		log_info("%s ended", child->role);
		return;
	}
	if (now_ns - child->started_ns >= CHILD_STABLE_MS * NS_PER_MS)
		child->backoff_ms = 0;
	plan_restart(child, now_ns);
	log_death(child, status, lost);
	if (child->once) {
		child->state = CHILD_ENDED;
		return;
	}
	board_add(is_worker(child) ? &child->board->worker_restarts
	                           : &child->board->collector_restarts,
	          1);
}

void
child_stop(struct child *child, uint64_t now_ns, uint64_t limit_ms)
{
	uint64_t deadline_ns = now_ns + limit_ms * NS_PER_MS;
	bool again, drains;

	if (child->state == CHILD_DOWN)
		child->state = CHILD_ENDED;
	if (child->state == CHILD_ENDED)
		return;
	/* A second order only ever brings the end nearer. */
	again = child->state == CHILD_STOPPING;
	if (!again || deadline_ns < child->deadline_ns)
		child->deadline_ns = deadline_ns;
	child->state = CHILD_STOPPING;
	/* A signal to all processes may have reached it already; a second one would mean "now". */
	drains = atomic_load_explicit(&child->place->state, memory_order_acquire) == BOARD_DRAINING;
	set_place(child, BOARD_DRAINING);
	if (again || !drains)
		kill(child->pid, SIGTERM);
}

void
child_signal(const struct child *child, int number)
{
	if (child->state == CHILD_SERVING || child->state == CHILD_STOPPING)
		kill(child->pid, number);
}

/* The first thread runs the main loop too: either beat will do for it. */
static uint64_t
oldest_heartbeat(const struct child *child)
{
	size_t slot = child->handover.generation % BOARD_GENERATIONS_MAX;
	uint64_t main_ns = atomic_load(&child->place->heartbeat_ns), oldest = UINT64_MAX;

	for (size_t i = 0; i < child->threads; i++) {
		uint64_t beat = atomic_load(&child->board->threads[slot][i].heartbeat_ns);

		if (i == 0 && beat < main_ns)
			beat = main_ns;
		if (beat < oldest)
			oldest = beat;
	}
	return child->threads > 0 ? oldest : main_ns;
}

bool
child_is_alive(const struct child *child, uint64_t now_ns)
{
	uint64_t beat = oldest_heartbeat(child);

	return beat >= now_ns || now_ns - beat < CHILD_HEARTBEAT_MS * NS_PER_MS;
}

static void
put_to_death(struct child *child, const char *why)
{
	log_error("%s[%d] killed: %s", child->role, (int)child->pid, why);
	kill(child->pid, SIGKILL);
	/* Its exit comes as SIGCHLD; until then nothing more is asked of it. */
	child->deadline_ns = UINT64_MAX;
}

void
child_watch(struct child *child, uint64_t now_ns)
{
	if (child->state == CHILD_STARTING && now_ns >= child->deadline_ns) {
		put_to_death(child, "not ready in 10 s");
	} else if (child->state == CHILD_SERVING && !child_is_alive(child, now_ns)) {
		put_to_death(child, "no heartbeat for 10 s");
	} else if (child->state == CHILD_STOPPING && now_ns >= child->deadline_ns) {
		child->was_killed = true;
		put_to_death(child, "did not end in time");
	}
}

uint64_t
child_next_ns(const struct child *child)
{
	switch (child->state) {
	case CHILD_DOWN:
		return child->restart_ns;
	case CHILD_STARTING:
	case CHILD_STOPPING:
		return child->deadline_ns;
	default:
		return UINT64_MAX;
	}
}
