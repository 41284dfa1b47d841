/* The fence of evhttp: how many connections, how long a request may take to arrive, how much may wait
 * behind it. evhttp's own timeout starts anew with every byte, it has no limit of connections, and
 * reads on while it answers. What it refuses itself becomes an error of ours. One loop's thread. */
#ifndef TAILRACE_COLLECTOR_GUARD_H
#define TAILRACE_COLLECTOR_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_CONNECTIONS_MAX 64 /* of all control listeners; at the limit they stop accepting */
#define GUARD_TCP_MAX 48 /* where those on TCP stop: strangers leave room to the unix sockets */
#define GUARD_LISTENERS_MAX 64
#define GUARD_INPUT_MAX \
	(3u << 20)             /* bytes of a connection not looked at yet: more than any request */
#define GUARD_REQUEST_MS 10000 /* first byte of a request to its last */

struct event_base;
struct evconnlistener;
struct evhttp;
struct evhttp_request;
struct guard;
struct tls_server;

/* What the guard counts; borrowed. */
struct guard_counters {
	uint64_t *pauses, *timeouts;
	uint64_t *oversized; /* bodies that evhttp refused */
};

/* Owned, freed after the evhttps. */
struct guard *guard_new(struct event_base *base, const struct guard_counters *counters);
void guard_free(struct guard *guard);

/* A listener as each connection it accepts knows it; its owner's, as long as the evhttp lives. */
struct guard_entrance {
	struct guard *guard;    /* set by guard_watch() */
	struct tls_server *tls; /* null = in clear; may be replaced between two turns */
};

/* Puts an evhttp and its listener under the guard. */
void guard_watch(struct guard *guard, struct evhttp *http, struct evconnlistener *listener,
                 struct guard_entrance *entrance);

/* Forgets a listener that is about to be freed; its connections stay under the guard. */
void guard_unwatch(struct guard *guard, struct evconnlistener *listener);

/* To be called first for each request: it has arrived whole. */
void guard_arrived(struct guard *guard, struct evhttp_request *request);

size_t guard_connections(const struct guard *guard);

/* Lets go of what is over, looks at ages and at the limit; some fifty times a second. */
void guard_tick(struct guard *guard, uint64_t now_ns);

/* No new connections from now on. */
void guard_close_listeners(struct guard *guard);

#endif
