/* After 101 (Switching Protocols): bytes both ways, uninterpreted, with back-pressure, half close and an
 * idle limit. The exchange's phases end with the first byte of the 101; the tunnel is told apart. */
#ifndef TAILRACE_PROXY_TUNNEL_H
#define TAILRACE_PROXY_TUNNEL_H

#include <stdbool.h>
#include <stdint.h>
#include "model/close_reason.h"

struct block;
struct config;
struct exchange;

enum tunnel_id { TUNNEL_CLIENT, TUNNEL_SERVER, TUNNEL_SIDES };

struct tunnel_side {
	uint64_t bytes; /* read from it */
	bool done;      /* sent its FIN */
	bool shut;      /* was told of the other's */
	bool gone;      /* takes nothing any more: what the other still says is dropped */
};

struct tunnel {
	uint64_t begin_ns;  /* the 101 is on its way; 0 = there is no tunnel */
	uint64_t active_ns; /* last byte either way */
	struct tunnel_side sides[TUNNEL_SIDES];
	bool held;               /* counts against limits.tunnels */
	enum close_reason cause; /* why it ended before both were done */
};

/* Before an upgrade is asked for: a place among limits.tunnels, which exchange_end() gives back. False where there
 * is none. */
bool tunnel_reserve(struct exchange *exchange);
void tunnel_unreserve(struct exchange *exchange);

/* The server's 101 is parsed and accepted; `block`, handed over, begins with it. The exchange may be over on
 * return. */
void tunnel_begin(struct exchange *exchange, struct block *block);

/* Events of the two sockets. The exchange may be over on return. */
void tunnel_client_readable(struct exchange *exchange);
void tunnel_client_writable(struct exchange *exchange);
void tunnel_upstream_readable(struct exchange *exchange);
void tunnel_upstream_writable(struct exchange *exchange);

/* When it has been idle for too long. */
uint64_t tunnel_due_ns(const struct exchange *exchange);

/* Ends it and the exchange. CLOSE_NONE: both sides are done. */
void tunnel_end(struct exchange *exchange, enum close_reason cause);

#endif
