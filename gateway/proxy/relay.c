/* Heads and bodies between two sockets. Each read is parsed, queued and written at once; queues
 * beyond QUEUE_HIGH stop the side that fills them. */
#include "proxy/relay.h"

#include <errno.h>
#include <string.h>
#include "proxy/client.h"
#include "proxy/head_write.h"
#include "proxy/proxy.h"
#include "proxy/upstream.h"

#define COPY_MAX 4096u  /* smaller bodies are copied behind the head: one buffer, one send */
#define INTERIMS_MAX 16 /* 1xx heads an app may send before its answer */

/* How a body is written: as chunks or as it is, and which trailer fields end it. */
struct body_form {
	bool chunked;
	bool last;
	const struct block *trailers; /* null = none */
};

/* Room of a body's next block. A body that filled its last one comes faster than it is read: a long
 * block saves system calls, and is all this wakeup reads. Not with TLS: 16 KiB a record at most. */
static size_t
body_room(const struct stream *stream, bool filled, int *reads)
{
	if (!filled || stream->tls)
		return 0;
	*reads = READS_PER_WAKEUP;
	return BLOCK_LONG_ROOM;
}

/* The last chunk, with the trailer fields that go on. */
static int
append_last(struct loop *loop, struct queue *queue, const struct block *trailers)
{
	if (!trailers || block_length(trailers) == 0)
		return queue_append(queue, &loop->blocks, "0\r\n\r\n", 5);
	if (queue_append(queue, &loop->blocks, "0\r\n", 3) < 0 ||
	    queue_append(queue, &loop->blocks, trailers->data + trailers->start,
	                 block_length(trailers)) < 0)
		return -1;
	return queue_append(queue, &loop->blocks, "\r\n", 2);
}

/* Copies body bytes behind what is queued. */
static int
append_body(struct loop *loop, struct queue *queue, const char *data, size_t length,
            struct body_form form)
{
	char line[20];
	size_t at = sizeof line;

	if (!form.chunked)
		return queue_append(queue, &loop->blocks, data, length);
	if (length > 0) {
		line[--at] = '\n';
		line[--at] = '\r';
		for (size_t n = length; n > 0; n >>= 4)
			line[--at] = "0123456789abcdef"[n & 15];
		if (queue_append(queue, &loop->blocks, line + at, sizeof line - at) < 0 ||
		    queue_append(queue, &loop->blocks, data, length) < 0 ||
		    queue_append(queue, &loop->blocks, "\r\n", 2) < 0)
			return -1;
	}
	return form.last ? append_last(loop, queue, form.trailers) : 0;
}

/* Queues the payload data[0, length) of `block`, which is handed over. */
static int
push_body(struct loop *loop, struct queue *queue, struct block *block, size_t length,
          struct body_form form)
{
	bool trailers = form.last && form.trailers && block_length(form.trailers) > 0;
	int failed;

	if (length <= COPY_MAX && queue->last) {
		failed = append_body(loop, queue, block->data + block->start, length, form);
		block_put(&loop->blocks, block);
		return failed;
	}
	block->end = block->start + (uint32_t)length;
	if (form.chunked)
		block_frame_chunk(block, form.last && !trailers);
	queue_push(queue, &loop->blocks, block);
	return form.chunked && trailers ? append_last(loop, queue, form.trailers) : 0;
}

/* --- towards the app ----------------------------------------------------- */

/* The server takes no more: what it answered before may still be read, so the reading side
 * decides. */
static void
send_failed(struct exchange *exchange)
{
	exchange->send_failed = true;
	queue_clear(&exchange->upstream->out, &exchange->loop->blocks);
	if (exchange->request_state == DIRECTION_BODY)
		client_pause(exchange->client);
}

static struct body_form
request_form(const struct exchange *exchange)
{
	const struct http1 *request = &exchange->request;

	return (struct body_form){
	    .chunked = request->head.framing == BODY_CHUNKED,
	    .last = exchange->request_state == DIRECTION_DONE,
	    .trailers = request->kept,
	};
}

static void
flush_upstream(struct exchange *exchange)
{
	struct upstream *upstream = exchange->upstream;
	struct client *client = exchange->client;
	size_t written;
	int done = upstream_flush(upstream, &written);

	if (written > 0) {
		uint64_t now_ns = loop_now(exchange->loop);

		mark_once(&exchange->marks, MARK_SENT_FIRST, now_ns);
		upstream->active_ns = now_ns;
		if (done == 1 && exchange->request_state == DIRECTION_DONE)
			mark_once(&exchange->marks, MARK_SENT_LAST, now_ns);
	}
	if (done < 0) {
		send_failed(exchange);
		return;
	}
	if (exchange->request_state != DIRECTION_BODY)
		return;
	if (!client->stream.reading && upstream->out.bytes <= QUEUE_LOW)
		client_resume(client);
	if (done == 1)
		exchange_body_wait(exchange, exchange->loop->now_ns);
}

bool
relay_send_request(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct upstream *upstream = exchange->upstream;
	struct client *client = exchange->client;
	size_t length = exchange->body_end - exchange->body_start;
	struct block *block = request_head_write(exchange, length <= COPY_MAX ? length + 32 : 0);

	if (!block)
		return false;
	http1_init(&exchange->response, HTTP_RESPONSE, &loop->config->limits);
	queue_push(&upstream->out, &loop->blocks, block);
	if (exchange->request.head.framing != BODY_NONE &&
	    append_body(loop, &upstream->out, client->in->data + exchange->body_start, length,
	                request_form(exchange)) < 0)
		return false;
	upstream->active_ns = loop->now_ns;
	client->read_ns = loop->now_ns;
	/* Who sends body bytes without waiting does not wait. */
	if (exchange->facts.expects_continue && exchange->request_state == DIRECTION_BODY &&
	    length == 0)
		exchange->continue_from_ns = loop->now_ns;
	flush_upstream(exchange);
	upstream_watch(upstream, loop->now_ns);
	if (exchange->request_state == DIRECTION_BODY && !exchange->send_failed)
		client_resume(client);
	client_watch(client, loop->now_ns);
	return true;
}

void
relay_upstream_writable(struct exchange *exchange)
{
	if (exchange->step == STEP_TUNNEL) {
		tunnel_upstream_writable(exchange);
		return;
	}
	flush_upstream(exchange);
}

static bool
body_too_large(const struct exchange *exchange)
{
	uint64_t limit = exchange->bounds->body_bytes;

	return limit > 0 && exchange->request.body_bytes > limit;
}

/* Body bytes were read into a block of their own. False when the exchange is over. */
static bool
take_request_body(struct exchange *exchange, struct block *block)
{
	struct loop *loop = exchange->loop;
	struct http1 *request = &exchange->request;
	size_t length = block_length(block), payload, used;
	char *data = block->data + block->start;
	enum http1_result result = http1_body(request, data, length, &payload, &used);
	enum close_reason why = result == HTTP1_ERROR ? request->error : CLOSE_NONE;

	exchange->replayable = false;
	if (why == CLOSE_NONE && body_too_large(exchange))
		why = CLOSE_BODY_TOO_LARGE;
	if (why == CLOSE_NONE && used < length &&
	    client_keep_ahead(exchange->client, data + used, length - used) < 0)
		why = CLOSE_OUT_OF_MEMORY;
	if (why != CLOSE_NONE) {
		block_put(&loop->blocks, block);
		proxy_fail(exchange, why);
		return false;
	}
	if (result == HTTP1_DONE)
		exchange->request_state = DIRECTION_DONE;
	if (push_body(loop, &exchange->upstream->out, block, payload, request_form(exchange)) < 0) {
		proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
		return false;
	}
	flush_upstream(exchange);
	return true;
}

void
relay_client_readable(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct client *client = exchange->client;

	for (int i = 0; i < READS_PER_WAKEUP; i++) {
		struct block *block;
		size_t asked;
		ssize_t n;

		/* Without a server connection the answer is complete: what still comes is
		 * lingered over. */
		if (!exchange->upstream || exchange->send_failed ||
		    exchange->upstream->out.bytes >= QUEUE_HIGH) {
			client_pause(client);
			return;
		}
		block = block_get(&loop->blocks,
		                  body_room(&client->stream, exchange->long_request, &i));
		if (!block) {
			proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
			return;
		}
		asked = block_room(block);
		n = stream_read(&client->stream, block->data + block->end, asked);
		exchange->long_request = n > 0 && (size_t)n == asked;
		if (n <= 0) {
			bool again = n < 0 && (errno == EAGAIN || errno == EINTR);

			block_put(&loop->blocks, block);
			if (!again)
				client_hung(client, n < 0);
			return;
		}
		client->read_ns = loop_now(loop);
		exchange_body_came(exchange, client->read_ns);
		block->end += (uint32_t)n;
		loop_count(loop, COUNTER_CLIENT_READ_BYTES, (uint64_t)n);
		if (!take_request_body(exchange, block))
			return;
		if (exchange->request_state == DIRECTION_DONE) {
			client_watch(client, loop->now_ns);
			return;
		}
		if (stream_drained(&client->stream, (size_t)n, asked))
			return;
	}
}

/* --- towards the client -------------------------------------------------- */

/* Writes what is queued. False when the exchange is over. */
static bool
deliver(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	size_t written;
	int done;

	exchange->client->stream.ends =
	    exchange->response_state == DIRECTION_DONE && !exchange_keeps_client(exchange);
	done = client_flush(exchange->client, &written);
	if (written > 0)
		loop_now(loop);
	if (written > 0 && exchange->reply_begun)
		mark_once(&exchange->marks, MARK_REPLIED, loop->now_ns);
	if (done < 0) {
		client_hung(exchange->client, true);
		return false;
	}
	if (exchange->response_state != DIRECTION_DONE)
		return true;
	if (done == 1) {
		mark_once(&exchange->marks, MARK_END, loop->now_ns);
		proxy_go(exchange, STEP_FINISH);
		return false;
	}
	proxy_release(exchange);
	return true;
}

/* Trailer fields only for clients that say they understand them. */
static struct body_form
response_form(const struct exchange *exchange)
{
	return (struct body_form){
	    .chunked = exchange->chunked_reply,
	    .last = exchange->response_state == DIRECTION_DONE,
	    .trailers = exchange->facts.takes_trailers ? exchange->response.kept : NULL,
	};
}

/* Response body bytes in `block`, which is handed over. False when the exchange is over. */
static bool
take_response_body(struct exchange *exchange, struct block *block, uint64_t read_ns)
{
	struct loop *loop = exchange->loop;
	struct http1 *response = &exchange->response;
	size_t length = block_length(block), payload, used;
	enum http1_result result =
	    http1_body(response, block->data + block->start, length, &payload, &used);
	bool done = result == HTTP1_DONE;

	if (result == HTTP1_ERROR) {
		block_put(&loop->blocks, block);
		proxy_fail(exchange, response->error);
		return false;
	}
	exchange->response_body_bytes += payload;
	if (used < length)
		exchange->surplus = true;
	if (done) {
		exchange->response_state = DIRECTION_DONE;
		mark_once(&exchange->marks, MARK_READ_LAST, read_ns);
	}
	if (push_body(loop, &exchange->client->out, block, payload, response_form(exchange)) < 0) {
		proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
		return false;
	}
	if (!deliver(exchange))
		return false;
	exchange_watch_provisional(exchange);
	return true;
}

/* The app wants the body: from here on it is the client that is waited for. */
static void
continue_client(struct exchange *exchange)
{
	struct client *client = exchange->client;
	uint64_t now_ns = exchange->loop->now_ns;

	if (exchange->continue_from_ns == 0)
		return;
	exchange_continued(exchange, now_ns);
	client->read_ns = now_ns;
	if (exchange->request_state == DIRECTION_BODY && !exchange->send_failed)
		exchange_body_wait(exchange, now_ns);
	client_watch(client, now_ns);
}

/* A 1xx head goes on to clients that know it, and changes nothing else. */
static bool
take_interim(struct exchange *exchange, struct block *block)
{
	struct client *client = exchange->client;
	struct block *head = NULL;

	if (++exchange->interims > INTERIMS_MAX) {
		proxy_fail(exchange, CLOSE_RESPONSE_INTERIMS);
		return false;
	}
	if (exchange->response.head.status == 100)
		continue_client(exchange);
	if (exchange->request.head.minor >= 1) {
		head = interim_head_write(exchange);
		if (!head) {
			proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
			return false;
		}
		queue_push(&client->out, &exchange->loop->blocks, head);
		if (!deliver(exchange))
			return false;
	}
	block->start += exchange->response.head.length;
	http1_init(&exchange->response, HTTP_RESPONSE, &exchange->loop->config->limits);
	exchange->marks.at_ns[MARK_READ_FIRST] = 0;
	return true;
}

/* The answer comes before the request's end: waits for the rest of it are no part of `send`. */
static void
leave_send(struct exchange *exchange)
{
	uint64_t first_ns = exchange->marks.at_ns[MARK_READ_FIRST];
	bool waiting = exchange->body_wait_from_ns != 0;

	exchange_body_came(exchange, first_ns);
	if (waiting)
		exchange_body_wait(exchange, first_ns);
}

/* The final head is accepted: rebuild it and go on with the body bytes behind it. */
static bool
begin_reply(struct exchange *exchange, struct block *block, uint64_t read_ns)
{
	struct head *head = &exchange->response.head;
	struct block *out;

	mark_once(&exchange->marks, MARK_REPLY_HEAD, loop_now(exchange->loop));
	if (exchange->request_state == DIRECTION_BODY)
		leave_send(exchange);
	exchange->status = head->status;
	if (head_is_event_stream(head))
		exchange->flags |= RECORD_EVENT_STREAM;
	if (exchange->request_state != DIRECTION_DONE || exchange->loop->draining)
		exchange->close_client = true;
	out =
	    exchange_keep_trailers(exchange, &exchange->response)
	        ? response_head_write(exchange, block_length(block) <= COPY_MAX ? COPY_MAX + 64 : 0)
	        : NULL;
	if (!out) {
		block_put(&exchange->loop->blocks, block);
		proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
		return false;
	}
	exchange->reply_alone = exchange->client->out.bytes == 0;
	queue_push(&exchange->client->out, &exchange->loop->blocks, out);
	exchange->reply_begun = true;
	exchange->response_state = DIRECTION_BODY;
	block->start += head->length;
	return take_response_body(exchange, block, read_ns);
}

/* More room for an unfinished response head; the block stays with the connection until more
 * comes. */
static bool
hold_head(struct exchange *exchange, struct block *block)
{
	struct block_pool *blocks = &exchange->loop->blocks;
	struct block *more = block;

	if (block_room(block) == 0) {
		more = block_get(blocks, exchange->loop->config->limits.head_bytes + BLOCK_SIZE);
		if (more) {
			memcpy(more->data + more->end, block->data + block->start,
			       block_length(block));
			more->end += (uint32_t)block_length(block);
		}
		block_put(blocks, block);
	}
	if (!more) {
		proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
		return false;
	}
	exchange->upstream->in = more;
	return true;
}

static bool
take_response_head(struct exchange *exchange, struct block *block, uint64_t read_ns)
{
	struct block_pool *blocks = &exchange->loop->blocks; /* outlives the exchange */
	struct http1 *response = &exchange->response;

	while (block_length(block) > 0) {
		enum http1_result result;
		enum close_reason why;

		mark_once(&exchange->marks, MARK_READ_FIRST, read_ns);
		if (exchange->marks.at_ns[MARK_READ_FIRST] == read_ns)
			exchange->lag_read_ns = loop_lag_at(exchange->loop, read_ns);
		result = http1_head(response, block->data + block->start, block_length(block));
		if (result == HTTP1_MORE)
			return hold_head(exchange, block);
		why = result == HTTP1_ERROR
		          ? response->error
		          : http_rules_response(&response->head, exchange->request.head.method,
		                                exchange->facts.websocket);
		if (why != CLOSE_NONE) {
			block_put(blocks, block);
			proxy_fail(exchange, why);
			return false;
		}
		if (response->head.status >= 200)
			return begin_reply(exchange, block, read_ns);
		if (response->head.status == 101) {
			tunnel_begin(exchange, block);
			return false;
		}
		if (!take_interim(exchange, block)) {
			block_put(blocks, block);
			return false;
		}
	}
	block_put(blocks, block);
	return true;
}

/* The server closed (error 0; ENODATA: TLS without its end) or reset. */
static void
upstream_ended(struct exchange *exchange, int error)
{
	bool stale = !exchange->heard && exchange->upstream->reused;
	enum close_reason why = error == 0 || error == ENODATA ? CLOSE_UPSTREAM_CLOSED
	                        : error == EPROTO              ? CLOSE_UPSTREAM_TLS_FAULT
	                                                       : CLOSE_UPSTREAM_RESET;

	/* Whoever cuts a TLS connection must not be able to pass a part for the whole. */
	if (error == ENODATA && exchange->response_state == DIRECTION_BODY &&
	    exchange->response.head.framing == BODY_UNTIL_EOF)
		why = CLOSE_UPSTREAM_TRUNCATED;
	if (error == 0 && exchange->response_state == DIRECTION_BODY &&
	    http1_eof(&exchange->response) == HTTP1_DONE) {
		mark_once(&exchange->marks, MARK_READ_LAST, loop_now(exchange->loop));
		exchange->response_state = DIRECTION_DONE;
		if (append_body(exchange->loop, &exchange->client->out, "", 0,
		                response_form(exchange)) < 0)
			proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
		else
			deliver(exchange);
		return;
	}
	proxy_attempt_failed(exchange, stale ? CLOSE_UPSTREAM_CLOSED_IDLE : why);
}

void
relay_upstream_readable(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;
	struct upstream *upstream = exchange->upstream;

	if (exchange->step == STEP_TUNNEL) {
		tunnel_upstream_readable(exchange);
		return;
	}
	for (int i = 0; i < READS_PER_WAKEUP; i++) {
		struct block *block = upstream->in;
		size_t asked;
		ssize_t n;
		bool goes_on;

		if (exchange->client->out.bytes >= QUEUE_HIGH) {
			upstream_pause(upstream, loop_now(loop));
			return;
		}
		upstream->in = NULL;
		if (!block &&
		    !(block = block_get(&loop->blocks, body_room(&upstream->stream,
		                                                 exchange->long_response, &i)))) {
			proxy_fail(exchange, CLOSE_OUT_OF_MEMORY);
			return;
		}
		asked = block_room(block);
		n = stream_read(&upstream->stream, block->data + block->end, asked);
		exchange->long_response =
		    exchange->response_state == DIRECTION_BODY && n > 0 && (size_t)n == asked;
		if (n <= 0) {
			int error = n < 0 ? errno : 0;

			upstream->in = block;
			if (error != EAGAIN && error != EINTR)
				upstream_ended(exchange, error);
			return;
		}
		upstream->active_ns = loop_now(loop);
		exchange->heard = true;
		block->end += (uint32_t)n;
		if (exchange->response_state == DIRECTION_HEAD)
			goes_on = take_response_head(exchange, block, loop->now_ns);
		else
			goes_on = take_response_body(exchange, block, loop->now_ns);
		if (!goes_on || exchange->upstream != upstream ||
		    stream_drained(&upstream->stream, (size_t)n, asked))
			return;
	}
}

void
relay_client_writable(struct exchange *exchange)
{
	struct upstream *upstream;

	if (exchange->step == STEP_TUNNEL) {
		tunnel_client_writable(exchange);
		return;
	}
	if (exchange->step == STEP_REPLYING) {
		proxy_run(exchange);
		return;
	}
	if (!deliver(exchange))
		return;
	upstream = exchange->upstream;
	if (upstream && upstream->paused_ns && exchange->client->out.bytes <= QUEUE_LOW)
		upstream_resume(upstream, exchange->loop->now_ns);
}
