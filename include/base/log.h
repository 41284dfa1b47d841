/* Diagnostic log: one line per event on standard error, "<time> <level> <role>[pid]: text". Control
 * bytes are escaped. The access log is not this: it comes from exchange records. Any thread. */
#ifndef TAILRACE_BASE_LOG_H
#define TAILRACE_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `role` is borrowed for the life of the process ("supervisor", "worker 3", "collector"). */
void log_init(const char *role, enum log_level level);

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
