/* The supervisor's listening sockets: opened once, handed to every child, removed at the end. */
#ifndef TAILRACE_SUPERVISOR_SOCKETS_H
#define TAILRACE_SUPERVISOR_SOCKETS_H

#include <stddef.h>
#include <stdint.h>
#include "base/config.h"
#include "handover.h"

struct supervisor_sockets {
	int fds[HANDOVER_LISTENERS_MAX];     /* clients; -1 = let go */
	uint16_t of[HANDOVER_LISTENERS_MAX]; /* index in config->listeners each belongs to */
	size_t count;
	int control_fds[HANDOVER_LISTENERS_MAX]; /* one per control listener, in order */
	size_t control_count;
};

/* Opens all of them: one per listener, or one per worker thread where it is on TCP and there are
 * several threads. Logs the first failure and returns -1, having closed what it opened. */
int supervisor_sockets_open(const struct config *config, struct supervisor_sockets *ret);

/* Opens what listener `index` still lacks for `threads` worker threads, behind what is there: for a
 * new listener, and for more threads than it was opened for. Never fewer: threads share out what
 * there is (worker.c), since a closed socket of several would reset what waits on it. A socket
 * opened alone stays alone, shared by all threads. Returns 0, or -1 (logged). */
int supervisor_sockets_grow(const struct config *config, struct supervisor_sockets *sockets,
                            size_t index, size_t threads);

/* Lets go of the clients' sockets, so that the last worker that closes them ends them: new
 * connections are then refused, instead of waiting in a queue that nobody will ever read. */
void supervisor_sockets_refuse(struct supervisor_sockets *sockets);

/* Removes the socket files that are still ours, and closes. */
void supervisor_sockets_close(const struct config *config, struct supervisor_sockets *sockets);

#endif
