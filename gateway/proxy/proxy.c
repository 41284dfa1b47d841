/* The life of an exchange: one function per step, each says which comes next. */
#include "proxy/proxy.h"

#include "base/log.h"
#include "proxy/client.h"
#include "proxy/pool.h"
#include "proxy/relay.h"
#include "proxy/reply.h"
#include "proxy/upstream.h"

/* --- how an exchange goes wrong ------------------------------------------ */

static struct pool *
pool_of(const struct exchange *exchange)
{
	return &exchange->loop->pools[exchange->group];
}

static void
return_slot(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;

	if (exchange->server)
		pool_return_slot(exchange->server, loop->now_ns);
	exchange->server = NULL;
	if (!exchange->queued)
		return;
	pool_leave(pool_of(exchange), &exchange->waiter, loop->now_ns);
	exchange->queued = false;
	timer_off(&exchange->timer);
}

static void
drop_upstream(struct exchange *exchange)
{
	if (exchange->upstream)
		upstream_close(exchange->upstream);
	exchange->upstream = NULL;
	return_slot(exchange);
}

void
proxy_release(struct exchange *exchange)
{
	struct upstream *upstream = exchange->upstream;
	const struct http1 *response = &exchange->response;

	if (!upstream)
		return;
	if (exchange->response_state == DIRECTION_DONE &&
	    exchange->request_state == DIRECTION_DONE && upstream->out.bytes == 0 &&
	    !exchange->send_failed && !exchange->surplus && response->head.keep_alive &&
	    response->head.framing != BODY_UNTIL_EOF)
		upstream_rest(upstream, exchange->loop->now_ns);
	else
		upstream_close(upstream);
	exchange->upstream = NULL;
	return_slot(exchange);
}

/* An answer of which no byte has left, with nothing before it, can still be taken back. */
static void
take_back_reply(struct exchange *exchange)
{
	if (!exchange->reply_begun || !exchange->reply_alone ||
	    exchange->marks.at_ns[MARK_REPLIED] != 0)
		return;
	queue_clear(&exchange->client->out, &exchange->loop->blocks);
	exchange->reply_begun = false;
}

/* What a client or the app did wrong, in the log too: a few lines of each. */
static void
log_failure(struct exchange *exchange, enum close_reason reason)
{
	struct loop *loop = exchange->loop;
	const char *server = exchange->server ? exchange->server->config->text : "the app";
	const char *client = exchange->client->ip[0] ? exchange->client->ip : "a local client";
	const char *name = close_reason_name(reason), *text = close_reason_text(reason);
	char more[LOG_LEFT_OUT_SIZE];
	uint64_t left_out;

	if (close_reason_is_refusal(reason)) {
		if (log_limit_allows(&loop->refusals, loop->now_ns, &left_out))
			log_info("request of %s refused: %s (%s)%s", client, name, text,
			         log_left_out(left_out, more));
		return;
	}
	if ((!close_reason_is_bad_answer(reason) && !close_reason_is_no_answer(reason)) ||
	    !log_limit_allows(&loop->failures, loop->now_ns, &left_out))
		return;
	if (close_reason_is_bad_answer(reason))
		log_warn("answer of %s refused: %s (%s)%s", server, name, text,
		         log_left_out(left_out, more));
	else
		log_warn("no answer of %s: %s (%s)%s", server, name, text,
		         log_left_out(left_out, more));
}

static enum step
fail_step(struct exchange *exchange, enum close_reason reason)
{
	if (exchange->cause == CLOSE_NONE) {
		exchange->cause = reason;
		exchange->died_in = marks_running(&exchange->marks);
		exchange->decision_ns = loop_now(exchange->loop);
		log_failure(exchange, reason);
	}
	drop_upstream(exchange);
	if (close_reason_status(exchange->cause) != 0)
		take_back_reply(exchange);
	if (exchange->reply_begun || close_reason_status(exchange->cause) == 0)
		return STEP_ABORT;
	return STEP_REPLY_LOCAL;
}

/* Only where the app cannot have seen the request twice, and what would be sent is still here. */
static bool
may_retry(const struct exchange *exchange, enum close_reason reason)
{
	const struct marks *marks = &exchange->marks;
	bool connecting = marks->at_ns[MARK_CONNECTED] == 0;

	if (exchange->attempts > exchange_retries(exchange) || exchange->heard ||
	    exchange->reply_begun || !exchange->replayable)
		return false;
	if (connecting) /* a wrong certificate does not become right by asking again */
		return reason != CLOSE_UPSTREAM_CERTIFICATE;
	if (reason != CLOSE_UPSTREAM_CLOSED_IDLE)
		return false;
	return marks->at_ns[MARK_SENT_FIRST] == 0 ||
	       http_rules_idempotent(exchange->request.head.method);
}

static enum step
slot_granted(struct exchange *exchange, struct server *server)
{
	uint64_t now_ns = exchange->loop->now_ns;

	exchange->server = server;
	exchange->server_index = server->number;
	mark_once(&exchange->marks, MARK_SLOT_FIRST, now_ns);
	mark_once(&exchange->marks, MARK_SLOT_LAST, now_ns);
	exchange_new_span(exchange);
	return STEP_CONNECT;
}

static enum step
attempt_failed_step(struct exchange *exchange, enum close_reason reason)
{
	if (!may_retry(exchange, reason))
		return fail_step(exchange, reason);
	if (exchange->upstream)
		upstream_close(exchange->upstream);
	exchange->upstream = NULL;
	board_share(&pool_of(exchange)->group->board->retries, 1);
	marks_retry(&exchange->marks);
	loop_reason(exchange->loop, reason);
	exchange->fresh_connection = true;
	exchange->send_failed = false;
	return slot_granted(exchange, pool_next_slot(exchange->server, loop_now(exchange->loop)));
}

void
proxy_attempt_failed(struct exchange *exchange, enum close_reason reason)
{
	proxy_go(exchange, attempt_failed_step(exchange, reason));
}

void
proxy_return_slot(struct exchange *exchange)
{
	return_slot(exchange);
}

void
proxy_fail(struct exchange *exchange, enum close_reason reason)
{
	if (exchange->step == STEP_TUNNEL) {
		tunnel_end(exchange, reason);
		return;
	}
	proxy_go(exchange, fail_step(exchange, reason));
}

void
proxy_client_gone(struct exchange *exchange)
{
	if (exchange->cause == CLOSE_NONE) {
		exchange->cause = CLOSE_CLIENT_ABORT;
		exchange->died_in = marks_running(&exchange->marks);
	}
	if (exchange->queued)
		board_share(&pool_of(exchange)->group->board->left, 1);
	proxy_go(exchange, STEP_ABORT);
}

void
proxy_queued_too_long(struct exchange *exchange)
{
	board_share(&pool_of(exchange)->group->board->refused_late, 1);
	proxy_fail(exchange, CLOSE_QUEUE_TIMEOUT);
}

void
proxy_connected(struct exchange *exchange, uint64_t now_ns)
{
	mark_once(&exchange->marks, MARK_CONNECTED, now_ns);
	proxy_go(exchange, STEP_SEND);
}

/* --- the steps ----------------------------------------------------------- */

static enum step
step_wait(struct exchange *exchange)
{
	(void)exchange;
	return STEP_WAIT;
}

/* RFC 9110 7.4: a target of another scheme than the connection's; a proxy in front may have had
 * the other one. */
static bool
is_misdirected(const struct exchange *exchange)
{
	const struct client *client = exchange->client;

	return exchange->facts.scheme != TARGET_NO_SCHEME && !client->trusted_proxy &&
	       (exchange->facts.scheme == TARGET_HTTPS) != (client->stream.tls != NULL);
}

static enum step
step_read_head(struct exchange *exchange)
{
	struct client *client = exchange->client;
	struct http1 *request = &exchange->request;
	struct block *in = client->in;
	enum close_reason why;

	switch (http1_head(request, in->data + in->start, block_length(in))) {
	case HTTP1_MORE:
		if (client->saw_fin) /* it closed behind an earlier request: no more will come */
			return fail_step(exchange, CLOSE_CLIENT_ABORT);
		if (block_room(in) == 0 && client_grow_head(client) < 0)
			return fail_step(exchange, CLOSE_OUT_OF_MEMORY);
		client_watch(client, exchange->loop->now_ns);
		return STEP_WAIT;
	case HTTP1_HEAD:
		break;
	default:
		return fail_step(exchange, request->error);
	}
	client->rest = in->start + request->head.length;
	why = http_rules_request(&request->head, &exchange->facts);
	if (why == CLOSE_NONE && is_misdirected(exchange))
		why = CLOSE_MISDIRECTED;
	if (why != CLOSE_NONE)
		return fail_step(exchange, why);
	mark_once(&exchange->marks, MARK_HEAD, loop_now(exchange->loop));
	return STEP_ADMIT;
}

/* Body bytes that came with the head stay where they are, unframed, so that a retry can send
 * them again. */
static enum close_reason
take_body_at_hand(struct exchange *exchange)
{
	struct client *client = exchange->client;
	struct http1 *request = &exchange->request;
	struct block *in = client->in;
	uint64_t limit = exchange->bounds->body_bytes;
	size_t payload, used;
	enum http1_result result;

	exchange->body_start = exchange->body_end = client->rest;
	if (limit > 0 && request->head.framing == BODY_LENGTH &&
	    request->head.content_length > limit)
		return CLOSE_BODY_TOO_LARGE;
	if (!exchange_keep_trailers(exchange, request))
		return CLOSE_OUT_OF_MEMORY;
	result =
	    http1_body(request, in->data + client->rest, in->end - client->rest, &payload, &used);
	if (result == HTTP1_ERROR)
		return request->error;
	exchange->body_end += (uint32_t)payload;
	client->rest += (uint32_t)used;
	exchange->request_state = result == HTTP1_DONE ? DIRECTION_DONE : DIRECTION_BODY;
	if (limit > 0 && request->body_bytes > limit)
		return CLOSE_BODY_TOO_LARGE;
	return CLOSE_NONE;
}

static enum step
step_admit(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	uint32_t requests_max = loop->config->limits.requests_per_connection;
	enum close_reason why;
	bool routed;

	exchange_trace(exchange, true);
	exchange->close_client =
	    !exchange->request.head.keep_alive || loop->draining ||
	    (requests_max > 0 && exchange->client->requests + 1 >= requests_max);
	routed = exchange_route(exchange) == 0;
	why = take_body_at_hand(exchange);
	if (why == CLOSE_NONE && exchange->request_state == DIRECTION_BODY &&
	    exchange->client->saw_fin)
		why = CLOSE_CLIENT_ABORT;
	if (why == CLOSE_NONE && !routed)
		why = CLOSE_NO_ROUTE;
	if (why == CLOSE_NONE && exchange->facts.websocket && !tunnel_reserve(exchange))
		why = CLOSE_TUNNEL_LIMIT;
	if (why != CLOSE_NONE)
		return fail_step(exchange, why);
	mark_once(&exchange->marks, MARK_ADMIT, loop_now(loop));
	return STEP_QUEUE;
}

/* What the client may do meanwhile: send no body that has no place to go, and leave. */
static void
hold_client(struct exchange *exchange)
{
	if (exchange->request_state == DIRECTION_BODY)
		client_pause(exchange->client);
	else
		client_watch(exchange->client, exchange->loop->now_ns);
}

static enum step
step_queue(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct server *server;

	switch (pool_take_slot(pool_of(exchange), &exchange->waiter, loop->now_ns, &server)) {
	case POOL_GRANTED:
		return slot_granted(exchange, server);
	case POOL_FULL:
		return fail_step(exchange, CLOSE_UPSTREAM_FULL);
	case POOL_DOWN:
		return fail_step(exchange, CLOSE_UPSTREAM_DOWN);
	case POOL_QUEUED:
		break;
	}
	exchange->queued = true;
	exchange->step = STEP_QUEUED;
	timer_set(&loop->wheel, &exchange->timer,
	          loop->now_ns + exchange_queue_timeout_ms(exchange) * NS_PER_MS, loop->now_ns);
	hold_client(exchange);
	return STEP_WAIT;
}

void
proxy_granted(struct waiter *waiter, struct server *server)
{
	struct exchange *exchange =
	    (struct exchange *)(void *)((char *)waiter - offsetof(struct exchange, waiter));

	exchange->queued = false;
	timer_off(&exchange->timer);
	proxy_go(exchange, slot_granted(exchange, server));
}

static bool
reuse_connection(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct upstream *upstream;

	exchange->flags &= ~(uint32_t)RECORD_SERVER_REUSED;
	if (exchange->fresh_connection)
		return false;
	upstream = pool_take_idle(exchange->server, loop->now_ns);
	if (!upstream)
		return false;
	upstream->state = UPSTREAM_ACTIVE;
	upstream->reused = true;
	upstream->exchange = exchange;
	exchange->upstream = upstream;
	exchange->flags |= RECORD_SERVER_REUSED;
	loop_count(loop, COUNTER_UPSTREAM_REUSES, 1);
	return true;
}

static enum step
step_connect(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	enum close_reason why = CLOSE_NONE;

	exchange->connect_tcp_ns = exchange->connect_tls_ns = 0;
	if (!reuse_connection(exchange)) {
		exchange->upstream = upstream_connect(loop, exchange->server, exchange, &why);
		if (!exchange->upstream)
			return attempt_failed_step(exchange, why);
		if (exchange->upstream->state != UPSTREAM_ACTIVE) {
			hold_client(exchange);
			return STEP_WAIT;
		}
		loop_now(loop);
	}
	mark_once(&exchange->marks, MARK_CONNECTED, loop->now_ns);
	return STEP_SEND;
}

static enum step
step_send(struct exchange *exchange)
{
	exchange->step = STEP_RELAY; /* what reads and writes from here on is relay's */
	if (!relay_send_request(exchange))
		return fail_step(exchange, CLOSE_OUT_OF_MEMORY);
	return STEP_WAIT;
}

static enum step
step_reply_local(struct exchange *exchange)
{
	struct client *client = exchange->client;
	struct block *block;

	exchange->flags |= RECORD_LOCAL_REPLY;
	if (exchange->request_state != DIRECTION_DONE || exchange->loop->draining)
		exchange->close_client = true;
	block = reply_write(exchange);
	if (!block)
		return STEP_ABORT;
	exchange->reply_begun = true;
	queue_push(&client->out, &exchange->loop->blocks, block);
	if (exchange->request_state != DIRECTION_DONE)
		client_pause(client);
	return STEP_REPLYING;
}

static enum step
step_replying(struct exchange *exchange)
{
	size_t written;
	int done;

	exchange->client->stream.ends = !exchange_keeps_client(exchange);
	done = client_flush(exchange->client, &written);
	if (written > 0)
		mark_once(&exchange->marks, MARK_REPLIED, loop_now(exchange->loop));
	if (done < 0)
		return STEP_ABORT;
	if (done == 0)
		return STEP_WAIT;
	mark_once(&exchange->marks, MARK_END, exchange->loop->now_ns);
	return STEP_FINISH;
}

static enum step
step_abort(struct exchange *exchange)
{
	struct client *client = exchange->client;
	bool by_client = exchange->cause == CLOSE_CLIENT_ABORT;

	drop_upstream(exchange);
	if (!exchange->has_trace)
		exchange_trace(exchange, false);
	if (exchange->marks.at_ns[MARK_REPLIED] == 0)
		exchange->status = 0; /* a head was made, and none of it left */
	marks_close(&exchange->marks, PHASE_END_ABORT, 0, loop_now(exchange->loop));
	exchange_end(exchange);
	if (by_client)
		client_close(client, CLOSE_NONE);
	else
		client_reset(client, CLOSE_NONE);
	return STEP_WAIT;
}

static enum step
step_finish(struct exchange *exchange)
{
	struct client *client = exchange->client;
	bool local = exchange->flags & RECORD_LOCAL_REPLY;
	bool keep = exchange_keeps_client(exchange);
	uint64_t end_ns = exchange->marks.at_ns[MARK_END];

	proxy_release(exchange);
	marks_close(&exchange->marks, local ? PHASE_END_LOCAL : PHASE_END_DONE,
	            exchange->decision_ns, end_ns);
	exchange_end(exchange);
	client_next(client, keep, end_ns);
	return STEP_WAIT;
}

static enum step (*const steps[STEP_COUNT])(struct exchange *exchange) = {
    [STEP_WAIT] = step_wait,         [STEP_READ_HEAD] = step_read_head,
    [STEP_ADMIT] = step_admit,       [STEP_QUEUE] = step_queue,
    [STEP_QUEUED] = step_wait,       [STEP_CONNECT] = step_connect,
    [STEP_SEND] = step_send,         [STEP_RELAY] = step_wait,
    [STEP_TUNNEL] = step_wait,       [STEP_REPLY_LOCAL] = step_reply_local,
    [STEP_REPLYING] = step_replying, [STEP_ABORT] = step_abort,
    [STEP_FINISH] = step_finish,
};

void
proxy_run(struct exchange *exchange)
{
	enum step next;

	/* A step that ends the exchange returns STEP_WAIT: nothing is touched after it. */
	while ((next = steps[exchange->step](exchange)) != STEP_WAIT)
		exchange->step = next;
}

void
proxy_go(struct exchange *exchange, enum step step)
{
	exchange->step = step;
	proxy_run(exchange);
}
