/* Own accept loop: bounded, and paused where the kernel or the config says that it is enough. */
#include "proxy/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/log.h"
#include "base/xmem.h"
#include "proxy/address_count.h"
#include "proxy/client.h"
#include "proxy/kernel_time.h"

static void
listener_pause(struct listener *listener)
{
	if (listener->accepting)
		event_del(&listener->event);
	listener->accepting = false;
}

static void
listener_resume(struct listener *listener)
{
	if (listener->accepting || listener->fd < 0 || listener->loop->draining)
		return;
	listener->full = false;
	listener->accepting = event_add(&listener->event, NULL) == 0;
}

static void
on_retry(struct timer *timer, uint64_t now_ns)
{
	struct listener *listener =
	    (struct listener *)(void *)((char *)timer - offsetof(struct listener, retry));

	(void)now_ns;
	listener_resume(listener);
}

static void
accept_failed(struct listener *listener, int error)
{
	struct loop *loop = listener->loop;
	uint64_t now_ns = loop_now(loop), left_out;
	char more[LOG_LEFT_OUT_SIZE];

	if (error != EMFILE && error != ENFILE && error != ENOBUFS && error != ENOMEM)
		return; /* one connection's own failure (ECONNABORTED...): the next may do */
	loop_reason(loop, CLOSE_NO_DESCRIPTORS);
	if (log_limit_allows(&listener->log_limit, now_ns, &left_out))
		log_warn("accept: %s; paused for %d ms%s", strerror(error),
		         (int)(ACCEPT_RETRY_NS / NS_PER_MS), log_left_out(left_out, more));
	listener_pause(listener);
	timer_set(&loop->wheel, &listener->retry, now_ns + ACCEPT_RETRY_NS, now_ns);
}

/* This address has its share: a short answer (not where TLS is spoken), and the end. It goes out
 * before anything was read, so it may be lost to a client that sends at once; the reason is counted
 * all the same. */
static void
refuse(struct loop *loop, int fd, bool clear)
{
	static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\n"
	                             "Content-Type: text/plain; charset=utf-8\r\n"
	                             "Content-Length: 43\r\nRetry-After: 1\r\n"
	                             "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
	                             "503 too many connections from this address\n";

	loop_reason(loop, CLOSE_ADDRESS_LIMIT);
	shared_return_client(loop->shared);
	if (clear)
		send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
}

/* For a connection that is counted already. False when there is nothing more to accept now. */
static bool
accept_one(struct listener *listener)
{
	struct loop *loop = listener->loop;
	struct sockaddr_storage storage;
	socklen_t length = sizeof storage;
	struct net_address peer;
	/* Behind a PROXY header the address is known later. */
	size_t each =
	    listener->config->proxy_protocol ? 0 : loop->config->limits.connections_per_address;
	int fd = accept4(listener->fd, (struct sockaddr *)(void *)&storage, &length,
	                 SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		shared_return_client(loop->shared);
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			accept_failed(listener, errno);
		return errno == EINTR || errno == ECONNABORTED;
	}
	net_address_from((struct sockaddr *)(void *)&storage, length, &peer);
	loop_count(loop, COUNTER_CONNECTIONS_ACCEPTED, 1);
	if (each > 0 && !address_enter(&peer, each))
		refuse(loop, fd, !listener->config->tls.on);
	else
		client_accept(loop, listener->config, fd, &peer, each > 0);
	return true;
}

/* Stops until a client of this loop goes; one of another loop is not heard of, so look again. */
static void
listener_full(struct listener *listener)
{
	struct loop *loop = listener->loop;
	uint64_t now_ns = loop_now(loop);

	listener->full = true;
	listener_pause(listener);
	loop_reason(loop, CLOSE_CONNECTION_LIMIT);
	if (loop->config->worker.threads > 1)
		timer_set(&loop->wheel, &listener->retry, now_ns + ACCEPT_RETRY_NS, now_ns);
}

static void
on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	struct listener *listener = arg;
	struct loop *loop = listener->loop;

	(void)fd;
	(void)what;
	for (int i = 0; i < ACCEPTS_PER_WAKEUP; i++) {
		if (!shared_take_client(loop->shared)) {
			listener_full(listener);
			return;
		}
		if (!accept_one(listener))
			return;
	}
}

int
listeners_start(struct loop *loop, const int *fds, const uint16_t *of, size_t count)
{
	int on = 1;

	loop->listeners = xcalloc(count, sizeof *loop->listeners);
	loop->listener_count = count;
	for (size_t i = 0; i < count; i++) {
		struct listener *listener = &loop->listeners[i];

		listener->loop = loop;
		listener->config = &loop->config->listeners[of[i]];
		listener->fd = fds[i];
		listener->retry.fire = on_retry;
		/* accepted sockets inherit it; no such option on unix sockets */
		setsockopt(listener->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		/* Inherited too; and taken back where a generation before had set it. */
		kernel_time_receipts(listener->fd, loop->config->overlays.kernel_in);
		if (net_set_nonblocking(listener->fd) < 0 ||
		    event_assign(&listener->event, loop->base, listener->fd, EV_READ | EV_PERSIST,
		                 on_acceptable, listener) < 0)
			return -1;
		listener_resume(listener);
		if (!listener->accepting)
			return -1;
	}
	return 0;
}

void
listeners_resume(struct loop *loop)
{
	for (size_t i = 0; i < loop->listener_count; i++)
		if (loop->listeners[i].full)
			listener_resume(&loop->listeners[i]);
}

void
listeners_close(struct loop *loop)
{
	for (size_t i = 0; i < loop->listener_count; i++) {
		struct listener *listener = &loop->listeners[i];

		if (listener->fd < 0)
			continue;
		listener_pause(listener);
		timer_remove(&loop->wheel, &listener->retry);
		while (shared_take_client(loop->shared) && accept_one(listener))
			;
		timer_remove(&loop->wheel, &listener->retry);
		close(listener->fd);
		listener->fd = -1;
	}
	free(loop->listeners);
	loop->listeners = NULL;
	loop->listener_count = 0;
}
