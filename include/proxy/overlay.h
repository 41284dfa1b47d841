/* Overlays that cost system calls, each off or sampled by configuration: the kernel's receipt of a
 * request's first bytes, the client's acknowledgement of a response's last one, TCP_INFO of slow
 * exchanges. Connections without TLS and TCP only; TCP_INFO with TLS too. One loop's thread. */
#ifndef TAILRACE_PROXY_OVERLAY_H
#define TAILRACE_PROXY_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/clock.h"
#include "base/config.h"
#include "model/record.h"

#define OVERLAY_ACKS_MAX 64                   /* of one loop at one time; more are not sampled */
#define OVERLAY_ACK_NS (5 * NS_PER_S)         /* a client that has not acknowledged by then */
#define OVERLAY_KERNEL_MAX_NS (60 * NS_PER_S) /* beyond: a clock was set meanwhile */

struct client;
struct exchange;
struct ack_wait;

/* A client was accepted: decides what is measured on it. */
void overlay_accepted(struct client *client);

/* stream_read() of the first bytes of a request, stamped. Only where client->stamped. */
ssize_t overlay_read(struct client *client, void *to, size_t room);

/* A request has begun with what overlay_read() gave; samples acknowledgements. */
void overlay_begin(struct client *client, struct exchange *exchange);

/* First in every callback of a client with client->ack: empties the socket's error queue, which would
 * wake the loop again and again. */
void overlay_event(struct client *client);

/* Room for the final record of `exchange` where it waits for its acknowledgement, else null: it
 * leaves when that comes, or cannot come any more. `size` <= RECORD_SIZE_MAX. */
void *overlay_hold(struct exchange *exchange, size_t size, uint64_t end_ns);

/* The client is about to be closed, or asks again: a held record leaves as it is. Null-safe in
 * client->ack. */
void overlay_release(struct client *client);

/* Whether an exchange took so long that TCP_INFO is wanted. */
static inline bool
overlay_is_slow(const struct config *config, uint64_t total_ns)
{
	uint64_t over_ns = config->overlays.tcp_info_over_ms * NS_PER_MS;

	return total_ns >= over_ns && over_ns > 0;
}

/* TCP_INFO of the client's connection. Returns whether there is some. */
bool overlay_tcp(const struct client *client, struct record_tcp *ret);

#endif
