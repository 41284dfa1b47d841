/* What OpenSSL reads from and writes to: the socket, and before it the bytes that were read
 * already. It remembers what SSL_get_error() cannot say. */
#ifndef TAILRACE_PROXY_TLS_BIO_H
#define TAILRACE_PROXY_TLS_BIO_H

#include <stdbool.h>
#include <openssl/types.h>
#include "proxy/block.h"

/* What one call may take off the socket. OpenSSL goes on reading until it has data to give: a client that
 * sends nothing but key updates would keep the loop for itself. Level-triggered events come again. */
#define TLS_CALL_BYTES_MAX (64u * 1024)

struct tls_wire {
	int fd;              /* borrowed */
	struct block *ahead; /* owned: bytes to be read before those of the socket; null = none */
	struct block_pool *pool; /* of `ahead` */
	size_t budget;           /* bytes of the socket OpenSSL may still take in this call */
	int error;               /* errno of the last call that failed */
	bool begun;              /* a first byte was read */
	bool is_http;            /* and it began a method of HTTP, not TLS */
	bool eof;                /* the peer closed its sending side */
};

/* Gives `ssl` its way out; `wire` must outlive it. -1 when memory is short. */
int tls_bio_attach(SSL *ssl, struct tls_wire *wire);

#endif
