/* Moving heads and bodies between the two connections of an exchange, with back-pressure. */
#ifndef TAILRACE_PROXY_RELAY_H
#define TAILRACE_PROXY_RELAY_H

#include <stddef.h>
#include <stdint.h>
#include "proxy/exchange.h"

#define READS_PER_WAKEUP 4 /* a long block counts as all of them */

/* Sends the head of the attempt and the body bytes at hand. False where it failed and was dealt with. */
bool relay_send_request(struct exchange *exchange);

/* The client has body bytes to read. The exchange may be over on return. */
void relay_client_readable(struct exchange *exchange);

/* The server has bytes to read. The exchange may be over on return. */
void relay_upstream_readable(struct exchange *exchange);

/* Room appeared in a socket. The exchange may be over on return. */
void relay_client_writable(struct exchange *exchange);
void relay_upstream_writable(struct exchange *exchange);

#endif
