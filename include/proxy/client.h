/* One downstream connection: reads, writes, keep-alive, lingering close. It knows bytes and deadlines;
 * what they mean is proxy's and relay's. */
#ifndef TAILRACE_PROXY_CLIENT_H
#define TAILRACE_PROXY_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/net.h"
#include "proxy/block.h"
#include "proxy/client_watch.h"
#include "proxy/loop.h"
#include "proxy/opening.h"
#include "proxy/stream.h"
#include "proxy/timer.h"

#define LINGER_NS (2 * NS_PER_S)
#define LINGER_BYTES_MAX (1u << 20)
#define PAUSED_CHECK_NS (250 * NS_PER_MS) /* how soon an abort of a paused client is seen */
#define CLIENT_IP_SIZE 46

struct ack_wait;

enum client_state {
	CLIENT_OPENING, /* before the first request: PROXY header, TLS handshake */
	CLIENT_IDLE,    /* between requests */
	CLIENT_BUSY,    /* an exchange is on */
	CLIENT_LINGER,  /* answered and shut down for writing: discarding */
	CLIENT_CLOSED,  /* gone, waits for the reaper */
};

struct client {
	struct reapable reapable; /* first */
	struct loop *loop;
	struct client *next, **link; /* loop->clients */
	struct client *ready_next;
	const struct config_listener *listener;
	enum client_state state;
	bool is_ready; /* on loop->ready */
	bool saw_fin;
	bool counted;                                   /* in the table of addresses */
	bool trusted_proxy, trusted_trace, gets_timing; /* by peer address, decided once */
	struct stream stream;
	struct timer timer;
	struct block *in;    /* head of the request, then body bytes that came with it, then more */
	uint32_t rest;       /* in->data offset of the first byte not of this request */
	struct block *ahead; /* bytes behind `in` where those did not fit there */
	struct queue out;
	struct exchange *exchange;
	enum opening opening;
	struct client *handshake_before, *handshake_next; /* loop->handshakes */
	uint64_t handshake_ns; /* how long it took; while under way, when its first bytes came */
	uint64_t requests;
	uint64_t ended_ns;      /* end of the last exchange, or the accept */
	uint64_t read_ns;       /* last body bytes read, or reading resumed */
	uint64_t write_ns;      /* last byte taken, or since when the queue waits */
	uint64_t write_from_ns; /* since when the queue waits */
	uint64_t write_taken;   /* bytes the kernel took since then */
	uint32_t kernel_from,
	    kernel_now;     /* bytes it held unsent or unacknowledged: then, and when last asked */
	uint64_t discarded; /* while lingering */
	bool overlays;      /* any of the two below is wanted */
	bool stamped;       /* first bytes of requests are read with the kernel's stamp */
	uint64_t kernel_in_ns; /* of the last such read; UINT64_MAX = not told */
	struct ack_wait *ack;  /* owned; an exchange whose acknowledgement is waited for */
	char ip[CLIENT_IP_SIZE];
	struct net_address peer;
};

/* Takes over an accepted descriptor; closes it where memory is short. `counted`: address_enter() was called. */
void client_accept(struct loop *loop, const struct config_listener *listener, int fd,
                   const struct net_address *peer, bool counted);

/* Who the client is: the connection's peer, or what a trusted load balancer says. Trust goes by it. */
void client_set_peer(struct client *client, const struct net_address *peer);

/* Counts this connection of its peer's, where that is limited. False when the peer has its share. */
bool client_count_address(struct client *client);

/* The opening is done: requests may come, and `in` may hold the beginning of one. */
void client_opened(struct client *client, uint64_t now_ns);

/* Writes what is queued. 1: all taken, 0: the rest waits for EV_WRITE, -1: the client is gone. */
int client_flush(struct client *client, size_t *ret_written);

void client_pause(struct client *client);  /* stop reading; aborts are still looked for */
void client_resume(struct client *client); /* go on reading */

/* The exchange has ended and is detached: next request, or close after an answer. */
void client_next(struct client *client, bool keep, uint64_t now_ns);

/* Ends the connection: by FIN after lingering, at once, or by RST. `reason` is counted. */
void client_linger(struct client *client, enum close_reason reason, uint64_t now_ns);
void client_close(struct client *client, enum close_reason reason);
void client_reset(struct client *client, enum close_reason reason);

/* A read said that the client closed (or reset). The exchange may be over on return. */
void client_hung(struct client *client, bool reset);

/* Keeps bytes that came behind the request for the next one. -1 when memory is short. */
int client_keep_ahead(struct client *client, const char *bytes, size_t length);

/* Gives an unfinished head more room. -1 when memory is short. */
int client_grow_head(struct client *client);

/* Looks again at buffered bytes after this turn. */
void client_ready(struct client *client);
void client_run_ready(struct client *client);

/* Drain: shuts down if idle. */
void client_drain(struct client *client, uint64_t now_ns);

#endif
