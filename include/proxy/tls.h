/* TLS on one connection, over OpenSSL and a non-blocking socket. A stream's reads and writes come
 * here where it has one; the thread of its loop only. */
#ifndef TAILRACE_PROXY_TLS_H
#define TAILRACE_PROXY_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <openssl/types.h>
#include "model/close_reason.h"
#include "proxy/block.h"

struct loop;
struct stream;
struct tls;

/* Takes over `ssl` and makes the stream one of TLS. `ahead` (taken too, may be null) are bytes that
 * were read from the socket before. -1 when memory is short. */
int tls_start(struct loop *loop, struct stream *stream, SSL *ssl, struct block *ahead);

/* Goes on with the handshake as far as the socket lets it. 1: done, 0: waits (the events it waits
 * for are armed), -1 with *ret_reason: it failed, and the peer was told so. */
int tls_handshake(struct tls *tls, enum close_reason *ret_reason);

/* Why the handshake failed, for the log: static text or OpenSSL's. */
const char *tls_fault(const struct tls *tls);

bool tls_is_13(const struct tls *tls);
bool tls_is_resumed(const struct tls *tls);

/* As stream_read(). 0 only after the peer's close_notify; errno ENODATA: it closed without one, so
 * that something may be missing; EPROTO: what came is no good TLS. */
ssize_t tls_read(struct tls *tls, void *to, size_t room);

/* Whether bytes were read from the socket that tls_read() has not given yet: no event tells of
 * them. */
bool tls_pending(const struct tls *tls);

/* As queue_write(). A record carries up to 16 KiB of what is queued, several blocks where they are
 * small. */
int tls_write(struct tls *tls, struct queue *queue, struct block_pool *pool, size_t *ret_written);

/* Runs the stream's reader again after this turn, as pending bytes need. */
void tls_again(struct tls *tls);
void tls_run_again(struct loop *loop);

/* The socket can be written to: a read that waited for that goes on. */
void tls_writable(struct tls *tls);

/* Whether EV_WRITE must stay for a read that waits for it. */
bool tls_wants_write(const struct tls *tls);

/* Sends close_notify, once, where the state allows it. Nothing is read or written afterwards. */
void tls_end(struct tls *tls);

/* Frees it; without tls_end() the peer sees an abort. */
void tls_free(struct tls *tls);

#endif
