/* What every process of ours does to itself: title, limits, rights, the service manager's
 * datagrams. */
#ifndef TAILRACE_PROCESS_H
#define TAILRACE_PROCESS_H

#include "base/config.h"

/* Call first in main(): remembers where the arguments and the environment lie, and moves the
 * latter, so that process_set_title() may write over both. */
void process_title_init(int argc, char **argv);

/* The configuration behind a sealed descriptor, which is closed; its serial is set. Null, logged,
 * where it cannot be read (a fault of the program: the supervisor has checked it). */
struct config *process_read_config(int fd, uint32_t serial);

/* What ps and top show. Cut to the room there is. Main thread. */
void process_set_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Raises the limit of open files to what the configuration may need, at least to the hard limit
 * there is. Children inherit it. Returns 0, or -1 where it cannot be had (logged). */
int process_raise_limits(const struct config *config);

/* Makes the missing folders above a file, the last one owned by process.user. Returns 0, or -1
 * with errno. */
int process_make_folder(const struct config *config, const char *file, unsigned mode);

/* Puts log.error.path, its folder made where it is missing, in the place of standard error. Returns
 * 0 (also where there is none), or -1, said in the log that stays. */
int process_open_log(const struct config *config);

/* The folder of log.access.path, where it is missing: the collector may not make it. */
void process_make_log_folder(const struct config *config);

/* Has the kernel schedule this thread, and those it starts, in short turns: it is asked sooner when it
 * has something to do, and lets others have the core sooner (Linux 6.12, sched_setattr(2),
 * Documentation/scheduler/sched-eevdf.rst; nothing before). Priority and share stay what they are.
 * Never fails. */
void process_take_short_turns(void);

/* Sends a datagram to $NOTIFY_SOCKET (sd_notify(3)); nothing where it is not set. Never fails. */
void process_notify(const char *text);

/* Interval in which the service manager wants WATCHDOG=1, half of $WATCHDOG_USEC; 0 = it wants
 * none. */
uint64_t process_watchdog_ns(void);

#endif
