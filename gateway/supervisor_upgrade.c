/* Upgrade: the supervisor executes its program file anew and keeps sockets and children. The new
 * build starts a collector, workers, board and rings of its own; when they serve, the elders are
 * told to end: workers drain, their collector empties their rings and goes with the last of them.
 * What passes between the two builds is JSON that both may extend, and signals. */
#include "supervisor_state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "process.h"

#define CHECK_MS 10000 /* for the new program to read the configuration */
#define STATE_VERSION 1
#define STATE_BYTES_MAX (1 << 20)

/* --- the old program's side -------------------------------------------------------------- */

/* As the new program would: a missing library, a key it does not know, a crash at its start are
 * found while there still is a way back. */
static pid_t
start_check(const struct supervisor *s)
{
	char name[] = "tailrace", command[] = "check", option[] = "-c";
	char *path = strdup(s->path);
	char *argv[] = {name, command, option, path, NULL};
	sigset_t none;
	pid_t pid = path != NULL ? fork() : -1;

	if (pid == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execv(s->program, argv);
		log_error("%s: %s", s->program, strerror(errno));
		_exit(127);
	}
	free(path);
	return pid;
}

void
upgrade_begin(struct supervisor *s, uint64_t now_ns)
{
	if (s->stop_ns != 0 || !elders_gone(s)) {
		log_warn("USR2 ignored: %s",
		         s->stop_ns != 0 ? "stopping" : "processes of the last one still drain");
		return;
	}
	if (s->upgrade.check_pid > 0)
		return;
	if (s->reload.config != NULL || s->current->state != CHILD_SERVING) {
		s->upgrade.wanted = true;
		return;
	}
	s->upgrade.wanted = false;
	s->upgrade.check_pid = start_check(s);
	s->upgrade.deadline_ns = now_ns + CHECK_MS * NS_PER_MS;
	if (s->upgrade.check_pid == -1) {
		log_error("USR2: %s", strerror(errno));
		s->upgrade.check_pid = 0;
		return;
	}
	log_info("USR2: %s reads %s", s->program, s->path);
}

static json_t *
sockets_json(const struct supervisor *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->sockets.count; i++)
		json_array_append_new(list, json_pack("{s:i,s:b}", "fd", s->sockets.list[i].fd,
		                                      "passed", s->sockets.list[i].passed));
	return list;
}

static json_t *
child_json(const struct child *child, const char *role)
{
	return json_pack("{s:s,s:i,s:i,s:b,s:i}", "role", role, "pid", (int)child->pid, "life_fd",
	                 child->life_fd, "told", child->state == CHILD_STOPPING,
	                 "shutdown_timeout_ms", (int)child->shutdown_timeout_ms);
}

static json_t *
state_json(const struct supervisor *s)
{
	json_t *children = json_array();

	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (s->workers[i].role != NULL && s->workers[i].pid > 0)
			json_array_append_new(children, child_json(&s->workers[i], "worker"));
	if (s->collector.pid > 0)
		json_array_append_new(children, child_json(&s->collector, "collector"));
	return json_pack("{s:i,s:s,s:I,s:o,s:o}", "v", STATE_VERSION, "version", TAILRACE_VERSION,
	                 "generation", (json_int_t)s->generation, "sockets", sockets_json(s),
	                 "children", children);
}

static void
set_inherited(const struct supervisor *s, int state_fd, bool inherited)
{
	int flags = inherited ? 0 : FD_CLOEXEC;

	fcntl(state_fd, F_SETFD, flags);
	for (size_t i = 0; i < s->sockets.count; i++)
		fcntl(s->sockets.list[i].fd, F_SETFD, flags);
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (s->workers[i].role != NULL && s->workers[i].life_fd != -1)
			fcntl(s->workers[i].life_fd, F_SETFD, flags);
	if (s->collector.life_fd != -1)
		fcntl(s->collector.life_fd, F_SETFD, flags);
}

static int
write_state(const struct supervisor *s)
{
	int fd = memfd_create("tailrace-upgrade", MFD_CLOEXEC);
	json_t *state = state_json(s);
	int result = fd != -1 && state != NULL ? json_dumpfd(state, fd, JSON_COMPACT) : -1;

	json_decref(state);
	if (result == 0)
		return fd;
	if (fd != -1)
		close(fd);
	return -1;
}

static void
execute(struct supervisor *s, uint64_t now_ns)
{
	char name[] = "tailrace", command[] = "run", option[] = "-c", upgrade[] = "--upgrade",
	     number[16], notice[64];
	char *path = strdup(s->path);
	char *argv[] = {name, command, option, path, upgrade, number, NULL};
	int fd = path != NULL ? write_state(s) : -1;

	if (fd == -1) {
		log_error("USR2: no memory; the old program goes on");
		free(path);
		return;
	}
	snprintf(number, sizeof(number), "%d", fd);
	snprintf(notice, sizeof(notice), "RELOADING=1\nMONOTONIC_USEC=%llu",
	         (unsigned long long)(now_ns / NS_PER_US));
	process_notify(notice);
	log_info("USR2: executing %s", s->program);
	set_inherited(s, fd, true);
	execv(s->program, argv);
	log_error("USR2: %s: %s; the old program goes on", s->program, strerror(errno));
	set_inherited(s, fd, false);
	process_notify("READY=1\nSTATUS=serving; the last upgrade failed");
	close(fd);
	free(path);
}

void
upgrade_step(struct supervisor *s, uint64_t now_ns)
{
	struct upgrade *upgrade = &s->upgrade;
	int status;

	if (upgrade->wanted && s->reload.config == NULL && s->current->state == CHILD_SERVING)
		upgrade_begin(s, now_ns);
	if (upgrade->check_pid <= 0)
		return;
	if (now_ns >= upgrade->deadline_ns)
		kill(upgrade->check_pid, SIGKILL);
	if (waitpid(upgrade->check_pid, &status, WNOHANG) != upgrade->check_pid)
		return;
	upgrade->check_pid = 0;
	if (s->stop_ns != 0)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		execute(s, now_ns);
	else
		log_error("USR2: the new program does not take the configuration; the old one goes "
		          "on");
}

/* --- the new program's side -------------------------------------------------------------- */

static json_t *
read_state(int fd)
{
	struct stat st;
	json_t *state = NULL;
	json_error_t error;

	if (fstat(fd, &st) == 0 && st.st_size <= STATE_BYTES_MAX && lseek(fd, 0, SEEK_SET) == 0)
		state = json_loadfd(fd, JSON_REJECT_DUPLICATES, &error);
	close(fd);
	return state;
}

static void
inherit_child(struct supervisor *s, json_t *json)
{
	struct elder *elder = s->elders;
	const char *role = json_string_value(json_object_get(json, "role"));

	while (elder < s->elders + ELDERS_MAX && elder->pid > 0)
		elder++;
	if (elder == s->elders + ELDERS_MAX || role == NULL)
		return;
	elder->pid = (pid_t)json_integer_value(json_object_get(json, "pid"));
	elder->life_fd = (int)json_integer_value(json_object_get(json, "life_fd"));
	elder->is_worker = strcmp(role, "worker") == 0;
	elder->shutdown_timeout_ms =
	    (uint32_t)json_integer_value(json_object_get(json, "shutdown_timeout_ms"));
	fcntl(elder->life_fd, F_SETFD, FD_CLOEXEC);
	/* One that drains already gets no more time than one told now. */
	elder->told = json_is_true(json_object_get(json, "told"));
	if (elder->told)
		elder->deadline_ns =
		    clock_now_ns() + (elder->shutdown_timeout_ms + WORKER_GRACE_MS) * NS_PER_MS;
}

int
upgrade_inherit(struct supervisor *s, int fd)
{
	json_t *state = read_state(fd), *item;
	int result = state != NULL ? 0 : -1;
	size_t i;

	json_array_foreach(json_object_get(state, "sockets"), i, item)
	{
		int own = (int)json_integer_value(json_object_get(item, "fd"));

		if (supervisor_sockets_adopt(&s->sockets, own,
		                             json_is_true(json_object_get(item, "passed"))) == -1)
			result = -1;
	}
	json_array_foreach(json_object_get(state, "children"), i, item) inherit_child(s, item);
	s->generation = (uint64_t)json_integer_value(json_object_get(state, "generation"));
	if (result == -1)
		log_error("upgrade: what the old program left cannot be read");
	else
		log_info("upgrade: took over from %s",
		         json_string_value(json_object_get(state, "version")));
	json_decref(state);
	return result;
}

/* --- elders ------------------------------------------------------------------------------ */

static void
tell(struct elder *elder, uint64_t now_ns, bool now)
{
	uint64_t limit_ms = elder->shutdown_timeout_ms + (uint64_t)WORKER_GRACE_MS;

	if (!elder->told || now)
		kill(elder->pid, elder->is_worker ? SIGTERM : SIGUSR2);
	if (!elder->told && elder->is_worker)
		elder->deadline_ns = now_ns + limit_ms * NS_PER_MS;
	if (now && elder->is_worker)
		elder->deadline_ns = now_ns + NOW_STOP_MS * NS_PER_MS;
	elder->told = true;
}

static bool
any_worker(const struct supervisor *s)
{
	for (size_t i = 0; i < ELDERS_MAX; i++)
		if (s->elders[i].pid > 0 && s->elders[i].is_worker)
			return true;
	return false;
}

bool
elders_gone(const struct supervisor *s)
{
	for (size_t i = 0; i < ELDERS_MAX; i++)
		if (s->elders[i].pid > 0)
			return false;
	return true;
}

uint64_t
elders_next_ns(const struct supervisor *s)
{
	uint64_t next_ns = UINT64_MAX;

	for (size_t i = 0; i < ELDERS_MAX; i++)
		if (s->elders[i].pid > 0 && s->elders[i].deadline_ns != 0 &&
		    s->elders[i].deadline_ns < next_ns)
			next_ns = s->elders[i].deadline_ns;
	return next_ns;
}

void
elders_stop(struct supervisor *s, uint64_t now_ns, bool now)
{
	for (size_t i = 0; i < ELDERS_MAX; i++)
		if (s->elders[i].pid > 0)
			tell(&s->elders[i], now_ns, now);
}

static void
reap_elder(struct elder *elder)
{
	int status;

	if (waitpid(elder->pid, &status, WNOHANG) != elder->pid)
		return;
	log_info("%s[%d] of the build before ended", elder->is_worker ? "worker" : "collector",
	         (int)elder->pid);
	close(elder->life_fd);
	*elder = (struct elder){0};
}

void
elders_step(struct supervisor *s, uint64_t now_ns)
{
	bool worker_serves = s->current->state == CHILD_SERVING;
	bool collector_serves = s->collector.state == CHILD_SERVING;

	for (size_t i = 0; i < ELDERS_MAX; i++) {
		struct elder *elder = &s->elders[i];

		if (elder->pid <= 0)
			continue;
		reap_elder(elder);
		if (elder->pid <= 0)
			continue;
		if (!elder->told && worker_serves && (elder->is_worker || collector_serves))
			tell(elder, now_ns, false);
		if (!elder->is_worker && elder->told && elder->deadline_ns == 0 && !any_worker(s))
			elder->deadline_ns = now_ns + COLLECTOR_STOP_MS * NS_PER_MS;
		if (elder->deadline_ns != 0 && now_ns >= elder->deadline_ns) {
			log_error("[%d] of the build before killed: did not end in time",
			          (int)elder->pid);
			kill(elder->pid, SIGKILL);
			elder->deadline_ns = UINT64_MAX;
		}
	}
}
