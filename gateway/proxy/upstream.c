/* One server connection: one persistent EV_READ for its life, EV_WRITE only while connecting or
 * after a short write. */
#include "proxy/upstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/log.h"
#include "base/net.h"
#include "base/xmem.h"
#include "proxy/pool.h"
#include "proxy/proxy.h"
#include "proxy/relay.h"
#include "proxy/tls_client.h"
#include "proxy/tls_contexts.h"

static void
upstream_reap(struct reapable *reapable)
{
	free(reapable);
}

void
upstream_close(struct upstream *upstream)
{
	struct loop *loop = upstream->loop;

	if (upstream->state == UPSTREAM_GONE)
		return;
	if (upstream->state == UPSTREAM_RESTING)
		pool_forget_idle(upstream->server, upstream);
	if (upstream->exchange) {
		upstream->exchange->upstream = NULL;
		upstream->exchange = NULL;
	}
	upstream->state = UPSTREAM_GONE;
	timer_remove(&loop->wheel, &upstream->timer);
	stream_close(&upstream->stream);
	block_put(&loop->blocks, upstream->in);
	upstream->in = NULL;
	queue_clear(&upstream->out, &loop->blocks);
	board_share(&upstream->server->endpoint->board->connections, -1);
	if (upstream->tunnel)
		board_share(&upstream->server->endpoint->board->tunnels, -1);
	loop_reap(loop, &upstream->reapable);
}

/* Anything that happens to an idle connection ends it: a FIN, an RST, or bytes nobody asked for.
 * (Of what TLS says by itself, such as a new session, nothing is seen here.) */
static void
idle_readable(struct upstream *upstream)
{
	char byte;
	ssize_t n = stream_read(&upstream->stream, &byte, 1);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		loop_reason(upstream->loop, CLOSE_UNSOLICITED);
	upstream_close(upstream);
}

/* Tells all threads of a connection that was not made, and closes it. */
static void
connect_failed(struct upstream *upstream, enum close_reason reason)
{
	struct exchange *exchange = upstream->exchange;
	struct server *server = upstream->server;

	if (reason != CLOSE_OUT_OF_MEMORY)
		group_connect_failed(server->pool->group, server->index, loop_now(upstream->loop));
	upstream_close(upstream);
	proxy_attempt_failed(exchange, reason);
}

/* The connection can be used. */
static void
connect_succeeded(struct upstream *upstream)
{
	struct server *server = upstream->server;

	group_connected(server->pool->group, server->index);
	upstream->state = UPSTREAM_ACTIVE;
	stream_set_writing(&upstream->stream, false);
	stream_set_reading(&upstream->stream, true);
}

static void
usable(struct upstream *upstream)
{
	connect_succeeded(upstream);
	proxy_connected(upstream->exchange, upstream->loop->now_ns);
}

static void
handshake_done(struct upstream *upstream)
{
	static const enum counter counters[2][2] = {
	    {COUNTER_TLS_UPSTREAM_12_FULL, COUNTER_TLS_UPSTREAM_12_RESUMED},
	    {COUNTER_TLS_UPSTREAM_13_FULL, COUNTER_TLS_UPSTREAM_13_RESUMED}};
	const struct tls *tls = upstream->stream.tls;

	upstream->exchange->connect_tls_ns = loop_now(upstream->loop) - upstream->connect_ns;
	loop_count(upstream->loop, counters[tls_is_13(tls)][tls_is_resumed(tls)], 1);
	usable(upstream);
}

static void
handshake_on(struct upstream *upstream)
{
	enum close_reason reason = CLOSE_UPSTREAM_TLS_FAILED;
	int done = tls_handshake(upstream->stream.tls, &reason);

	if (done == 1) {
		handshake_done(upstream);
	} else if (done < 0) {
		log_debug("TLS with %s: %s: %s", upstream->server->config->text,
		          close_reason_name(reason), tls_fault(upstream->stream.tls));
		connect_failed(upstream, reason);
	}
}

/* -1 when memory is short. */
static int
handshake_begin(struct upstream *upstream)
{
	struct loop *loop = upstream->loop;
	const struct config_upstream *group = upstream->server->group;
	struct tls_client *client = tls_contexts_upstream(loop->tls, group);
	SSL *ssl =
	    tls_client_connection(client, (size_t)(upstream->server->config - group->servers));

	if (!ssl || tls_start(loop, &upstream->stream, ssl, NULL) != 0)
		return -1;
	upstream->state = UPSTREAM_HANDSHAKE;
	upstream->connect_ns = loop->now_ns;
	return 0;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *upstream = arg;

	(void)fd;
	(void)what;
	if (upstream->state == UPSTREAM_RESTING)
		idle_readable(upstream);
	else if (upstream->state == UPSTREAM_ACTIVE)
		relay_upstream_readable(upstream->exchange);
	else if (upstream->state == UPSTREAM_HANDSHAKE)
		handshake_on(upstream);
	stream_check(&upstream->stream);
}

static enum close_reason
connect_reason(int error)
{
	return error == ETIMEDOUT ? CLOSE_CONNECT_TIMEOUT : CLOSE_CONNECT_FAILED;
}

static void
connect_done(struct upstream *upstream)
{
	int error = 0;
	socklen_t length = sizeof error;

	if (getsockopt(upstream->stream.fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		error = errno;
	if (error) {
		log_debug("connect to %s: %s", upstream->server->config->text, strerror(error));
		connect_failed(upstream, connect_reason(error));
		return;
	}
	upstream->exchange->connect_tcp_ns = loop_now(upstream->loop) - upstream->connect_ns;
	if (!upstream->server->group->tls.on)
		usable(upstream);
	else if (handshake_begin(upstream) < 0)
		connect_failed(upstream, CLOSE_OUT_OF_MEMORY);
	else
		handshake_on(upstream);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct upstream *upstream = arg;

	(void)fd;
	(void)what;
	stream_writable(&upstream->stream);
	if (upstream->state == UPSTREAM_CONNECTING)
		connect_done(upstream);
	else if (upstream->state == UPSTREAM_HANDSHAKE)
		handshake_on(upstream);
	else if (upstream->state == UPSTREAM_ACTIVE)
		relay_upstream_writable(upstream->exchange);
}

static void
upstream_late(struct upstream *upstream, uint64_t now_ns)
{
	struct exchange *exchange = upstream->exchange;
	uint64_t due_ns = upstream->active_ns + exchange->bounds->response_timeout_ms * NS_PER_MS;
	/* An app that waits for the rest of a body, or whose answer we do not read, is not late;
	 * one that takes no more of the body is waited for no longer than any other. */
	bool ours = upstream->paused_ns != 0 ||
	            (exchange->request_state == DIRECTION_BODY && upstream->out.bytes == 0 &&
	             !exchange->send_failed && exchange->continue_from_ns == 0);

	if (ours)
		upstream->active_ns = now_ns;
	if (ours || now_ns < due_ns) {
		upstream_watch(upstream, now_ns);
		return;
	}
	proxy_attempt_failed(exchange, CLOSE_RESPONSE_TIMEOUT);
}

static void
on_timer(struct timer *timer, uint64_t now_ns)
{
	struct upstream *upstream =
	    (struct upstream *)(void *)((char *)timer - offsetof(struct upstream, timer));

	switch (upstream->state) {
	case UPSTREAM_RESTING:
		loop_reason(upstream->loop, CLOSE_UPSTREAM_IDLE);
		upstream_close(upstream);
		return;
	case UPSTREAM_CONNECTING:
		connect_failed(upstream, CLOSE_CONNECT_TIMEOUT);
		return;
	case UPSTREAM_HANDSHAKE:
		connect_failed(upstream, CLOSE_UPSTREAM_TLS_TIMEOUT);
		return;
	case UPSTREAM_ACTIVE:
		upstream_late(upstream, now_ns);
		return;
	case UPSTREAM_GONE:
		return;
	}
}

/* A connect that failed at once with `error`. */
static enum close_reason
connect_refused(struct server *server, int error, uint64_t now_ns)
{
	log_debug("connect to %s: %s", server->config->text, strerror(error));
	if (error == EMFILE || error == ENFILE)
		return CLOSE_NO_DESCRIPTORS; /* our own trouble, not the server's */
	group_connect_failed(server->pool->group, server->index, now_ns);
	return CLOSE_CONNECT_FAILED;
}

struct upstream *
upstream_connect(struct loop *loop, struct server *server, struct exchange *exchange,
                 enum close_reason *ret_reason)
{
	struct upstream *upstream;
	bool connected;
	int fd = net_connect(&server->address, &connected);

	if (fd < 0) {
		*ret_reason = connect_refused(server, errno, loop->now_ns);
		return NULL;
	}
	upstream = xmem_try(sizeof *upstream);
	if (!upstream) {
		close(fd);
		*ret_reason = CLOSE_OUT_OF_MEMORY;
		return NULL;
	}
	memset(upstream, 0, sizeof *upstream);
	upstream->epoch = server->epoch;
	upstream->reapable.reap = upstream_reap;
	upstream->loop = loop;
	upstream->server = server;
	upstream->exchange = exchange;
	upstream->timer.fire = on_timer;
	stream_init(&upstream->stream, loop->base, fd, on_readable, on_writable, upstream);
	board_share(&server->endpoint->board->connections, 1);
	upstream->connect_ns = loop->now_ns;
	if (connected && !server->group->tls.on) {
		connect_succeeded(upstream);
		return upstream;
	}
	/* Connected already, it is writable at once: TLS begins then. */
	upstream->state = UPSTREAM_CONNECTING;
	stream_set_writing(&upstream->stream, true);
	timer_set(&loop->wheel, &upstream->timer,
	          loop->now_ns + server->group->connect_timeout_ms * NS_PER_MS, loop->now_ns);
	return upstream;
}

int
upstream_flush(struct upstream *upstream, size_t *ret_written)
{
	return stream_write(&upstream->stream, &upstream->out, &upstream->loop->blocks,
	                    ret_written);
}

void
upstream_pause(struct upstream *upstream, uint64_t now_ns)
{
	if (upstream->paused_ns == 0)
		upstream->paused_ns = now_ns;
	stream_set_reading(&upstream->stream, false);
}

void
upstream_resume(struct upstream *upstream, uint64_t now_ns)
{
	if (upstream->paused_ns == 0)
		return;
	upstream->exchange->backpressure_ns += now_ns - upstream->paused_ns;
	upstream->paused_ns = 0;
	upstream->active_ns = now_ns;
	stream_set_reading(&upstream->stream, true);
}

void
upstream_tunnel(struct upstream *upstream)
{
	upstream->tunnel = true;
	board_share(&upstream->server->endpoint->board->tunnels, 1);
	timer_off(&upstream->timer);
}

void
upstream_watch(struct upstream *upstream, uint64_t now_ns)
{
	timer_set(&upstream->loop->wheel, &upstream->timer,
	          upstream->active_ns + upstream->exchange->bounds->response_timeout_ms * NS_PER_MS,
	          now_ns);
}

void
upstream_rest(struct upstream *upstream, uint64_t now_ns)
{
	struct loop *loop = upstream->loop;
	struct server *server = upstream->server;

	upstream_resume(upstream, now_ns);
	upstream->exchange->upstream = NULL;
	upstream->exchange = NULL;
	block_put(&loop->blocks, upstream->in);
	upstream->in = NULL;
	if (!pool_keep_idle(server, upstream)) {
		upstream_close(upstream);
		return;
	}
	upstream->state = UPSTREAM_RESTING;
	timer_set(&loop->wheel, &upstream->timer,
	          now_ns + server->group->idle_timeout_ms * NS_PER_MS, now_ns);
}
