/* Diagnostic log: formats one line and hands it to the kernel in one write, so that lines of
 * several processes on one pipe or file never mix. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

#define LOG_TEXT_MAX 2048 /* longer texts are cut */

enum log_level log_level_now = LOG_LEVEL_INFO;
static const char *log_role = "tailrace";

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void
log_init(const char *role, enum log_level level)
{
	log_role = role;
	log_level_now = level;
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
