/* PROXY header, then TLS handshake, then requests. */
#include "proxy/opening.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <openssl/ssl.h>
#include "base/log.h"
#include "model/proxy_header.h"
#include "proxy/client.h"
#include "proxy/tls_contexts.h"
#include "proxy/tls_server.h"

#define HANDSHAKE_PATIENCE_NS NS_PER_S /* how old one must be to make room for the next */

/* --- handshakes under way ------------------------------------------------------------------ */

static void
handshakes_add(struct client *client)
{
	struct loop *loop = client->loop;

	client->handshake_before = loop->handshakes_last;
	client->handshake_next = NULL;
	if (loop->handshakes_last)
		loop->handshakes_last->handshake_next = client;
	else
		loop->handshakes = client;
	loop->handshakes_last = client;
	loop->handshake_count++;
	loop_gauge(&loop->board->tls_handshakes, 1);
}

void
opening_end(struct client *client)
{
	struct loop *loop = client->loop;

	if (client->opening == OPENING_HANDSHAKE) {
		if (client->handshake_before)
			client->handshake_before->handshake_next = client->handshake_next;
		else
			loop->handshakes = client->handshake_next;
		if (client->handshake_next)
			client->handshake_next->handshake_before = client->handshake_before;
		else
			loop->handshakes_last = client->handshake_before;
		loop->handshake_count--;
		loop_gauge(&loop->board->tls_handshakes, -1);
	}
	client->opening = OPENING_NOTHING;
}

/* Room for one more. Whoever dawdles goes first, so that silent connections keep nobody out; a
 * crowd of new ones is served in order and the surplus refused, so that no work is thrown away half
 * done. */
static bool
make_room(struct loop *loop, uint64_t now_ns)
{
	uint32_t limit = loop->config->limits.tls_handshakes / loop->config->worker.threads;
	struct client *oldest = loop->handshakes;

	if (loop->handshake_count < (limit > 0 ? limit : 1))
		return true;
	if (now_ns - oldest->ended_ns < HANDSHAKE_PATIENCE_NS) /* since it was accepted */
		return false;
	client_close(oldest, CLOSE_TLS_LIMIT);
	return true;
}

/* --- TLS ------------------------------------------------------------------------------------ */

static void
handshake_done(struct client *client)
{
	static const enum counter counters[2][2] = {
	    {COUNTER_TLS_CLIENT_12_FULL, COUNTER_TLS_CLIENT_12_RESUMED},
	    {COUNTER_TLS_CLIENT_13_FULL, COUNTER_TLS_CLIENT_13_RESUMED}};
	const struct tls *tls = client->stream.tls;
	uint64_t now_ns = loop_now(client->loop);

	loop_count(client->loop, counters[tls_is_13(tls)][tls_is_resumed(tls)], 1);
	opening_end(client);
	client->handshake_ns = now_ns - client->handshake_ns;
	client_opened(client, now_ns);
}

/* In clear, for that is what this client speaks. */
static void
refuse_in_clear(struct client *client)
{
	static const char body[] = "{\"error\":{\"code\":\"tls_plain_http\",\"message\":\"a "
	                           "request in clear where TLS is spoken: use https\"}}\n";
	char answer[512];
	int n = snprintf(answer, sizeof answer,
	                 "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
	                 "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
	                 sizeof body - 1, body);

	/* The socket's buffer is empty yet: it takes all of it, or the peer is gone. */
	if (send(client->stream.fd, answer, (size_t)n, MSG_NOSIGNAL) < 0)
		log_debug("client %s: %s", client->ip, strerror(errno));
}

static void
handshake_on(struct client *client)
{
	enum close_reason reason = CLOSE_TLS_FAILED;

	if (client->handshake_ns == 0) /* its first bytes are there */
		client->handshake_ns = loop_now(client->loop);
	switch (tls_handshake(client->stream.tls, &reason)) {
	case 1:
		handshake_done(client);
		return;
	case 0:
		return;
	default:
		break;
	}
	log_debug("client %s: %s: %s", client->ip, close_reason_name(reason),
	          tls_fault(client->stream.tls));
	if (reason == CLOSE_TLS_PLAIN_HTTP)
		refuse_in_clear(client);
	if (reason == CLOSE_TLS_CUT)
		client_close(client, reason);
	else
		client_linger(client, reason, loop_now(client->loop)); /* the alert must arrive */
}

/* `client->in` holds what came behind a PROXY header, or is null. False where the client is gone.
 */
static bool
handshake_begin(struct client *client, const struct tls_server *server, uint64_t now_ns)
{
	struct block *ahead = client->in;
	SSL *ssl;

	if (!make_room(client->loop, now_ns)) {
		client_close(client, CLOSE_TLS_LIMIT);
		return false;
	}
	ssl = tls_server_connection(server);
	client->in = NULL;
	if (!ssl || tls_start(client->loop, &client->stream, ssl, ahead) != 0) {
		client_close(client, CLOSE_OUT_OF_MEMORY);
		return false;
	}
	client->opening = OPENING_HANDSHAKE;
	handshakes_add(client);
	return true;
}

/* --- PROXY header --------------------------------------------------------------------------- */

static void
header_done(struct client *client, const struct proxy_header *header)
{
	const struct tls_server *server =
	    tls_contexts_listener(client->loop->tls, client->listener);
	struct block *in = client->in;

	if (header->has_source) {
		client_set_peer(client, &header->source);
		if (!client_count_address(client)) {
			client_close(client, CLOSE_ADDRESS_LIMIT);
			return;
		}
	}
	in->start += (uint32_t)header->length;
	if (block_length(in) == 0) {
		block_put(&client->loop->blocks, in);
		client->in = NULL;
	} else {
		block_compact(in);
	}
	opening_end(client);
	if (!server)
		client_opened(client, client->loop->now_ns);
	else if (handshake_begin(client, server, client->loop->now_ns))
		handshake_on(client);
}

static void
header_take(struct client *client)
{
	struct proxy_header header;
	struct block *in = client->in;

	switch (proxy_header_parse(in->data + in->start, block_length(in), &header)) {
	case PROXY_HEADER_MORE:
		return;
	case PROXY_HEADER_DONE:
		header_done(client, &header);
		return;
	case PROXY_HEADER_TOO_LARGE:
		client_reset(client, CLOSE_PROXY_HEADER_TOO_LARGE);
		return;
	case PROXY_HEADER_BAD:
		client_reset(client, CLOSE_PROXY_HEADER_BAD);
		return;
	}
}

/* In clear always: the header comes before TLS. */
static void
header_readable(struct client *client)
{
	struct loop *loop = client->loop;
	ssize_t n;

	if (!client->in)
		client->in = block_get(&loop->blocks, 0);
	if (!client->in) {
		client_reset(client, CLOSE_OUT_OF_MEMORY);
		return;
	}
	n = stream_read(&client->stream, client->in->data + client->in->end,
	                block_room(client->in));
	if (n > 0) {
		loop_now(loop);
		client->in->end += (uint32_t)n;
		header_take(client);
	} else if (n == 0 && block_length(client->in) == 0) {
		client_close(client, CLOSE_CLIENT_CLOSED); /* a load balancer's health check */
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		client_close(client, CLOSE_PROXY_HEADER_CUT);
	}
}

/* --- events --------------------------------------------------------------------------------- */

void
opening_begin(struct client *client, uint64_t now_ns)
{
	const struct config_listener *listener = client->listener;
	const struct tls_server *server = tls_contexts_listener(client->loop->tls, listener);

	if (!listener->proxy_protocol && !server)
		return;
	client->state = CLIENT_OPENING;
	if (!listener->proxy_protocol) {
		handshake_begin(client, server, now_ns);
		return;
	}
	client->opening = OPENING_PROXY_HEADER;
	if (listener->trusted_proxies.mode == CONFIG_LIST && !client->trusted_proxy)
		client_reset(client, CLOSE_PROXY_HEADER_UNTRUSTED);
}

void
opening_readable(struct client *client)
{
	if (client->opening == OPENING_PROXY_HEADER)
		header_readable(client);
	else
		handshake_on(client);
}

void
opening_writable(struct client *client)
{
	if (client->opening == OPENING_HANDSHAKE)
		handshake_on(client);
}

void
opening_late(struct client *client, uint64_t now_ns)
{
	(void)now_ns;
	client_close(client, client->opening == OPENING_PROXY_HEADER ? CLOSE_PROXY_HEADER_TIMEOUT
	                                                             : CLOSE_TLS_TIMEOUT);
}
