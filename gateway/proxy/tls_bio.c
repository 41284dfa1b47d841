/* A BIO over a non-blocking socket. OpenSSL's own calls write(), which can raise SIGPIPE, and
 * cannot be given bytes that somebody else read. */
#include "proxy/tls_bio.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include "base/log.h"
#include "base/xmem.h"

#define HELD_ROOM 1024u /* a flight with a short chain; two tickets */

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static int
read_ahead(struct tls_wire *wire, char *to, size_t size)
{
	struct block *ahead = wire->ahead;
	size_t n = block_length(ahead) < size ? block_length(ahead) : size;

	memcpy(to, ahead->data + ahead->start, n);
	ahead->start += (uint32_t)n;
	if (block_length(ahead) == 0) {
		block_put(wire->pool, ahead);
		wire->ahead = NULL;
	}
	return (int)n;
}

static ssize_t
read_socket(struct tls_wire *wire, BIO *bio, char *to, size_t size)
{
	ssize_t n = -1;

	errno = EAGAIN;
	if (wire->budget > 0) {
		do
			n = recv(wire->fd, to, size, 0);
		while (n < 0 && errno == EINTR);
	}
	if (n > 0)
		wire->budget -= (size_t)n < wire->budget ? (size_t)n : wire->budget;
	if (n == 0)
		wire->eof = true;
	if (n < 0) {
		wire->error = errno;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			BIO_set_retry_read(bio);
	}
	return n;
}

/* A TLS record begins with its type, 20 to 24; a request with the letters of its method. */
static void
look_at_first(struct tls_wire *wire, char byte)
{
	wire->begun = true;
	wire->is_http = byte >= 'A' && byte <= 'Z';
}

static int
on_read(BIO *bio, char *to, int size)
{
	struct tls_wire *wire = BIO_get_data(bio);
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (size <= 0)
		return 0;
	n = wire->ahead ? read_ahead(wire, to, (size_t)size)
	                : read_socket(wire, bio, to, (size_t)size);
	if (n > 0 && !wire->begun)
		look_at_first(wire, to[0]);
	return (int)n;
}

/* -1 when memory is short: it is sent now, then. */
static int
hold(struct tls_wire *wire, const char *from, size_t size)
{
	size_t needed = wire->held_length + size;

	if (needed > wire->held_room) {
		size_t room = needed > HELD_ROOM ? 2 * needed : HELD_ROOM;
		char *more = xmem_try(room);

		if (!more)
			return -1;
		if (wire->held_length > 0)
			memcpy(more, wire->held, wire->held_length);
		free(wire->held);
		wire->held = more;
		wire->held_room = room;
	}
	memcpy(wire->held + wire->held_length, from, size);
	wire->held_length = needed;
	return 0;
}

void
tls_bio_clear(struct tls_wire *wire)
{
	free(wire->held);
	wire->held = NULL;
	wire->held_length = wire->held_room = 0;
}

static int
flags_of(const struct tls_wire *wire)
{
	return MSG_NOSIGNAL | (wire->ends ? MSG_MORE : 0);
}

/* As send(), of what is held and `from` in one call; returns how much of `from` was taken. */
static ssize_t
send_behind(struct tls_wire *wire, const char *from, size_t size)
{
	struct iovec parts[2] = {{wire->held, wire->held_length}, {(void *)(uintptr_t)from, size}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = size > 0 ? 2 : 1};
	ssize_t n = sendmsg(wire->fd, &message, flags_of(wire));

	if (n < 0)
		return n;
	if ((size_t)n >= wire->held_length) {
		n -= (ssize_t)wire->held_length;
		tls_bio_clear(wire);
		if (n > 0 || size == 0)
			return n;
	} else {
		wire->held_length -= (size_t)n;
		memmove(wire->held, wire->held + n, wire->held_length);
	}
	errno = EAGAIN;
	return -1;
}

static ssize_t
send_some(struct tls_wire *wire, const char *from, size_t size)
{
	ssize_t n;

	do
		n = wire->held_length > 0 ? send_behind(wire, from, size)
		                          : send(wire->fd, from, size, flags_of(wire));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		wire->error = errno;
	return n;
}

int
tls_bio_flush(struct tls_wire *wire)
{
	if (wire->held_length == 0 || send_some(wire, NULL, 0) == 0)
		return 1;
	return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
}

static int
on_write(BIO *bio, const char *from, int size)
{
	struct tls_wire *wire = BIO_get_data(bio);
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (size <= 0)
		return 0;
	if (wire->holding && hold(wire, from, (size_t)size) == 0)
		return size;
	n = send_some(wire, from, (size_t)size);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		BIO_set_retry_write(bio);
	return (int)n;
}

static long
on_ctrl(BIO *bio, int command, long number, void *pointer)
{
	const struct tls_wire *wire = BIO_get_data(bio);

	(void)number;
	(void)pointer;
	switch (command) {
	case BIO_CTRL_FLUSH:
		return 1; /* who holds a flight flushes it */
	case BIO_CTRL_EOF:
		return wire->eof;
	default:
		return 0;
	}
}

static void
make_method(void)
{
	int type = BIO_get_new_index();

	method = type == -1 ? NULL : BIO_meth_new(type | BIO_TYPE_SOURCE_SINK, "tailrace socket");
	if (!method || !BIO_meth_set_read(method, on_read) ||
	    !BIO_meth_set_write(method, on_write) || !BIO_meth_set_ctrl(method, on_ctrl))
		fatal("out of memory (TLS)");
}

int
tls_bio_attach(SSL *ssl, struct tls_wire *wire)
{
	BIO *bio;

	pthread_once(&method_once, make_method);
	bio = BIO_new(method);
	if (!bio)
		return -1;
	BIO_set_data(bio, wire);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio); /* owns it */
	return 0;
}
