/* Diagnostic log: one line per event, "<time> <level> <role>[pid]: text", on standard error or in a
 * file that stands in its place. Control bytes are escaped. The access log is not this: it comes
 * from exchange records. Any thread. */
#ifndef TAILRACE_BASE_LOG_H
#define TAILRACE_BASE_LOG_H

#include <sys/types.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `role` is borrowed for the life of the process ("supervisor", "worker 3", "collector"). */
void log_init(const char *role, enum log_level level);

/* Puts a file in the place of standard error, made (0640, owned by `uid` and `gid`; -1 = the
 * caller's) where there is none. `path` is borrowed for the life of the process, or until the next
 * call; null: standard error stays. Returns 0, or -1 with errno, and the log stays where it is.
 * Main thread. */
int log_open(const char *path, uid_t uid, gid_t gid);

/* Until log_console_end() every line also goes where standard error was before the first
 * log_open(): who starts the program sees why it does not. Supervisor only. */
void log_console_begin(void);
void log_console_end(void);

/* Opens the file anew by its name, after a rotation. Returns 0 (also where there is none), or -1
 * with errno, and the old file stays. Safe in a signal handler. */
int log_reopen(void);

/* USR1 calls log_reopen() from now on; log_reopens() counts how often. */
void log_reopen_on_signal(void);
unsigned log_reopens(void);

/* Parses "error", "warn", "info", "debug"; -1 for anything else. */
int log_level_parse(const char *name);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

extern enum log_level log_level_now; /* read by the macros; a debug line costs one branch */

#define log_at(level, ...)                               \
	do {                                             \
		if ((level) <= log_level_now)            \
			log_write((level), __VA_ARGS__); \
	} while (0)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Logs at error level and ends the process with exit status 1. */
void fatal(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
