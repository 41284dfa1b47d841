/* Accepting: bounded per wakeup, paused at limits.connections and when descriptors run out. */
#ifndef TAILRACE_PROXY_LISTENER_H
#define TAILRACE_PROXY_LISTENER_H

#include <stdbool.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include "base/config.h"
#include "base/log_limit.h"
#include "proxy/timer.h"

struct loop;

#define ACCEPTS_PER_WAKEUP 64
#define ACCEPT_RETRY_NS (100ull * 1000 * 1000) /* after EMFILE and its like */

struct listener {
	struct loop *loop;
	const struct config_listener *config;
	struct event event;
	struct timer retry;
	int fd; /* -1 = closed */
	bool accepting;
	struct log_limit log_limit;
	bool full; /* paused because of limits.connections */
};

/* Takes over `fds` (of[i] is the config->listeners entry that fds[i] belongs to) and starts
 * accepting. */
int listeners_start(struct loop *loop, const int *fds, const uint16_t *of, size_t count);

/* A client went: go on accepting where the limit had stopped it. */
void listeners_resume(struct loop *loop);

/* Accepts what is queued already, then closes: event_del before close. */
void listeners_close(struct loop *loop);

#endif
