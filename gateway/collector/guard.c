/* Counts and ages of control connections. evhttp tells of no connection's end, so the guard holds a
 * reference to each bufferevent it makes: one whose callbacks evhttp has taken off is over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <openssl/ssl.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "collector/guard.h"
#include "collector/reply.h"
#include "proxy/tls_server.h"

#define GUARD_PAGE_MAX 1024 /* bytes of a page of evhttp with its head, and more than it has */

struct guarded {
	struct guarded *next;
	struct guard *guard;
	struct bufferevent *bev; /* ref */
	struct tls_server *tls;  /* shared; null = in clear */
	uint64_t since_ns;       /* first byte of the request that is arriving; 0 = none is */
};

struct guard {
	struct event_base *base;
	struct guarded *connections;
	size_t count;
	struct evconnlistener *listeners[GUARD_LISTENERS_MAX]; /* borrowed */
	size_t limits[GUARD_LISTENERS_MAX]; /* connections of all listeners at which each rests */
	size_t listener_count;
	bool paused, closed;
	struct guard_counters counters;
};

struct guard *
guard_new(struct event_base *base, const struct guard_counters *counters)
{
	struct guard *guard = xcalloc(1, sizeof(*guard));
	guard->base = base;
	guard->counters = *counters;
	return guard;
}

static void
on_input(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	struct guarded *c = arg;
	(void)buffer;
	if (info->n_added > 0 && c->since_ns == 0)
		c->since_ns = clock_now_ns();
}

/* The error that stands for evhttp's page with this status. */
static void
error_of(int status, struct text *out)
{
	static const struct {
		int status;
		const char *code, *message;
	} known[] = {
	    {413, "too_large", "body over 2 MiB"},
	    {417, "bad_expect", "Expect other than 100-continue"},
	    {501, "unknown_method", "a method that is not known here"},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].status == status) {
			reply_error_text(out, known[i].code, known[i].message, NULL);
			return;
		}
	reply_error_text(out, "bad_request", "not HTTP as it should be, or a head over 16 KiB",
	                 NULL);
}

/* Puts our answer in the place of all that waits to be sent. Buffers of bufferevents are frozen at
 * their beginning, for nobody but the socket shall take from there. */
static void
replace_page(struct evbuffer *output, int status, const char *reason)
{
	struct text body = {0};
	error_of(status, &body);
	int length = body.failed ? 0 : (int)body.length;
	evbuffer_unfreeze(output, 1);
	evbuffer_drain(output, evbuffer_get_length(output));
	evbuffer_freeze(output, 1);
	evbuffer_add_printf(output,
	                    "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
	                    "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
	                    "Content-Length: %d\r\nConnection: close\r\n\r\n%.*s",
	                    status, reason, length, length, body.data);
	text_free(&body);
}

/* Whether `page` (NUL-terminated) is a whole answer, and one that evhttp made itself: errors of
 * ours are JSON. */
static bool
is_page(const char *page, size_t length, int *ret_status, int *ret_reason_at)
{
	static const char field[] = "\r\nContent-Length: ";
	static const char html[] = "\r\nContent-Type: text/html\r\n";
	const char *body = strstr(page, "\r\n\r\n"), *told = strstr(page, field);
	*ret_reason_at = 0;
	return sscanf(page, "HTTP/1.%*d %d %n", ret_status, ret_reason_at) == 1 &&
	       *ret_reason_at > 0 && *ret_status >= 400 && body != NULL && told != NULL &&
	       strstr(page, html) != NULL &&
	       length >= (size_t)(body + 4 - page) + strtoul(told + sizeof(field) - 1, NULL, 10);
}

/* Requests that are no HTTP, too large or of an unknown method are answered by evhttp itself with a
 * page, and nobody told (evhttp_set_errorcb() came with libevent 2.2). It stands at the head of the
 * output, and its body comes last, in one piece. */
static void
on_output(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg)
{
	struct guarded *c = arg;
	char page[GUARD_PAGE_MAX + 1];
	int status, reason_at;
	size_t length = evbuffer_get_length(buffer);
	if (info->n_added == 0 || length > GUARD_PAGE_MAX)
		return;
	evbuffer_copyout(buffer, page, length);
	page[length] = '\0';
	if (!is_page(page, length, &status, &reason_at))
		return;
	c->since_ns = 0;
	*c->guard->counters.oversized += status == 413;
	page[reason_at + (int)strcspn(page + reason_at, "\r")] = '\0';
	replace_page(buffer, status, page + reason_at);
}

/* Listeners accept or rest, each by its own limit. */
static void
set_accepting(struct guard *guard)
{
	bool paused = false;
	for (size_t i = 0; i < guard->listener_count; i++) {
		bool full = guard->count >= guard->limits[i];
		paused |= full;
		if (full || guard->closed)
			evconnlistener_disable(guard->listeners[i]);
		else
			evconnlistener_enable(guard->listeners[i]);
	}
	*guard->counters.pauses += paused && !guard->paused;
	guard->paused = paused;
}

static bool
is_over(const struct guarded *c)
{
	bufferevent_data_cb read_cb = NULL, write_cb = NULL;
	bufferevent_event_cb event_cb = NULL;
	void *arg = NULL;
	bufferevent_getcb(c->bev, &read_cb, &write_cb, &event_cb, &arg);
	return read_cb == NULL && write_cb == NULL && event_cb == NULL;
}

/* libevent 2.1.12 loses bytes of writes done in part, and does not look for bytes read ahead. */
static struct bufferevent *
make_encrypted(struct event_base *base, struct tls_server *tls)
{
	SSL *ssl = tls_server_connection(tls);
	struct bufferevent *bev;
	if (ssl == NULL)
		return NULL;
	SSL_clear_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
	SSL_set_read_ahead(ssl, 0);
	bev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
	                                     BEV_OPT_CLOSE_ON_FREE);
	if (bev == NULL)
		SSL_free(ssl);
	else
		bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	return bev;
}

/* Called by evhttp for each connection it accepts; it sets socket and callbacks afterwards. */
static struct bufferevent *
on_accept(struct event_base *base, void *arg)
{
	const struct guard_entrance *entrance = arg;
	struct guard *guard = entrance->guard;
	/* The last reference closes the socket: closed by evhttp, its number could be another
	 * connection's while this bufferevent's events still stand under it. */
	struct bufferevent *bev = entrance->tls != NULL
	                              ? make_encrypted(base, entrance->tls)
	                              : bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	if (bev == NULL)
		return NULL;
	struct guarded *c = xcalloc(1, sizeof(*c));
	c->guard = guard;
	c->bev = bev;
	c->tls = tls_server_share(entrance->tls);
	c->since_ns = entrance->tls != NULL ? clock_now_ns() : 0; /* a handshake arrives too */
	bufferevent_setwatermark(bev, EV_READ, 0, GUARD_INPUT_MAX);
	bufferevent_incref(bev);
	evbuffer_add_cb(bufferevent_get_input(bev), on_input, c);
	evbuffer_add_cb(bufferevent_get_output(bev), on_output, c);
	c->next = guard->connections;
	guard->connections = c;
	guard->count++;
	set_accepting(guard);
	return bev;
}

/* Out of descriptors, most likely: left on, it would be tried again at once and without end. The
 * next tick is soon enough. */
static void
on_accept_error(struct evconnlistener *listener, void *arg)
{
	(void)arg; /* evhttp's */
	evconnlistener_disable(listener);
}

static size_t
limit_of(struct evconnlistener *listener)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	int fd = evconnlistener_get_fd(listener);
	bool local = getsockname(fd, (struct sockaddr *)(void *)&address, &length) == 0 &&
	             address.ss_family == AF_UNIX;
	return local ? GUARD_CONNECTIONS_MAX : GUARD_TCP_MAX;
}

void
guard_watch(struct guard *guard, struct evhttp *http, struct evconnlistener *listener,
            struct guard_entrance *entrance)
{
	if (guard->listener_count >= GUARD_LISTENERS_MAX)
		fatal("control: more than %d listeners", GUARD_LISTENERS_MAX);
	entrance->guard = guard;
	evhttp_set_bevcb(http, on_accept, entrance);
	evconnlistener_set_error_cb(listener, on_accept_error);
	guard->limits[guard->listener_count] = limit_of(listener);
	guard->listeners[guard->listener_count++] = listener;
}

void
guard_unwatch(struct guard *guard, struct evconnlistener *listener)
{
	for (size_t i = 0; i < guard->listener_count; i++) {
		if (guard->listeners[i] != listener)
			continue;
		guard->listener_count--;
		guard->listeners[i] = guard->listeners[guard->listener_count];
		guard->limits[i] = guard->limits[guard->listener_count];
		return;
	}
}

void
guard_arrived(struct guard *guard, struct evhttp_request *request)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(request);
	struct bufferevent *bev = evhttp_connection_get_bufferevent(connection);
	for (struct guarded *c = guard->connections; c != NULL; c = c->next)
		if (c->bev == bev)
			c->since_ns = 0;
}

size_t
guard_connections(const struct guard *guard)
{
	return guard->count;
}

static void
forget(struct guard *guard, struct guarded **at)
{
	struct guarded *c = *at;
	*at = c->next;
	guard->count--;
	evbuffer_remove_cb(bufferevent_get_input(c->bev), on_input, c);
	evbuffer_remove_cb(bufferevent_get_output(c->bev), on_output, c);
	bufferevent_decref(c->bev);
	tls_server_close(c->tls);
	free(c);
}

void
guard_tick(struct guard *guard, uint64_t now_ns)
{
	struct guarded **at = &guard->connections;
	while (*at != NULL) {
		struct guarded *c = *at;
		if (is_over(c)) {
			forget(guard, at);
			continue;
		}
		if (c->since_ns != 0 && now_ns > c->since_ns &&
		    now_ns - c->since_ns > GUARD_REQUEST_MS * NS_PER_MS) {
			/* evhttp reads the end and closes. */
			++*guard->counters.timeouts;
			c->since_ns = 0;
			shutdown(bufferevent_getfd(c->bev), SHUT_RDWR);
		}
		at = &c->next;
	}
	set_accepting(guard);
}

void
guard_close_listeners(struct guard *guard)
{
	guard->closed = true;
	set_accepting(guard);
}

void
guard_free(struct guard *guard)
{
	if (guard == NULL)
		return;
	while (guard->connections != NULL)
		forget(guard, &guard->connections);
	free(guard);
}
