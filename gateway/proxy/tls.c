/* Handshake, records and end of one TLS connection. OpenSSL's error queue is emptied wherever it
 * was filled, so that it need not be before each call. */
#include "proxy/tls.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include "base/xmem.h"
#include "proxy/loop.h"
#include "proxy/stream.h"
#include "proxy/tls_bio.h"
#include "proxy/tls_reason.h"

#define RECORD_MAX 16384u /* plain bytes of one record (RFC 8446 5.1) */

struct tls {
	SSL *ssl;
	struct loop *loop;
	struct stream *stream;
	struct tls *again_next, **again_link; /* loop->again; link null = not on it */
	struct tls_wire wire;
	const char *fault;
	bool starved;      /* what is buffered is no whole record */
	bool read_blocked; /* the last read needs EV_WRITE first */
	bool half_sent;    /* a record left in part: nothing else may be sent before its rest */
	bool broken;       /* after a fault OpenSSL allows no close_notify */
	bool ended;        /* by us */
};

int
tls_start(struct loop *loop, struct stream *stream, SSL *ssl, struct block *ahead)
{
	struct tls *tls = xmem_try(sizeof *tls);

	if (tls)
		*tls = (struct tls){.ssl = ssl, .loop = loop, .stream = stream, .fault = ""};
	if (!tls || tls_bio_attach(ssl, &tls->wire) != 0) {
		SSL_free(ssl);
		free(tls);
		block_put(&loop->blocks, ahead);
		return -1;
	}
	tls->wire = (struct tls_wire){.fd = stream->fd, .ahead = ahead, .pool = &loop->blocks};
	stream->tls = tls;
	return 0;
}

void
tls_free(struct tls *tls)
{
	if (tls->again_link) {
		*tls->again_link = tls->again_next;
		if (tls->again_next)
			tls->again_next->again_link = tls->again_link;
	}
	/* A session is as good as before however its connection ended. */
	SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(tls->ssl);
	block_put(tls->wire.pool, tls->wire.ahead);
	tls_bio_clear(&tls->wire);
	free(tls);
}

/* --- handshake ----------------------------------------------------------------------------- */

static int
handshake_failed(struct tls *tls, enum close_reason *ret_reason)
{
	tls->broken = true;
	*ret_reason = tls_reason(tls->ssl, &tls->wire, &tls->fault);
	ERR_clear_error();
	return -1;
}

/* All that a server of TLS 1.3 writes after the client's last message is tickets: they leave with
 * the first answer, and cost no packet of their own. */
static bool
only_tickets_held(const SSL *ssl)
{
	return SSL_is_server(ssl) && SSL_version(ssl) == TLS1_3_VERSION;
}

int
tls_handshake(struct tls *tls, enum close_reason *ret_reason)
{
	int n, kind, sent;

	tls->wire.budget = TLS_CALL_BYTES_MAX;
	tls->wire.holding = true;
	n = SSL_do_handshake(tls->ssl);
	kind = SSL_get_error(tls->ssl, n);
	tls->wire.holding = false;
	sent = n == 1 && only_tickets_held(tls->ssl) ? 1 : tls_bio_flush(&tls->wire);
	if (sent < 0 || (n != 1 && kind != SSL_ERROR_WANT_READ && kind != SSL_ERROR_WANT_WRITE))
		return handshake_failed(tls, ret_reason);
	if (sent == 0 || kind == SSL_ERROR_WANT_WRITE) {
		/* Unread bytes are no reason to wake up before. */
		stream_set_reading(tls->stream, false);
		stream_set_writing(tls->stream, true);
		return 0;
	}
	tls->starved = n != 1;
	stream_set_writing(tls->stream, false);
	stream_set_reading(tls->stream, true);
	return n == 1;
}

const char *
tls_fault(const struct tls *tls)
{
	return tls->fault;
}

bool
tls_is_13(const struct tls *tls)
{
	return SSL_version(tls->ssl) == TLS1_3_VERSION;
}

bool
tls_is_resumed(const struct tls *tls)
{
	return SSL_session_reused(tls->ssl) == 1;
}

/* --- reading ------------------------------------------------------------------------------- */

/* What a failed read means, as errno. */
static int
read_error(struct tls *tls, int kind)
{
	unsigned long code = ERR_peek_error();
	bool cut = ERR_GET_LIB(code) == ERR_LIB_SSL &&
	           ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;

	tls->broken = true;
	ERR_clear_error();
	if (cut || tls->wire.eof)
		return ENODATA;
	if (kind == SSL_ERROR_SYSCALL && tls->wire.error != 0)
		return tls->wire.error;
	if (SSL_is_server(tls->ssl))
		loop_reason(tls->loop, CLOSE_TLS_FAULT);
	return EPROTO;
}

static ssize_t
read_stopped(struct tls *tls, int n)
{
	int kind = SSL_get_error(tls->ssl, n);

	switch (kind) {
	case SSL_ERROR_ZERO_RETURN:
		tls->starved = true;
		return 0;
	case SSL_ERROR_WANT_READ:
		tls->starved = true;
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_WANT_WRITE: /* the answer to a key update does not fit the socket */
		tls->read_blocked = true;
		stream_set_writing(tls->stream, true);
		errno = EAGAIN;
		return -1;
	default:
		tls->starved = true;
		errno = read_error(tls, kind);
		return -1;
	}
}

ssize_t
tls_read(struct tls *tls, void *to, size_t room)
{
	int n;

	if (tls->broken || tls->ended) {
		errno = ENODATA;
		return -1;
	}
	tls->wire.budget = TLS_CALL_BYTES_MAX;
	n = SSL_read(tls->ssl, to, room > INT_MAX ? INT_MAX : (int)room);
	if (n <= 0)
		return read_stopped(tls, n);
	tls->starved = false;
	return n;
}

bool
tls_pending(const struct tls *tls)
{
	return !tls->starved && !tls->read_blocked && !tls->ended && !tls->broken &&
	       (tls->wire.ahead || SSL_has_pending(tls->ssl));
}

void
tls_again(struct tls *tls)
{
	struct loop *loop = tls->loop;

	if (tls->again_link)
		return;
	tls->again_next = loop->again;
	tls->again_link = &loop->again;
	if (loop->again)
		loop->again->again_link = &tls->again_next;
	loop->again = tls;
}

void
tls_run_again(struct loop *loop)
{
	struct tls *list = loop->again;

	loop->again = NULL;
	if (list)
		list->again_link = &list; /* a callback may close any of them */
	while (list) {
		struct tls *tls = list;
		struct stream *stream = tls->stream;

		list = tls->again_next;
		if (list)
			list->again_link = &list;
		tls->again_next = NULL;
		tls->again_link = NULL;
		if (stream->reading && tls_pending(tls))
			event_get_callback (&stream->on_read)(
			    stream->fd, EV_READ, event_get_callback_arg(&stream->on_read));
	}
}

void
tls_writable(struct tls *tls)
{
	if (!tls->read_blocked)
		return;
	tls->read_blocked = false;
	tls->starved = false;
	tls_again(tls);
}

bool
tls_wants_write(const struct tls *tls)
{
	return tls->read_blocked;
}

/* --- writing ------------------------------------------------------------------------------- */

/* What the next record carries: the first block as it is, or, where that is small and not the last,
 * the beginning of all. A later try after a half-sent record finds the same bytes at its beginning,
 * for queues grow at their end only. */
static size_t
gather(const struct queue *queue, const char **ret_bytes)
{
	static _Thread_local char record[RECORD_MAX];
	const struct block *block = queue->first;
	size_t length = 0;

	*ret_bytes = block->data + block->start;
	if (!block->next || block_length(block) >= RECORD_MAX / 2)
		return block_length(block);
	for (; block && length < RECORD_MAX; block = block->next) {
		size_t n = block_length(block);

		if (n > RECORD_MAX - length)
			n = RECORD_MAX - length;
		memcpy(record + length, block->data + block->start, n);
		length += n;
	}
	*ret_bytes = record;
	return length;
}

static int
write_stopped(struct tls *tls, int n)
{
	int kind = SSL_get_error(tls->ssl, n);

	if (kind == SSL_ERROR_WANT_WRITE) {
		tls->half_sent = true;
		return 0;
	}
	tls->broken = true;
	ERR_clear_error();
	errno = kind == SSL_ERROR_SYSCALL && tls->wire.error != 0 ? tls->wire.error : EPROTO;
	return -1;
}

int
tls_write(struct tls *tls, struct queue *queue, struct block_pool *pool, size_t *ret_written)
{
	*ret_written = 0;
	if (queue->first && (tls->broken || tls->ended)) {
		errno = EPIPE;
		return -1;
	}
	tls->wire.ends = tls->stream->ends;
	while (queue->first) {
		const char *bytes;
		size_t length = gather(queue, &bytes);
		int n = SSL_write(tls->ssl, bytes, length > INT_MAX ? INT_MAX : (int)length);

		if (n <= 0)
			return write_stopped(tls, n);
		tls->half_sent = false;
		queue_taken(queue, pool, (size_t)n);
		*ret_written += (size_t)n;
	}
	return 1;
}

void
tls_end(struct tls *tls)
{
	if (!tls->ended && !tls->broken && !tls->half_sent && SSL_is_init_finished(tls->ssl)) {
		tls->wire.ends = true;
		/* 0: ours is out, the peer's is not waited for. Else the socket is full or gone. */
		if (SSL_shutdown(tls->ssl) < 0)
			ERR_clear_error();
	}
	tls->ended = true;
}
