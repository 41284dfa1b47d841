/* The supervisor's listening sockets: opened once, handed to every child, removed at the end. */
#ifndef TAILRACE_SUPERVISOR_SOCKETS_H
#define TAILRACE_SUPERVISOR_SOCKETS_H

#include <stddef.h>
#include "base/config.h"
#include "handover.h"

struct supervisor_sockets {
	int fds
	    [HANDOVER_LISTENERS_MAX]; /* clients: in the order of config->listeners; -1 = let go */
	size_t count;
	int control_fds[HANDOVER_LISTENERS_MAX];
	size_t control_count;
};

/* Opens all of them; logs the first failure and returns -1, having closed what it opened. */
int supervisor_sockets_open(const struct config *config, struct supervisor_sockets *ret);

/* Lets go of the clients' sockets, so that the last worker that closes them ends them: new
 * connections are then refused, instead of waiting in a queue that nobody will ever read. */
void supervisor_sockets_refuse(struct supervisor_sockets *sockets);

/* Removes the socket files that are still ours, and closes. */
void supervisor_sockets_close(const struct config *config, struct supervisor_sockets *sockets);

#endif
