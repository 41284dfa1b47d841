/* The supervisor: opens the sockets, starts worker and collector, restarts what dies, stops in
 * order. */
#ifndef TAILRACE_SUPERVISOR_H
#define TAILRACE_SUPERVISOR_H

#include <stddef.h>
#include "base/config.h"

/* Runs the gateway until it is told to stop (TERM, INT, QUIT: drain; a second one: now). `path` is
 * the configuration's file, read again at HUP; `config` what it holds, taken over; `bytes` the
 * checked text that the children get. `upgrade_fd` is what the program before left at USR2, -1 at a
 * plain start. Returns the exit status: 0 stopped as asked, 1 a part could not be started, or had
 * to be killed at the end. Main thread; called once. */
int supervisor_main(const char *path, struct config *config, const char *bytes, size_t length,
                    int upgrade_fd);

#endif
