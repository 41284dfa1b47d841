/* The fence of evhttp: how many connections, and how long a request may take to arrive. evhttp's own timeout
 * starts anew with every byte, and it has no limit of connections. One loop's thread. */
#ifndef TAILRACE_COLLECTOR_GUARD_H
#define TAILRACE_COLLECTOR_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_CONNECTIONS_MAX 64 /* of all control listeners; at the limit they stop accepting */
#define GUARD_LISTENERS_MAX 64
#define GUARD_REQUEST_MS 10000 /* first byte of a request to its last */

struct event_base;
struct evconnlistener;
struct evhttp;
struct evhttp_request;
struct guard;

/* Counts into *pauses and *timeouts (borrowed). Owned, freed after the evhttps. */
struct guard *guard_new(struct event_base *base, uint64_t *pauses, uint64_t *timeouts);
void guard_free(struct guard *guard);

/* Puts an evhttp and its listener under the guard. */
void guard_watch(struct guard *guard, struct evhttp *http, struct evconnlistener *listener);

/* To be called first for each request: it has arrived whole. */
void guard_arrived(struct guard *guard, struct evhttp_request *request);

size_t guard_connections(const struct guard *guard);

/* Looks at ages and at the limit; about ten times a second. */
void guard_tick(struct guard *guard, uint64_t now_ns);

/* No new connections from now on. */
void guard_close_listeners(struct guard *guard);

#endif
