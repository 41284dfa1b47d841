/* What OpenSSL reads from and writes to: the socket, and before it the bytes that were read
 * already. What it writes within a handshake is held, so that a flight leaves by one system call. It
 * remembers what SSL_get_error() cannot say. */
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
	char *held;              /* owned: goes out before what is written next; null = nothing */
	size_t held_length, held_room;
	bool holding; /* what is written now is held */
	bool ends;    /* the end follows at once: the last packet carries it too */
	int error;    /* errno of the last call that failed */
	bool begun;   /* a first byte was read */
	bool is_http; /* and it began a method of HTTP, not TLS */
	bool eof;     /* the peer closed its sending side */
};

/* Gives `ssl` its way out; `wire` must outlive it. -1 when memory is short. */
int tls_bio_attach(SSL *ssl, struct tls_wire *wire);

/* Sends what is held. 1: all taken by the kernel, 0: the rest waits for the socket, -1: wire->error. */
int tls_bio_flush(struct tls_wire *wire);
void tls_bio_clear(struct tls_wire *wire);

#endif
