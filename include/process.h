/* What every process of ours does to itself: title, limits, rights, the service manager's
 * datagrams. */
#ifndef TAILRACE_PROCESS_H
#define TAILRACE_PROCESS_H

#include "base/config.h"

/* Call first in main(): remembers where the arguments and the environment lie, and moves the
 * latter, so that process_set_title() may write over both. */
void process_title_init(int argc, char **argv);

/* What ps and top show. Cut to the room there is. Main thread. */
void process_set_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Raises the soft limit of open files to the hard one, and warns where that is too few for the
 * configuration. Children inherit it. */
void process_raise_limits(const struct config *config);

/* Makes the missing folders above a file, the last one owned by process.user. Returns 0, or -1
 * with errno. */
int process_make_folder(const struct config *config, const char *file, unsigned mode);

/* Sends a datagram to $NOTIFY_SOCKET (sd_notify(3)); nothing where it is not set. Never fails. */
void process_notify(const char *text);

/* Interval in which the service manager wants WATCHDOG=1, half of $WATCHDOG_USEC; 0 = it wants
 * none. */
uint64_t process_watchdog_ns(void);

#endif
