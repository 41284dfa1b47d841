/* The life of an exchange as a table of steps: READ_HEAD, ADMIT, QUEUE, CONNECT, SEND, then both directions
 * at once (RELAY), FINISH; aside REPLY_LOCAL and ABORT. Every function here may end the exchange. */
#ifndef TAILRACE_PROXY_PROXY_H
#define TAILRACE_PROXY_PROXY_H

#include <stdint.h>
#include "proxy/exchange.h"

/* Runs steps until one waits. */
void proxy_run(struct exchange *exchange);
void proxy_go(struct exchange *exchange, enum step step);

/* The attempt cannot go on: a safe retry, else proxy_fail(). */
void proxy_attempt_failed(struct exchange *exchange, enum close_reason reason);

/* The exchange cannot go on: a local reply where nothing was answered yet and `reason` has a status, else
 * it is cut off. */
void proxy_fail(struct exchange *exchange, enum close_reason reason);

/* The client closed or reset. */
void proxy_client_gone(struct exchange *exchange);

/* The response was read: gives the connection back (or closes it) and frees the slot. Repeatable. */
void proxy_release(struct exchange *exchange);

/* The exchange that waited in the queue has a slot at `server`. */
void proxy_granted(struct waiter *waiter, struct server *server);

/* queue_timeout_ms passed. */
void proxy_queued_too_long(struct exchange *exchange);

/* The server's slot is free for others; its connection stays (a tunnel is no exchange in flight). */
void proxy_return_slot(struct exchange *exchange);

/* The connection of this attempt is usable. */
void proxy_connected(struct exchange *exchange, uint64_t now_ns);

#endif
