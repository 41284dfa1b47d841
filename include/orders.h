/* What the supervisor tells a running collector, over the socket that is its life line: a new
 * configuration before any worker runs with it, and that one is in force. Messages keep their
 * order and are never cut (SOCK_SEQPACKET); end of file is the supervisor's end. */
#ifndef TAILRACE_ORDERS_H
#define TAILRACE_ORDERS_H

#include <stddef.h>
#include <stdint.h>
#include "base/config.h"

enum order_kind {
	ORDER_CONFIG = 1, /* one descriptor: the sealed bytes of configuration `serial` */
	ORDER_IN_FORCE, /* `serial` from now on; its control sockets, in the order of its listeners */
};

#define ORDER_FDS_MAX CONFIG_LISTENERS_MAX

struct order {
	uint32_t kind, serial, fd_count;
	int fds[ORDER_FDS_MAX]; /* received ones are close-on-exec and the receiver's to close */
};

/* Never waits. Returns 0, or -1 with errno. */
int order_send(int socket, const struct order *order);

/* Returns 1 with *ret filled, 0 where there is none now, -1 where the sender is gone. */
int order_receive(int socket, struct order *ret);

#endif
