/* One connection to a server: connect, write, idle watch, deadlines. Bytes it reads while an exchange is on
 * are relay's. */
#ifndef TAILRACE_PROXY_UPSTREAM_H
#define TAILRACE_PROXY_UPSTREAM_H

#include <stdbool.h>
#include <stdint.h>
#include "proxy/block.h"
#include "proxy/loop.h"
#include "proxy/stream.h"
#include "proxy/timer.h"

struct pool;
struct server;

enum upstream_state {
	UPSTREAM_CONNECTING,
	UPSTREAM_HANDSHAKE, /* connected; TLS is under way */
	UPSTREAM_ACTIVE,
	UPSTREAM_RESTING,
	UPSTREAM_GONE
};

struct upstream {
	struct reapable reapable; /* first */
	struct loop *loop;
	struct server *server;
	enum upstream_state state;
	bool reused;
	bool tunnel;         /* until its end: it holds no slot */
	uint32_t epoch;      /* of the server's address that it was made to */
	uint32_t idle_index; /* in server->idle while resting */
	struct stream stream;
	struct timer timer;
	struct block *in; /* unfinished response head */
	struct queue out;
	struct exchange *exchange;
	uint64_t connect_ns; /* connecting began; then TLS did */
	uint64_t active_ns;  /* last byte either way */
	uint64_t paused_ns;  /* since when reading is paused; 0 = it is not */
};

/* Starts to connect for `exchange`, which waits unless it is UPSTREAM_ACTIVE on return. Returns null with *ret_reason where that failed at once. */
struct upstream *upstream_connect(struct loop *loop, struct server *server,
                                  struct exchange *exchange, enum close_reason *ret_reason);

/* As client_flush(). On -1 errno tells; the connection stays for its answer to be read. */
int upstream_flush(struct upstream *upstream, size_t *ret_written);

void upstream_pause(struct upstream *upstream, uint64_t now_ns);
void upstream_resume(struct upstream *upstream, uint64_t now_ns);

/* Deadline for the next byte of a response. */
void upstream_watch(struct upstream *upstream, uint64_t now_ns);

/* It is a tunnel from now on; the slot is given back by the caller. */
void upstream_tunnel(struct upstream *upstream);

/* The exchange is done with it: back to the server's idle ones, or closed. */
void upstream_rest(struct upstream *upstream, uint64_t now_ns);
void upstream_close(struct upstream *upstream);

#endif
