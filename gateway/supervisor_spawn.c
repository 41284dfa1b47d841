/* Both sides of starting a child: fork, exec and arguments; and reading them again. */
#include "supervisor_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIXED_FDS 5
#define LIST_SIZE (HANDOVER_LISTENERS_MAX * 16)

static int *
fixed_fd(struct handover *handover, size_t index)
{
	int *const fds[FIXED_FDS] = {&handover->config_fd, &handover->board_fd, &handover->rings_fd,
	                             &handover->life_fd, &handover->ready_fd};

	return fds[index];
}

static void
write_list(char *buf, const int *fds, size_t count)
{
	size_t n = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < count; i++)
		n += (size_t)snprintf(buf + n, LIST_SIZE - n, "%s%d", i > 0 ? "," : "", fds[i]);
}

/* "7:0,8:0,9:1": each descriptor and what it belongs to. */
static void
write_listeners(char *buf, const struct handover *handover)
{
	size_t n = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < handover->listener_count; i++)
		n += (size_t)snprintf(buf + n, LIST_SIZE - n, "%s%d:%u", i > 0 ? "," : "",
		                      handover->listener_fds[i], handover->listener_of[i]);
}

/* "3,4,5" or "7:0,8:1" -> descriptors that are open, and the numbers behind them in `of` (null:
 * none are allowed). Returns how many, or -1. */
static int
read_list(const char *text, int *fds, uint16_t *of, size_t max)
{
	size_t count = 0;
	char *end;

	while (*text != '\0' && count < max) {
		long fd = strtol(text, &end, 10);

		if (end == text || fd < 3 || fd > 1 << 20 ||
		    fcntl((int)fd, F_SETFD, FD_CLOEXEC) == -1)
			return -1;
		if (of != NULL && *end == ':')
			of[count] = (uint16_t)strtoul(end + 1, &end, 10);
		fds[count++] = (int)fd;
		text = *end == ',' ? end + 1 : end;
	}
	return *text == '\0' ? (int)count : -1;
}

/* Dispositions survive exec: a Ctrl-C reaches the whole group, and only the supervisor answers
 * it. */
static void
child_signals(void)
{
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};
	sigset_t none;

	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

pid_t
spawn_child(const char *role, const struct handover *handover)
{
	char program[] = "tailrace", name[16], generation[48], fixed[LIST_SIZE],
	     listeners[LIST_SIZE];
	char *argv[] = {program, name, generation, fixed, listeners, NULL};
	struct handover own = *handover;
	int fds[FIXED_FDS];
	pid_t pid;

	for (size_t i = 0; i < FIXED_FDS; i++)
		fds[i] = *fixed_fd(&own, i);
	snprintf(name, sizeof(name), "%s", role);
	snprintf(generation, sizeof(generation), "%llu:%u", (unsigned long long)own.generation,
	         own.config_serial);
	write_list(fixed, fds, FIXED_FDS);
	write_listeners(listeners, &own);
	pid = fork();
	if (pid != 0)
		return pid;
	for (size_t i = 0; i < FIXED_FDS; i++)
		fcntl(fds[i], F_SETFD, 0);
	for (size_t i = 0; i < own.listener_count; i++)
		fcntl(own.listener_fds[i], F_SETFD, 0);
	child_signals();
	execv("/proc/self/exe", argv);
	_exit(127);
}

int
spawn_receive(int argc, char **argv, struct handover *ret)
{
	struct handover handover = {0};
	int fds[FIXED_FDS], count;
	char *serial;
	struct stat st;

	if (argc != 5)
		return -1;
	handover.generation = strtoull(argv[2], &serial, 10);
	if (*serial != ':')
		return -1;
	handover.config_serial = (uint32_t)strtoul(serial + 1, NULL, 10);
	if (read_list(argv[3], fds, NULL, FIXED_FDS) != FIXED_FDS)
		return -1;
	for (size_t i = 0; i < FIXED_FDS; i++)
		*fixed_fd(&handover, i) = fds[i];
	count =
	    read_list(argv[4], handover.listener_fds, handover.listener_of, HANDOVER_LISTENERS_MAX);
	if (count < 0)
		return -1;
	handover.listener_count = (size_t)count;
	/* Somebody who types "tailrace worker 1 3,4,5,6,7 8" has no life line there. */
	if (fstat(handover.life_fd, &st) == -1 || (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode)))
		return -1;
	*ret = handover;
	return 0;
}
