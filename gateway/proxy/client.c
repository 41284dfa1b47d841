/* One downstream connection: one persistent EV_READ for its life, EV_WRITE only after a short
 * write, one lazy deadline. */
#include "proxy/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <arpa/inet.h>
#include "base/xmem.h"
#include "proxy/address_count.h"
#include "proxy/exchange.h"
#include "proxy/listener.h"
#include "proxy/overlay.h"
#include "proxy/proxy.h"
#include "proxy/relay.h"

static void
client_reap(struct reapable *reapable)
{
	free(reapable);
}

static void
drop_buffers(struct client *client)
{
	struct block_pool *blocks = &client->loop->blocks;

	block_put(blocks, client->in);
	block_put(blocks, client->ahead);
	client->in = client->ahead = NULL;
	client->rest = 0;
}

static void
unready(struct client *client)
{
	struct loop *loop = client->loop;
	struct client **link = &loop->ready;

	if (!client->is_ready)
		return;
	while (*link && *link != client)
		link = &(*link)->ready_next;
	if (*link) {
		*link = client->ready_next;
		if (!*link)
			loop->ready_tail = link;
	}
	client->is_ready = false;
}

void
client_close(struct client *client, enum close_reason reason)
{
	struct loop *loop = client->loop;

	if (client->state == CLIENT_CLOSED)
		return;
	client->state = CLIENT_CLOSED;
	if (reason != CLOSE_NONE)
		loop_reason(loop, reason);
	timer_remove(&loop->wheel, &client->timer);
	unready(client);
	opening_end(client);
	overlay_release(client);
	stream_close(&client->stream);
	if (client->counted)
		address_leave(&client->peer);
	drop_buffers(client);
	queue_clear(&client->out, &loop->blocks);
	*client->link = client->next;
	if (client->next)
		client->next->link = client->link;
	loop->client_count--;
	shared_return_client(loop->shared);
	loop_gauge(&loop->board->client_connections, -1);
	listeners_resume(loop);
	loop_reap(loop, &client->reapable);
}

void
client_reset(struct client *client, enum close_reason reason)
{
	if (client->state == CLIENT_CLOSED)
		return;
	stream_reset(&client->stream);
	client_close(client, reason);
}

void
client_linger(struct client *client, enum close_reason reason, uint64_t now_ns)
{
	struct loop *loop = client->loop;

	drop_buffers(client);
	opening_end(client);
	if (client->saw_fin || stream_shutdown(&client->stream) < 0) {
		client_close(client, reason);
		return;
	}
	if (reason != CLOSE_NONE)
		loop_reason(loop, reason);
	client->state = CLIENT_LINGER;
	client->discarded = 0;
	stream_set_writing(&client->stream, false);
	stream_set_reading(&client->stream, true);
	timer_set(&loop->wheel, &client->timer, now_ns + LINGER_NS, now_ns);
}

static void
linger_readable(struct client *client)
{
	struct loop *loop = client->loop;
	struct block *sink = block_get(&loop->blocks, 0);
	ssize_t n = -1;

	if (!sink) {
		client_close(client, CLOSE_OUT_OF_MEMORY);
		return;
	}
	for (int i = 0; i < READS_PER_WAKEUP; i++) {
		n = recv(client->stream.fd, sink->data, sink->capacity, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			n = 1;
			break;
		}
		if (n <= 0)
			break;
		client->discarded += (uint64_t)n;
		if ((size_t)n < sink->capacity)
			break;
	}
	block_put(&loop->blocks, sink);
	if (n <= 0 || client->discarded > LINGER_BYTES_MAX)
		client_close(client, CLOSE_NONE);
}

/* Leading empty lines are not the request (RFC 9112 2.2). */
static void
skip_empty_lines(struct block *in)
{
	while (in->start < in->end && (in->data[in->start] == '\r' || in->data[in->start] == '\n'))
		in->start++;
	if (in->start == in->end)
		in->start = in->end = BLOCK_HEADROOM;
	else if (in->start > BLOCK_HEADROOM)
		block_compact(in);
}

/* Bytes of a request that has begun, or begins here at `start_ns`. */
static void
take_bytes(struct client *client, uint64_t start_ns, bool pipelined)
{
	struct exchange *exchange = client->exchange;

	if (!exchange) {
		skip_empty_lines(client->in);
		if (block_length(client->in) == 0)
			return;
		exchange = exchange_begin(client, start_ns);
		if (!exchange) {
			client_reset(client, CLOSE_OUT_OF_MEMORY);
			return;
		}
		if (pipelined)
			exchange->flags |= RECORD_PIPELINED;
		if (client->overlays)
			overlay_begin(client, exchange);
	}
	proxy_run(exchange);
}

void
client_hung(struct client *client, bool reset)
{
	struct exchange *exchange = client->exchange;

	client->saw_fin = true;
	if (!exchange) {
		client_close(client, CLOSE_CLIENT_CLOSED);
		return;
	}
	if (!reset && client->listener->half_close && exchange->request_state == DIRECTION_DONE) {
		stream_set_reading(&client->stream, false); /* it still wants its answer */
		return;
	}
	proxy_client_gone(exchange);
}

/* One read behind block->end. Returns what recv() did; <= 0 is dealt with here. */
static ssize_t
read_into(struct client *client, struct block *block)
{
	struct loop *loop = client->loop;
	char *to = block->data + block->end;
	ssize_t n = client->stamped && !client->exchange
	                ? overlay_read(client, to, block_room(block))
	                : stream_read(&client->stream, to, block_room(block));

	if (n > 0) {
		loop_now(loop);
		block->end += (uint32_t)n;
		loop_count(loop, COUNTER_CLIENT_READ_BYTES, (uint64_t)n);
		return n;
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		client_hung(client, n != 0);
	return n;
}

static void
head_readable(struct client *client)
{
	struct loop *loop = client->loop;

	if (!client->in)
		client->in = block_get(&loop->blocks, 0);
	if (!client->in) {
		client_reset(client, CLOSE_OUT_OF_MEMORY);
		return;
	}
	if (read_into(client, client->in) > 0)
		take_bytes(client, loop->now_ns, false);
}

int
client_keep_ahead(struct client *client, const char *bytes, size_t length)
{
	struct block *block = client->ahead;

	if (!block)
		block = client->ahead = block_get(&client->loop->blocks, length);
	if (!block || block_room(block) < length)
		return -1;
	memcpy(block->data + block->end, bytes, length);
	block->end += (uint32_t)length;
	return 0;
}

int
client_grow_head(struct client *client)
{
	struct block_pool *blocks = &client->loop->blocks;
	struct block *old = client->in;
	struct block *more =
	    block_get(blocks, client->loop->config->limits.head_bytes + BLOCK_SIZE);

	if (!more)
		return -1;
	memcpy(more->data + more->end, old->data + old->start, block_length(old));
	more->end += (uint32_t)block_length(old);
	block_put(blocks, old);
	client->in = more;
	return 0;
}

/* The request is complete and being answered: what comes now is the next one, or the end. Only
 * one block holds such bytes: those behind the request in `in`, or, where there are none and no
 * room, `ahead`. */
static void
ahead_readable(struct client *client)
{
	struct block *block = client->ahead ? client->ahead : client->in;

	if (block && block_room(block) == 0)
		block = NULL;
	if (!block && !client->ahead && (!client->in || client->rest == client->in->end))
		block = client->ahead = block_get(&client->loop->blocks, 0);
	if (!block) { /* enough for now: what it sends waits in the kernel */
		client_pause(client);
		return;
	}
	read_into(client, block);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	struct exchange *exchange = client->exchange;

	(void)fd;
	(void)what;
	if (client->ack)
		overlay_event(client);
	if (client->state == CLIENT_LINGER)
		linger_readable(client);
	else if (client->state == CLIENT_OPENING)
		opening_readable(client);
	else if (!exchange || exchange->step == STEP_READ_HEAD)
		head_readable(client);
	else if (exchange->step == STEP_TUNNEL)
		tunnel_client_readable(exchange);
	else if (exchange->request_state == DIRECTION_BODY && exchange->step == STEP_RELAY)
		relay_client_readable(exchange);
	else if (exchange->request_state == DIRECTION_DONE)
		ahead_readable(client);
	else
		client_pause(client);
	stream_check(&client->stream);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;

	(void)fd;
	(void)what;
	if (client->ack)
		overlay_event(client);
	stream_writable(&client->stream);
	if (client->state == CLIENT_OPENING)
		opening_writable(client);
	else if (client->exchange)
		relay_client_writable(client->exchange);
}

int
client_flush(struct client *client, size_t *ret_written)
{
	struct loop *loop = client->loop;
	bool waited = client->stream.writing;
	int done = stream_write(&client->stream, &client->out, &loop->blocks, ret_written);

	if (*ret_written > 0)
		loop_count(loop, COUNTER_CLIENT_WRITTEN_BYTES, *ret_written);
	if (*ret_written > 0 || !waited)
		client->write_ns = loop->now_ns;
	client->write_taken += *ret_written;
	if (done == 0)
		client_watch_kernel(client, !waited);
	if (done == 0 && !waited)
		client_watch(client, loop->now_ns);
	return done;
}

void
client_pause(struct client *client)
{
	stream_set_reading(&client->stream, false);
	client_watch(client, client->loop->now_ns);
}

void
client_resume(struct client *client)
{
	if (client->stream.reading || client->saw_fin)
		return;
	client->read_ns = client->loop->now_ns;
	stream_set_reading(&client->stream, true);
	client_watch(client, client->read_ns);
}

static void
on_timer(struct timer *timer, uint64_t now_ns)
{
	struct client *client =
	    (struct client *)(void *)((char *)timer - offsetof(struct client, timer));

	client->loop->now_ns = now_ns;
	switch (client->state) {
	case CLIENT_OPENING:
		opening_late(client, now_ns);
		return;
	case CLIENT_IDLE:
		client_linger(client, CLOSE_CLIENT_IDLE, now_ns);
		return;
	case CLIENT_BUSY:
		client_watch_late(client, now_ns);
		return;
	case CLIENT_LINGER:
		client_close(client, CLOSE_NONE);
		return;
	case CLIENT_CLOSED:
		return;
	}
}

/* Bytes behind the request move to the front of `in`; without any, the block goes back. */
static void
keep_rest(struct client *client)
{
	struct block *in = client->in;

	if (in && client->rest < in->end) {
		in->start = client->rest;
		block_compact(in);
	} else {
		block_put(&client->loop->blocks, in);
		client->in = client->ahead;
		client->ahead = NULL;
	}
	client->rest = 0;
}

void
client_next(struct client *client, bool keep, uint64_t now_ns)
{
	struct loop *loop = client->loop;

	client->ended_ns = now_ns;
	client->requests++;
	if (!keep) {
		client_linger(client, loop->draining ? CLOSE_DRAINING : CLOSE_NONE, now_ns);
		return;
	}
	keep_rest(client);
	client->state = CLIENT_IDLE;
	if (client->in) {
		client_ready(client);
	} else if (client->saw_fin) {
		client_close(client, CLOSE_NONE);
		return;
	}
	client_resume(client);
	timer_set(&loop->wheel, &client->timer,
	          now_ns + loop->config->limits.keepalive_timeout_ms * NS_PER_MS, now_ns);
}

void
client_ready(struct client *client)
{
	struct loop *loop = client->loop;

	if (client->is_ready)
		return;
	client->is_ready = true;
	client->ready_next = NULL;
	*loop->ready_tail = client;
	loop->ready_tail = &client->ready_next;
}

void
client_run_ready(struct client *client)
{
	if (client->state == CLIENT_IDLE && client->in)
		take_bytes(client, client->ended_ns, true);
	if (client->state == CLIENT_IDLE && client->in && block_length(client->in) == 0) {
		block_put(&client->loop->blocks, client->in);
		client->in = client->ahead;
		client->ahead = NULL;
		if (client->in)
			client_ready(client);
		else if (client->saw_fin)
			client_close(client, CLOSE_NONE);
	}
}

void
client_drain(struct client *client, uint64_t now_ns)
{
	if (client->state == CLIENT_IDLE && !client->is_ready)
		client_linger(client, CLOSE_DRAINING, now_ns);
}

static void
peer_text(struct client *client)
{
	const struct net_address *peer = &client->peer;

	client->ip[0] = '\0';
	if (peer->sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &peer->in.sin_addr, client->ip, sizeof client->ip);
	else if (peer->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&peer->in6.sin6_addr))
		inet_ntop(AF_INET, &peer->in6.sin6_addr.s6_addr[12], client->ip, sizeof client->ip);
	else if (peer->sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &peer->in6.sin6_addr, client->ip, sizeof client->ip);
}

void
client_set_peer(struct client *client, const struct net_address *peer)
{
	const struct config *config = client->loop->config;

	client->peer = *peer;
	peer_text(client);
	client->trusted_proxy = config_peers_match(&client->listener->trusted_proxies, peer);
	client->trusted_trace = config_peers_match(&config->trace.trust, peer);
	client->gets_timing = config_peers_match(&config->trace.server_timing, peer);
}

bool
client_count_address(struct client *client)
{
	size_t each = client->loop->config->limits.connections_per_address;

	client->counted = each > 0 && address_enter(&client->peer, each);
	return each == 0 || client->counted;
}

static void
watch_first_head(struct client *client, uint64_t now_ns)
{
	struct loop *loop = client->loop;

	timer_set(&loop->wheel, &client->timer,
	          now_ns + loop->config->limits.head_timeout_ms * NS_PER_MS, now_ns);
}

void
client_opened(struct client *client, uint64_t now_ns)
{
	client->state = CLIENT_IDLE;
	client->ended_ns = now_ns;
	watch_first_head(client, now_ns);
	if (client->in)
		take_bytes(client, now_ns, false);
}

void
client_accept(struct loop *loop, const struct config_listener *listener, int fd,
              const struct net_address *peer, bool counted)
{
	struct client *client = xmem_try(sizeof *client);
	uint64_t now_ns = loop_now(loop);

	if (!client) {
		loop_reason(loop, CLOSE_OUT_OF_MEMORY);
		shared_return_client(loop->shared);
		if (counted)
			address_leave(peer);
		close(fd);
		return;
	}
	memset(client, 0, sizeof *client);
	client->counted = counted;
	client->reapable.reap = client_reap;
	client->loop = loop;
	client->listener = listener;
	client->state = CLIENT_IDLE;
	client_set_peer(client, peer);
	client->ended_ns = now_ns;
	client->timer.fire = on_timer;
	stream_init(&client->stream, loop->base, fd, on_readable, on_writable, client);
	client->next = loop->clients;
	client->link = &loop->clients;
	if (client->next)
		client->next->link = &client->next;
	loop->clients = client;
	loop->client_count++;
	loop_gauge(&loop->board->client_connections, 1);
	overlay_accepted(client);
	stream_set_reading(&client->stream, true);
	watch_first_head(client, now_ns);
	opening_begin(client, now_ns);
}
