/* The exchange record: what a worker tells the collector of one exchange, through a ring. One struct for
 * both sides of one build (the board's version is checked at attach); never stored or sent elsewhere.
 * Pure. */
#ifndef TAILRACE_MODEL_RECORD_H
#define TAILRACE_MODEL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/phase.h"

#define TRACE_ID_SIZE 16
#define SPAN_ID_SIZE 8
#define RECORD_EARLIER_MAX 3 /* spans of earlier attempts kept; config: retries <= 3 */
#define RECORD_PATH_MAX 1024 /* cut beyond, RECORD_PATH_CUT */
#define RECORD_METHOD_MAX 32
#define RECORD_USER_AGENT_MAX 512 /* only where an access log wants it; cut beyond, with a flag */
#define RECORD_REFERER_MAX 1024   /* likewise */
#define RECORD_NO_INDEX UINT16_MAX

enum record_flag {
	RECORD_CLIENT_REUSED = 1u << 0, /* not the first request of its client connection */
	RECORD_SERVER_REUSED = 1u << 1, /* last attempt went over a kept-alive connection */
	RECORD_PIPELINED = 1u << 2,     /* t0 = end of the previous exchange */
	RECORD_PROVISIONAL =
	    1u << 3, /* still open 10 s after its response began; t11 is not final */
	RECORD_LOCAL_REPLY = 1u << 4, /* answered by the gateway, not the app */
	RECORD_PATH_CUT = 1u << 5,
	RECORD_TRUSTED_TRACE = 1u << 6, /* trace ID came from the client */
	RECORD_HAS_FOREIGN = 1u << 7,   /* foreign_trace_id holds an untrusted inbound trace */
	RECORD_CLIENT_TLS = 1u << 8,    /* the client came by TLS */
	RECORD_HTTP_1_0 = 1u << 9,      /* the request's version; else 1.1 */
	RECORD_USER_AGENT_CUT = 1u << 10,
	RECORD_REFERER_CUT = 1u << 11,
	RECORD_HAS_KERNEL_IN = 1u << 12, /* what these four say is there was measured */
	RECORD_HAS_CLIENT_ACK = 1u << 13,
	RECORD_HAS_UPSTREAM_LB = 1u << 14,
	RECORD_DEEP = 1u << 16,    /* the hook was asked for a deep profile */
	RECORD_HAS_TCP = 1u << 15, /* a struct record_tcp ends the record */
	RECORD_EVENT_STREAM =
	    1u << 16,             /* the answer is text/event-stream: as long as its client stays */
	RECORD_TUNNEL = 1u << 17, /* the 101 was passed on; tunnel_* are set */
};

/* TCP_INFO of the client's connection at the end of a slow exchange; counted since it was made. */
struct record_tcp {
	uint64_t busy_us; /* with bytes on the way to the client */
	uint64_t receiver_limited_us,
	    buffer_limited_us; /* of that: held up by its window, our buffer */
	uint32_t rtt_us, min_rtt_us, retransmits, unused;
};

struct exchange_record {
	uint8_t trace_id[TRACE_ID_SIZE];
	uint8_t span_id[SPAN_ID_SIZE]; /* last attempt; zero where none was made */
	uint8_t earlier_spans[RECORD_EARLIER_MAX][SPAN_ID_SIZE];
	uint8_t foreign_trace_id[TRACE_ID_SIZE];
	uint64_t marks_ns[MARK_COUNT]; /* closed, monotone, CLOCK_MONOTONIC */
	uint64_t start_wall_ns;        /* CLOCK_REALTIME at t0 */
	uint64_t request_body_bytes;   /* as read from the client, without framing */
	uint64_t response_body_bytes;  /* as read from the app, without framing */
	uint64_t idle_before_ns;       /* overlay: keep-alive pause before t0; 0 on the first */
	uint64_t backpressure_ns; /* overlay: reading the app paused because the client was slow */
	uint64_t
	    tls_handshake_ns; /* overlay: the client's handshake; first exchange of a connection */
	uint64_t connect_tcp_ns, connect_tls_ns; /* overlay: parts of `connect`; 0 when reused */
	uint64_t client_body_ns;   /* overlay, inside `send`: waiting for the client's body bytes */
	uint64_t continue_wait_ns; /* overlay: the client waited for 100 (Continue) */
	uint64_t tunnel_ns;        /* RECORD_TUNNEL: from t9 on */
	uint64_t tunnel_client_bytes, tunnel_server_bytes; /* read from each */
	uint64_t kernel_in_ns;  /* overlay: first bytes known to the kernel, to t0 */
	uint64_t client_ack_ns; /* overlay: t11 to the client's acknowledgement of the last byte */
	uint64_t loop_lag_ns;   /* overlay: what t0 and t7 waited for others of their loop turns */
	int64_t upstream_lb_ns; /* overlay: a trusted proxy's X-Request-Start to t0; may be < 0 */
	uint32_t flags;         /* enum record_flag */
	uint32_t config;        /* serial of the configuration that the indices below belong to */
	uint16_t status;        /* 0 = nothing was sent */
	uint16_t route;         /* index into config->routes, RECORD_NO_INDEX = none */
	uint16_t upstream, server; /* indices, RECORD_NO_INDEX = none */
	uint16_t attempts;
	uint8_t died_in;        /* enum phase, PHASE_COUNT = it did not */
	uint8_t cause;          /* enum close_reason */
	uint8_t tunnel_cause;   /* enum close_reason: why it ended before both sides were done */
	uint16_t client_family; /* AF_INET, AF_INET6, AF_UNIX */
	uint16_t client_port;
	uint8_t client_ip[16];
	/* Text follows the struct: method, path (with query), user agent, referer; then, unaligned, a
	 * struct record_tcp where the flag says so. */
	uint16_t method_length, path_length, user_agent_length, referer_length;
};

#define RECORD_SIZE_MAX                                                         \
	(sizeof(struct exchange_record) + RECORD_METHOD_MAX + RECORD_PATH_MAX + \
	 RECORD_USER_AGENT_MAX + RECORD_REFERER_MAX + sizeof(struct record_tcp))

/* The text behind a record of `size` bytes. Returns 0, or -1 where the lengths do not fit `size` (a
 * record from a broken producer: counted, skipped). Pointers are borrowed from the record. */
int record_text(const struct exchange_record *record, size_t size, const char **ret_method,
                const char **ret_path);

/* Fields of the request's head that only an access log wants, behind the path; borrowed. Returns as
 * record_text() does. */
struct record_head {
	const char *user_agent, *referer;
};
int record_head(const struct exchange_record *record, size_t size, struct record_head *ret);

/* The end of a record with RECORD_HAS_TCP. Returns 0, or -1 where there is none. */
int record_tcp(const struct exchange_record *record, size_t size, struct record_tcp *ret);

#endif
