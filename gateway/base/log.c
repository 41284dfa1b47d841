/* Diagnostic log: formats one line and hands it to the kernel in one write, so that lines of
 * several processes on one pipe or file never mix. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"

#define LOG_TEXT_MAX 2048 /* longer texts are cut */

enum log_level log_level_now = LOG_LEVEL_INFO;
static const char *log_role = "tailrace";
static const char *_Atomic log_path; /* null = standard error as it came */
static uid_t log_uid = (uid_t)-1;    /* who owns a file that is made here */
static gid_t log_gid = (gid_t)-1;
static int console_fd = -1;
static volatile sig_atomic_t reopens;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void
log_init(const char *role, enum log_level level)
{
	log_role = role;
	log_level_now = level;
}

/* Only functions that a signal handler may call (signal-safety(7)). dup2() is atomic: whoever
 * writes just then writes into the old file or into the new one. */
static int
put_in_place(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
	int done, saved;

	if (fd == -1)
		return -1;
	/* Children that have dropped their rights must be able to open it again. */
	if (geteuid() == 0 && fchown(fd, log_uid, log_gid) == -1)
		errno = 0; /* theirs to tell, when they cannot */
	done = dup2(fd, STDERR_FILENO);
	saved = errno;
	close(fd);
	errno = saved;
	return done == -1 ? -1 : 0;
}

int
log_open(const char *path, uid_t uid, gid_t gid)
{
	if (path == NULL)
		return 0;
	log_uid = uid;
	log_gid = gid;
	if (put_in_place(path) == -1)
		return -1;
	log_path = path;
	return 0;
}

int
log_reopen(void)
{
	const char *path = log_path;

	return path != NULL ? put_in_place(path) : 0;
}

static void
on_reopen_signal(int number)
{
	int saved = errno;

	(void)number;
	log_reopen();
	reopens++;
	errno = saved;
}

void
log_reopen_on_signal(void)
{
	struct sigaction action = {.sa_handler = on_reopen_signal, .sa_flags = SA_RESTART};

	sigaction(SIGUSR1, &action, NULL);
}

unsigned
log_reopens(void)
{
	return (unsigned)reopens;
}

void
log_console_begin(void)
{
	console_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
}

void
log_console_end(void)
{
	if (console_fd != -1)
		close(console_fd);
	console_fd = -1;
}

int
log_level_parse(const char *name)
{
	for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++)
		if (strcmp(name, level_names[i]) == 0)
			return (int)i;
	return -1;
}

/* Copies with control bytes as \xNN, so that a client's bytes can neither forge a line nor steer a
 * terminal. Bytes of UTF-8 pass. Returns the length, at most size. */
static size_t
escape(char *out, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text != '\0' && n + 4 <= size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f) {
			static const char digits[] = "0123456789abcdef";

			out[n++] = '\\';
			out[n++] = 'x';
			out[n++] = digits[c >> 4];
			out[n++] = digits[c & 15];
		} else {
			out[n++] = (char)c;
		}
	}
	return n;
}

static void __attribute__((format(printf, 2, 0)))
write_line(enum log_level level, const char *format, va_list args)
{
	char text[LOG_TEXT_MAX], line[2 * LOG_TEXT_MAX], when[32];
	size_t n;
	int head;

	vsnprintf(text, sizeof(text), format, args);
	clock_format(clock_wall_ns(), when, sizeof(when));
	head = snprintf(line, sizeof(line), "%s %s %s[%d]: ", when, level_names[level], log_role,
	                (int)getpid());
	n = (size_t)head;
	n += escape(line + n, sizeof(line) - n - 1, text);
	line[n++] = '\n';
	if (console_fd != -1 && log_path != NULL && write(console_fd, line, n) == -1)
		console_fd = -1;
	/* A log that cannot be written must not end the process: nothing to do about it. */
	if (write(STDERR_FILENO, line, n) == -1)
		return;
}

void
log_write(enum log_level level, const char *format, ...)
{
	int saved = errno;
	va_list args;

	va_start(args, format);
	write_line(level, format, args);
	va_end(args);
	errno = saved;
}

void
fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_line(LOG_LEVEL_ERROR, format, args);
	va_end(args);
	_exit(1);
}
