/* Two queues, each filled by one side and emptied by the other. */
#include "proxy/tunnel.h"

#include <errno.h>
#include <stdatomic.h>
#include "proxy/client.h"
#include "proxy/exchange.h"
#include "proxy/head_write.h"
#include "proxy/proxy.h"
#include "proxy/relay.h"
#include "proxy/upstream.h"

/* Of all threads of the worker. */
static _Atomic uint32_t places_taken;

bool
tunnel_reserve(struct exchange *exchange)
{
	uint32_t max = exchange->loop->config->limits.tunnels;

	if (atomic_fetch_add(&places_taken, 1) >= max) {
		atomic_fetch_sub(&places_taken, 1);
		return false;
	}
	exchange->tunnel.held = true;
	return true;
}

void
tunnel_unreserve(struct exchange *exchange)
{
	if (exchange->tunnel.held)
		atomic_fetch_sub(&places_taken, 1);
	exchange->tunnel.held = false;
}

uint64_t
tunnel_due_ns(const struct exchange *exchange)
{
	const struct tunnel *tunnel = &exchange->tunnel;
	uint64_t limit_ms = exchange->loop->config->limits.tunnel_idle_timeout_ms;

	/* Whoever was told that the other side is done has no reason to stay. */
	if ((tunnel->client_done || tunnel->server_done) &&
	    limit_ms > exchange->bounds->body_idle_timeout_ms)
		limit_ms = exchange->bounds->body_idle_timeout_ms;
	return tunnel->active_ns + limit_ms * NS_PER_MS;
}

/* --- the end ------------------------------------------------------------- */

static void
close_upstream(struct exchange *exchange, bool abort)
{
	struct upstream *upstream = exchange->upstream;

	exchange->upstream = NULL;
	if (abort)
		stream_reset(&upstream->stream);
	upstream_close(upstream);
}

/* Who broke off is told to the other side as it came; everything else ends by FIN. */
static void
close_client(struct client *client, enum close_reason cause, uint64_t now_ns)
{
	if (cause == CLOSE_UPSTREAM_RESET || cause == CLOSE_OUT_OF_MEMORY)
		client_reset(client, CLOSE_NONE);
	else if (cause == CLOSE_CLIENT_ABORT || cause == CLOSE_SHUTDOWN)
		client_close(client, CLOSE_NONE);
	else
		client_linger(client, CLOSE_NONE, now_ns);
}

void
tunnel_end(struct exchange *exchange, enum close_reason cause)
{
	struct loop *loop = exchange->loop;
	struct client *client = exchange->client;
	uint64_t now_ns = loop_now(loop);
	bool answered = exchange->marks.at_ns[MARK_REPLIED] != 0;

	exchange->tunnel.cause = cause;
	if (!answered) { /* the 101 never left: there was no tunnel */
		exchange->status = 0;
		exchange->cause = cause;
		exchange->died_in = marks_running(&exchange->marks);
	} else if (cause != CLOSE_NONE) {
		loop_reason(loop, cause);
	}
	close_upstream(exchange, cause == CLOSE_CLIENT_ABORT || cause == CLOSE_OUT_OF_MEMORY);
	marks_close(&exchange->marks, answered ? PHASE_END_DONE : PHASE_END_ABORT, 0, now_ns);
	loop_count(loop, COUNTER_TUNNELS_ENDED, 1);
	exchange_end(exchange);
	close_client(client, cause, now_ns);
}

/* Both said all they had to say, and it was passed on. True when that was the end. */
static bool
ended(struct exchange *exchange)
{
	const struct tunnel *tunnel = &exchange->tunnel;

	if (!tunnel->client_shut || !tunnel->server_shut)
		return false;
	tunnel_end(exchange, CLOSE_NONE);
	return true;
}

/* --- writing ------------------------------------------------------------- */

/* The phases end here. */
static void
answered(struct exchange *exchange, uint64_t now_ns)
{
	mark_once(&exchange->marks, MARK_REPLIED, now_ns);
	mark_once(&exchange->marks, MARK_READ_LAST, now_ns);
	mark_once(&exchange->marks, MARK_END, now_ns);
	exchange_watch_provisional(exchange);
}

static bool to_server(struct exchange *exchange);

/* Writes what waits for the client. False when the tunnel is over. */
static bool
to_client(struct exchange *exchange)
{
	struct tunnel *tunnel = &exchange->tunnel;
	struct client *client = exchange->client;
	struct upstream *upstream = exchange->upstream;
	size_t written;
	int done = client_flush(client, &written);

	if (written > 0) {
		tunnel->active_ns = loop_now(exchange->loop);
		answered(exchange, tunnel->active_ns);
	}
	if (done < 0) {
		tunnel_end(exchange, CLOSE_CLIENT_ABORT);
		return false;
	}
	if (done == 1 && tunnel->server_done && !tunnel->client_shut) {
		tunnel->client_shut = true;
		stream_shutdown(&client->stream);
		if (client->stream.tls && !tunnel->client_done) { /* TLS ends both ways at once */
			tunnel->client_done = true;
			stream_set_reading(&client->stream, false);
			return to_server(exchange);
		}
	}
	if (!tunnel->server_done && client->out.bytes <= QUEUE_LOW)
		stream_set_reading(&upstream->stream, true);
	return !ended(exchange);
}

/* A server that closed both ways hears no more; what it said before still goes to the client. */
static bool
server_takes_no_more(struct exchange *exchange)
{
	if (!exchange->tunnel.server_done) {
		tunnel_end(exchange, CLOSE_UPSTREAM_RESET);
		return false;
	}
	queue_clear(&exchange->upstream->out, &exchange->loop->blocks);
	stream_set_writing(&exchange->upstream->stream, false);
	exchange->tunnel.server_gone = true;
	return true;
}

/* Writes what waits for the server. False when the tunnel is over. */
static bool
to_server(struct exchange *exchange)
{
	struct tunnel *tunnel = &exchange->tunnel;
	struct client *client = exchange->client;
	struct upstream *upstream = exchange->upstream;
	size_t written;
	int done = upstream_flush(upstream, &written);

	if (written > 0)
		tunnel->active_ns = loop_now(exchange->loop);
	if (done < 0) {
		if (!server_takes_no_more(exchange))
			return false;
		done = 1;
	}
	if (done == 1 && tunnel->client_done && !tunnel->server_shut) {
		tunnel->server_shut = true;
		stream_shutdown(&upstream->stream);
		if (upstream->stream.tls && !tunnel->server_done) {
			tunnel->server_done = true;
			stream_set_reading(&upstream->stream, false);
			return to_client(exchange);
		}
	}
	if (!tunnel->client_done && upstream->out.bytes <= QUEUE_LOW)
		stream_set_reading(&client->stream, true);
	return !ended(exchange);
}

void
tunnel_client_writable(struct exchange *exchange)
{
	to_client(exchange);
}

void
tunnel_upstream_writable(struct exchange *exchange)
{
	to_server(exchange);
}

/* --- reading ------------------------------------------------------------- */

/* FIN. WebSocket has an end of its own, so TLS need not say it (ENODATA). */
static bool
is_end(int error)
{
	return error == 0 || error == ENODATA;
}

static void
client_finished(struct exchange *exchange)
{
	struct client *client = exchange->client;

	exchange->tunnel.client_done = client->saw_fin = true;
	stream_set_reading(&client->stream, false);
	if (to_server(exchange))
		client_watch(client, exchange->loop->now_ns);
}

static void
server_finished(struct exchange *exchange)
{
	exchange->tunnel.server_done = true;
	stream_set_reading(&exchange->upstream->stream, false);
	if (to_client(exchange))
		client_watch(exchange->client, exchange->loop->now_ns);
}

void
tunnel_client_readable(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct tunnel *tunnel = &exchange->tunnel;
	struct client *client = exchange->client;

	for (int i = 0; i < READS_PER_WAKEUP; i++) {
		struct upstream *upstream = exchange->upstream;
		struct block *block;
		size_t asked;
		ssize_t n;

		if (upstream->out.bytes >= QUEUE_HIGH) {
			stream_set_reading(&client->stream, false);
			return;
		}
		block = block_get(&loop->blocks, 0);
		if (!block) {
			tunnel_end(exchange, CLOSE_OUT_OF_MEMORY);
			return;
		}
		asked = block_room(block);
		n = stream_read(&client->stream, block->data + block->end, asked);
		if (n <= 0) {
			int error = n < 0 ? errno : 0;

			block_put(&loop->blocks, block);
			if (is_end(error))
				client_finished(exchange);
			else if (error != EAGAIN && error != EINTR)
				tunnel_end(exchange, CLOSE_CLIENT_ABORT);
			return;
		}
		tunnel->active_ns = loop_now(loop);
		tunnel->client_bytes += (uint64_t)n;
		loop_count(loop, COUNTER_CLIENT_READ_BYTES, (uint64_t)n);
		loop_count(loop, COUNTER_TUNNEL_CLIENT_BYTES, (uint64_t)n);
		block->end += tunnel->server_gone ? 0 : (uint32_t)n;
		queue_push(&upstream->out, &loop->blocks, block);
		if (!to_server(exchange) || stream_drained(&client->stream, (size_t)n, asked))
			return;
	}
}

void
tunnel_upstream_readable(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct tunnel *tunnel = &exchange->tunnel;
	struct client *client = exchange->client;

	for (int i = 0; i < READS_PER_WAKEUP; i++) {
		struct upstream *upstream = exchange->upstream;
		struct block *block;
		size_t asked;
		ssize_t n;

		if (client->out.bytes >= QUEUE_HIGH) {
			stream_set_reading(&upstream->stream, false);
			return;
		}
		block = block_get(&loop->blocks, 0);
		if (!block) {
			tunnel_end(exchange, CLOSE_OUT_OF_MEMORY);
			return;
		}
		asked = block_room(block);
		n = stream_read(&upstream->stream, block->data + block->end, asked);
		if (n <= 0) {
			int error = n < 0 ? errno : 0;

			block_put(&loop->blocks, block);
			if (is_end(error))
				server_finished(exchange);
			else if (error != EAGAIN && error != EINTR)
				tunnel_end(exchange, CLOSE_UPSTREAM_RESET);
			return;
		}
		tunnel->active_ns = loop_now(loop);
		tunnel->server_bytes += (uint64_t)n;
		loop_count(loop, COUNTER_TUNNEL_SERVER_BYTES, (uint64_t)n);
		block->end += (uint32_t)n;
		queue_push(&client->out, &loop->blocks, block);
		if (!to_client(exchange) || stream_drained(&upstream->stream, (size_t)n, asked))
			return;
	}
}

/* --- the beginning ------------------------------------------------------- */

/* What the client sent behind its request, before it knew. -1 when memory is short. */
static int
take_early_bytes(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct client *client = exchange->client;
	struct queue *out = &exchange->upstream->out;
	size_t early = client->in->end - client->rest;

	if (queue_append(out, &loop->blocks, client->in->data + client->rest, early) < 0)
		return -1;
	client->rest = client->in->end;
	if (client->ahead) {
		early += block_length(client->ahead);
		queue_push(out, &loop->blocks, client->ahead);
		client->ahead = NULL;
	}
	exchange->tunnel.client_bytes = early;
	loop_count(loop, COUNTER_TUNNEL_CLIENT_BYTES, early);
	return 0;
}

void
tunnel_begin(struct exchange *exchange, struct block *block)
{
	struct loop *loop = exchange->loop;
	struct client *client = exchange->client;
	struct tunnel *tunnel = &exchange->tunnel;
	struct block *head;
	size_t more;

	mark_once(&exchange->marks, MARK_REPLY_HEAD, loop_now(loop));
	head = switching_head_write(exchange);
	block->start += exchange->response.head.length;
	more = block_length(block);
	if (!head || take_early_bytes(exchange) < 0) {
		block_put(&loop->blocks, head);
		block_put(&loop->blocks, block);
		exchange->close_client = true; /* what it sent behind its request may be gone */
		proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
		return;
	}
	exchange->step = STEP_TUNNEL;
	exchange->status = exchange->response.head.status;
	exchange->reply_begun = true;
	tunnel->begin_ns = tunnel->active_ns = loop->now_ns;
	tunnel->server_bytes = more;
	loop_count(loop, COUNTER_TUNNELS_BEGUN, 1);
	loop_count(loop, COUNTER_TUNNEL_SERVER_BYTES, more);
	upstream_tunnel(exchange->upstream);
	proxy_return_slot(exchange);
	queue_push(&client->out, &loop->blocks, head);
	queue_push(&client->out, &loop->blocks, block);
	if (!to_client(exchange) || !to_server(exchange))
		return;
	client_watch(client, loop->now_ns);
}
