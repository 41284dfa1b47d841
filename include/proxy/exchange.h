/* One request and its response through the gateway: what is known of it, and its record. Pooled per loop. */
#ifndef TAILRACE_PROXY_EXCHANGE_H
#define TAILRACE_PROXY_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>
#include "model/http_rules.h"
#include "model/phase.h"
#include "model/record.h"
#include "proxy/group.h"
#include "proxy/http1.h"
#include "proxy/loop.h"
#include "proxy/tunnel.h"

#define EXCHANGE_POOL_MAX 256u
#define PROVISIONAL_NS (10 * NS_PER_S) /* after the response began */
#define RATE_GRACE_NS (10 * NS_PER_S)  /* before a rate below the limit counts */

struct client;
struct server;
struct upstream;

enum step {
	STEP_WAIT, /* nothing to do before the next event */
	STEP_READ_HEAD,
	STEP_ADMIT,
	STEP_QUEUE,
	STEP_QUEUED, /* every server is full */
	STEP_CONNECT,
	STEP_SEND,
	STEP_RELAY,  /* both directions at once; events drive it */
	STEP_TUNNEL, /* HTTP was left; events drive it */
	STEP_REPLY_LOCAL,
	STEP_REPLYING, /* a local reply is on its way out */
	STEP_ABORT,
	STEP_FINISH,
	STEP_COUNT
};

/* Each direction of an exchange, for itself. */
enum direction { DIRECTION_HEAD, DIRECTION_BODY, DIRECTION_DONE, DIRECTION_FAILED };

struct exchange {
	struct exchange *free_next;
	struct loop *loop;
	struct client *client;
	struct upstream *upstream; /* connection of the current attempt */
	struct server *server;     /* whose slot is held */
	struct waiter waiter;      /* while `queued` */
	enum step step;
	enum direction request_state, response_state;
	struct marks marks;
	const struct config_bounds *bounds; /* the route's, else the upstream's */
	uint64_t decision_ns;               /* of a local reply */
	uint64_t idle_before_ns, backpressure_ns;
	uint64_t tls_handshake_ns, connect_tcp_ns, connect_tls_ns;
	uint64_t kernel_in_ns;              /* RECORD_HAS_KERNEL_IN */
	uint64_t lag_start_ns, lag_read_ns; /* what t0 and t7 waited for others of their turns */
	int64_t upstream_lb_ns;             /* RECORD_HAS_UPSTREAM_LB */
	uint64_t continue_from_ns;  /* since when the client waits for 100; 0 = it does not */
	uint64_t continue_wait_ns;  /* overlay */
	uint64_t body_wait_from_ns; /* since when we wait for the client's bytes; 0 = we do not */
	uint64_t body_waited_ns;    /* all such waits that have ended */
	uint64_t client_body_ns;    /* overlay: those of them within `send` */
	uint64_t response_body_bytes;
	enum close_reason cause;
	enum phase died_in;
	uint32_t flags; /* enum record_flag */
	uint16_t status, route, group, server_index;
	uint16_t attempts;
	uint8_t trace_flags;
	bool has_trace, tracestate_ok;
	bool close_client;  /* Connection: close goes, or went, with the answer */
	bool reply_begun;   /* final response bytes are queued or sent */
	bool reply_alone;   /* nothing waited for the client when they were queued */
	bool chunked_reply; /* we frame the body as chunks */
	bool queued;        /* in the queue for a slot, or granted one and not yet told */
	bool replayable;    /* the body, or all of it read so far, still lies in client->in */
	bool heard;         /* a byte of this attempt's answer was read */
	bool send_failed;   /* the server takes no more of the request; its answer may still come */
	bool surplus;       /* bytes behind the response: the connection is spoilt */
	bool provisional_set;             /* the timer for it was started once */
	bool long_request, long_response; /* the last read of that body filled its block */
	uint8_t interims;                 /* 1xx heads so far */
	bool fresh_connection;            /* this attempt takes no idle connection */
	uint32_t body_start, body_end;    /* payload in client->in->data that came with the head */
	uint8_t trace_id[TRACE_ID_SIZE], span_id[SPAN_ID_SIZE];
	uint8_t earlier_spans[RECORD_EARLIER_MAX][SPAN_ID_SIZE];
	uint8_t foreign_trace_id[TRACE_ID_SIZE];
	struct tunnel tunnel;
	struct timer timer; /* limit of waiting in the queue; later, provisional record */
	struct request_facts facts;
	struct http1 request, response;
};

/* Whether the client's connection outlives it. */
static inline bool
exchange_keeps_client(const struct exchange *exchange)
{
	return !exchange->close_client && exchange->request_state == DIRECTION_DONE;
}

/* Begins an exchange at t0. Null when memory is short. */
struct exchange *exchange_begin(struct client *client, uint64_t start_ns);

/* Writes the record, gives counters and memory back. The marks must be closed. */
void exchange_end(struct exchange *exchange);

/* Waiting for the client's body bytes begins (unless it waits for us) and ends. */
void exchange_body_wait(struct exchange *exchange, uint64_t now_ns);
void exchange_body_came(struct exchange *exchange, uint64_t now_ns);

/* The client waits no longer for 100 (Continue). */
void exchange_continued(struct exchange *exchange, uint64_t now_ns);

/* When a body that comes too slowly is given up, by limits.body_min_bytes_per_s; 0 = never. */
uint64_t exchange_body_due_ns(const struct exchange *exchange);

/* Trace of this exchange by the trust policy; needs a parsed head. Makes a new one where there is none. */
void exchange_trace(struct exchange *exchange, bool head_parsed);
void exchange_new_span(struct exchange *exchange);

/* Index of the first matching route, or -1; *ret_group is the upstream. */
int exchange_route(struct exchange *exchange);

/* Limits of the route, else of the upstream. Once routed. */
uint32_t exchange_retries(const struct exchange *exchange);
uint32_t exchange_queue_timeout_ms(const struct exchange *exchange);

/* The answer has begun: a provisional record is due if the exchange lives long. Repeatable. */
void exchange_watch_provisional(struct exchange *exchange);

/* Writes one record: the final one, or a provisional one with what is known by now. */
void exchange_record(struct exchange *exchange, const struct marks *closed, uint32_t more_flags);

/* Before the first byte of a body, its head accepted: room for the trailer fields that go on. False when
 * memory is short. */
bool exchange_keep_trailers(struct exchange *exchange, struct http1 *http1);

/* RATE_GRACE_NS and what `bytes` may take at this rate (1 to 10^9 bytes/s). */
uint64_t rate_allows_ns(uint64_t bytes, uint64_t bytes_per_s);

void exchanges_free(struct loop *loop);

#endif
