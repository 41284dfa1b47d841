/* Sockets and their events. */
#include "proxy/stream.h"

#include <unistd.h>

void
stream_init(struct stream *stream, struct event_base *base, int fd, event_callback_fn on_readable,
            event_callback_fn on_writable, void *owner)
{
	stream->fd = fd;
	stream->reading = stream->writing = stream->ends = false;
	stream->tls = NULL;
	event_assign(&stream->on_read, base, fd, EV_READ | EV_PERSIST, on_readable, owner);
	event_assign(&stream->on_write, base, fd, EV_WRITE | EV_PERSIST, on_writable, owner);
}

void
stream_set_reading(struct stream *stream, bool on)
{
	if (stream->reading == on)
		return;
	stream->reading = on;
	if (!on) {
		event_del(&stream->on_read);
		return;
	}
	event_add(&stream->on_read, NULL);
	stream_check(stream); /* what was left when reading paused */
}

void
stream_set_writing(struct stream *stream, bool on)
{
	on = on || (stream->tls && tls_wants_write(stream->tls));
	if (stream->writing == on)
		return;
	stream->writing = on;
	if (on)
		event_add(&stream->on_write, NULL);
	else
		event_del(&stream->on_write);
}

int
stream_write(struct stream *stream, struct queue *queue, struct block_pool *pool,
             size_t *ret_written)
{
	int done = stream->tls ? tls_write(stream->tls, queue, pool, ret_written)
	                       : queue_write(queue, pool, stream->fd, stream->ends, ret_written);

	stream_set_writing(stream, done == 0);
	return done;
}

int
stream_shutdown(struct stream *stream)
{
	if (stream->tls)
		tls_end(stream->tls);
	return shutdown(stream->fd, SHUT_WR);
}

static void
drop(struct stream *stream)
{
	if (stream->tls)
		tls_free(stream->tls);
	stream->tls = NULL;
	stream_set_reading(stream, false);
	stream_set_writing(stream, false);
	close(stream->fd);
	stream->fd = -1;
}

void
stream_close(struct stream *stream)
{
	if (stream->fd == -1)
		return;
	if (stream->tls)
		tls_end(stream->tls);
	drop(stream);
}

void
stream_reset(struct stream *stream)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (stream->fd == -1)
		return;
	setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	drop(stream);
}
