/* A BIO over a non-blocking socket. OpenSSL's own calls write(), which can raise SIGPIPE, and
 * cannot be given bytes that somebody else read. */
#include "proxy/tls_bio.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <openssl/bio.h>
#include <openssl/ssl.h>
#include "base/log.h"

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

static int
on_write(BIO *bio, const char *from, int size)
{
	struct tls_wire *wire = BIO_get_data(bio);
	ssize_t n;

	BIO_clear_retry_flags(bio);
	if (size <= 0)
		return 0;
	do
		n = send(wire->fd, from, (size_t)size, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		wire->error = errno;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			BIO_set_retry_write(bio);
	}
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
		return 1; /* nothing is kept back */
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
