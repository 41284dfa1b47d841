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
	if ((tunnel->sides[TUNNEL_CLIENT].done || tunnel->sides[TUNNEL_SERVER].done) &&
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
	const struct tunnel_side *sides = exchange->tunnel.sides;

	if (!sides[TUNNEL_CLIENT].shut || !sides[TUNNEL_SERVER].shut)
		return false;
	tunnel_end(exchange, CLOSE_NONE);
	return true;
}

/* --- the two sides ------------------------------------------------------- */

static enum tunnel_id
other(enum tunnel_id id)
{
	return id == TUNNEL_CLIENT ? TUNNEL_SERVER : TUNNEL_CLIENT;
}

static struct stream *
stream_of(const struct exchange *exchange, enum tunnel_id id)
{
	return id == TUNNEL_CLIENT ? &exchange->client->stream : &exchange->upstream->stream;
}

/* What waits for that side. */
static struct queue *
queue_to(const struct exchange *exchange, enum tunnel_id id)
{
	return id == TUNNEL_CLIENT ? &exchange->client->out : &exchange->upstream->out;
}

static int
flush_to(struct exchange *exchange, enum tunnel_id id, size_t *ret_written)
{
	return id == TUNNEL_CLIENT ? client_flush(exchange->client, ret_written)
	                           : upstream_flush(exchange->upstream, ret_written);
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

/* Writing to it failed. A server that closed both ways hears no more; what it said before still
 * goes to the client. False when the tunnel is over. */
static bool
takes_no_more(struct exchange *exchange, enum tunnel_id id)
{
	struct tunnel_side *side = &exchange->tunnel.sides[id];

	if (id == TUNNEL_CLIENT || !side->done) {
		tunnel_end(exchange,
		           id == TUNNEL_CLIENT ? CLOSE_CLIENT_ABORT : CLOSE_UPSTREAM_RESET);
		return false;
	}
	queue_clear(queue_to(exchange, id), &exchange->loop->blocks);
	stream_set_writing(stream_of(exchange, id), false);
	side->gone = true;
	return true;
}

/* Tells a side that the other one is done. TLS ends both ways at once: then this one is done
 * too. */
static void
shut(struct exchange *exchange, enum tunnel_id id)
{
	struct tunnel_side *side = &exchange->tunnel.sides[id];
	struct stream *stream = stream_of(exchange, id);

	side->shut = true;
	stream_shutdown(stream);
	if (!stream->tls || side->done)
		return;
	side->done = true;
	stream_set_reading(stream, false);
}

/* Writes what waits for a side. False when the tunnel is over. */
static bool
pass_to(struct exchange *exchange, enum tunnel_id id)
{
	struct tunnel *tunnel = &exchange->tunnel;
	struct tunnel_side *from = &tunnel->sides[other(id)], *to = &tunnel->sides[id];
	size_t written;
	int done = flush_to(exchange, id, &written);

	if (written > 0) {
		tunnel->active_ns = loop_now(exchange->loop);
		if (id == TUNNEL_CLIENT)
			answered(exchange, tunnel->active_ns);
	}
	if (done < 0) {
		if (!takes_no_more(exchange, id))
			return false;
		done = 1;
	}
	if (done == 1 && from->done && !to->shut) {
		bool was_done = to->done;

		shut(exchange, id);
		if (to->done != was_done)
			return pass_to(exchange, other(id));
	}
	if (!from->done && queue_to(exchange, id)->bytes <= QUEUE_LOW)
		stream_set_reading(stream_of(exchange, other(id)), true);
	return !ended(exchange);
}

void
tunnel_client_writable(struct exchange *exchange)
{
	pass_to(exchange, TUNNEL_CLIENT);
}

void
tunnel_upstream_writable(struct exchange *exchange)
{
	pass_to(exchange, TUNNEL_SERVER);
}

/* --- reading ------------------------------------------------------------- */

static void
finished(struct exchange *exchange, enum tunnel_id id)
{
	struct client *client = exchange->client;

	exchange->tunnel.sides[id].done = true;
	if (id == TUNNEL_CLIENT)
		client->saw_fin = true;
	stream_set_reading(stream_of(exchange, id), false);
	if (pass_to(exchange, other(id)))
		client_watch(client, exchange->loop->now_ns);
}

/* A read gave no bytes. `error` 0: FIN. WebSocket has an end of its own, so TLS need not say it
 * (ENODATA). */
static void
read_ended(struct exchange *exchange, enum tunnel_id id, int error)
{
	if (error == 0 || error == ENODATA)
		finished(exchange, id);
	else if (error != EAGAIN && error != EINTR)
		tunnel_end(exchange,
		           id == TUNNEL_CLIENT ? CLOSE_CLIENT_ABORT : CLOSE_UPSTREAM_RESET);
}

static void
count_read(struct exchange *exchange, enum tunnel_id id, size_t n)
{
	struct loop *loop = exchange->loop;

	exchange->tunnel.active_ns = loop_now(loop);
	exchange->tunnel.sides[id].bytes += n;
	if (id == TUNNEL_CLIENT)
		loop_count(loop, COUNTER_CLIENT_READ_BYTES, n);
	loop_count(loop,
	           id == TUNNEL_CLIENT ? COUNTER_TUNNEL_CLIENT_BYTES : COUNTER_TUNNEL_SERVER_BYTES,
	           n);
}

/* Reads from a side, and passes on. */
static void
take_from(struct exchange *exchange, enum tunnel_id id)
{
	struct block_pool *blocks = &exchange->loop->blocks;
	struct stream *stream = stream_of(exchange, id);
	const struct tunnel_side *to = &exchange->tunnel.sides[other(id)];
	struct queue *queue = queue_to(exchange, other(id));

	for (int i = 0; i < READS_PER_WAKEUP; i++) {
		struct block *block;
		size_t asked;
		ssize_t n;

		if (queue->bytes >= QUEUE_HIGH) {
			stream_set_reading(stream, false);
			return;
		}
		block = block_get(blocks, 0);
		if (!block) {
			tunnel_end(exchange, CLOSE_OUT_OF_MEMORY);
			return;
		}
		asked = block_room(block);
		n = stream_read(stream, block->data + block->end, asked);
		if (n <= 0) {
			int error = n < 0 ? errno : 0;

			block_put(blocks, block);
			read_ended(exchange, id, error);
			return;
		}
		count_read(exchange, id, (size_t)n);
		block->end += to->gone ? 0 : (uint32_t)n;
		queue_push(queue, blocks, block);
		if (!pass_to(exchange, other(id)) || stream_drained(stream, (size_t)n, asked))
			return;
	}
}

void
tunnel_client_readable(struct exchange *exchange)
{
	take_from(exchange, TUNNEL_CLIENT);
}

void
tunnel_upstream_readable(struct exchange *exchange)
{
	take_from(exchange, TUNNEL_SERVER);
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
	exchange->tunnel.sides[TUNNEL_CLIENT].bytes = early;
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
	tunnel->sides[TUNNEL_SERVER].bytes = more;
	loop_count(loop, COUNTER_TUNNELS_BEGUN, 1);
	loop_count(loop, COUNTER_TUNNEL_SERVER_BYTES, more);
	upstream_tunnel(exchange->upstream);
	proxy_return_slot(exchange);
	queue_push(&client->out, &loop->blocks, head);
	queue_push(&client->out, &loop->blocks, block);
	if (!pass_to(exchange, TUNNEL_CLIENT) || !pass_to(exchange, TUNNEL_SERVER))
		return;
	client_watch(client, loop->now_ns);
}
