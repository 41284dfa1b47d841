/* One socket of the data path and its two events. What reads and writes here knows neither whether
 * bytes are encrypted nor when libevent hears of them. One loop's thread. */
#ifndef TAILRACE_PROXY_STREAM_H
#define TAILRACE_PROXY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include "proxy/block.h"
#include "proxy/tls.h"

struct stream {
	int fd;                /* -1 = closed */
	bool reading, writing; /* events armed */
	bool ends;             /* what is queued is the last, and the end follows it at once */
	struct tls *tls;       /* owned; null = in clear */
	struct event on_read, on_write;
};

/* Takes over `fd`. Both events are persistent, level-triggered and not armed yet; `owner` is their
 * argument. */
void stream_init(struct stream *stream, struct event_base *base, int fd,
                 event_callback_fn on_readable, event_callback_fn on_writable, void *owner);

void stream_set_reading(struct stream *stream, bool on);
void stream_set_writing(struct stream *stream, bool on);

/* As recv(): bytes read, 0 at the end that the peer meant, -1 with errno. EAGAIN: nothing now. With
 * TLS, ENODATA: the connection was closed without the end of what it carries; EPROTO: no good TLS.
 */
static inline ssize_t
stream_read(struct stream *stream, void *to, size_t room)
{
	if (stream->tls)
		return tls_read(stream->tls, to, room);
	return recv(stream->fd, to, room, 0);
}

/* Whether a read that gave `n` of the `asked` bytes took all there was: another one now would only
 * say EAGAIN. */
static inline bool
stream_drained(const struct stream *stream, size_t n, size_t asked)
{
	return n < asked && !(stream->tls && tls_pending(stream->tls));
}

/* Called last by a reader's callback: bytes that TLS holds already are read after this turn, for no
 * event tells of them. */
static inline void
stream_check(struct stream *stream)
{
	if (stream->tls && stream->reading && tls_pending(stream->tls))
		tls_again(stream->tls);
}

/* Called first by a writer's callback. */
static inline void
stream_writable(struct stream *stream)
{
	if (stream->tls)
		tls_writable(stream->tls);
}

/* Writes what is queued. 1: all taken by the kernel, 0: the rest waits for EV_WRITE, -1 with errno.
 * *ret_written counts the bytes taken. Arms EV_WRITE while something waits. */
int stream_write(struct stream *stream, struct queue *queue, struct block_pool *pool,
                 size_t *ret_written);

/* Says that nothing more will be written, and with TLS reads nothing more either: what still comes
 * is to be discarded from the socket. -1 where the peer is gone. */
int stream_shutdown(struct stream *stream);

/* The end: by FIN, or so that the peer sees an abort (RST). Repeatable. */
void stream_close(struct stream *stream);
void stream_reset(struct stream *stream);

#endif
