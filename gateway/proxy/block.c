/* Pooled blocks, chunk framing in place, gathered writes. */
#include "proxy/block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "base/xmem.h"

#define BLOCK_CAPACITY (BLOCK_SIZE - sizeof(struct block))
#define BLOCK_LONG_CAPACITY (BLOCK_LONG_SIZE - sizeof(struct block))
#define WRITE_BLOCKS_MAX 8

/* One of a size that is not the standard one. Null: the pool has none. */
static struct block *
take_long(struct block_pool *pool, size_t capacity)
{
	struct block *block = pool->free_long;

	if (capacity != BLOCK_LONG_CAPACITY || !block)
		return NULL;
	pool->free_long = block->next;
	pool->long_count--;
	return block;
}

struct block *
block_get(struct block_pool *pool, size_t room)
{
	size_t capacity = BLOCK_CAPACITY;
	struct block *block = pool->free;

	if (room > BLOCK_CAPACITY - BLOCK_HEADROOM - BLOCK_TAILROOM) {
		capacity = room + BLOCK_HEADROOM + BLOCK_TAILROOM;
		block = take_long(pool, capacity);
	} else if (block) {
		pool->free = block->next;
		pool->free_count--;
	}
	if (!block) {
		block = xmem_try(sizeof *block + capacity);
		if (!block)
			return NULL;
		block->capacity = (uint32_t)capacity;
	}
	pool->in_use++;
	block->next = NULL;
	block->start = block->end = BLOCK_HEADROOM;
	return block;
}

void
block_put(struct block_pool *pool, struct block *block)
{
	if (!block)
		return;
	pool->in_use--;
	if (block->capacity == BLOCK_LONG_CAPACITY && pool->long_count < BLOCK_LONG_MAX) {
		block->next = pool->free_long;
		pool->free_long = block;
		pool->long_count++;
		return;
	}
	if (block->capacity != BLOCK_CAPACITY || pool->free_count >= BLOCK_POOL_MAX) {
		free(block);
		return;
	}
	block->next = pool->free;
	pool->free = block;
	pool->free_count++;
}

static void
free_all(struct block **list)
{
	while (*list) {
		struct block *next = (*list)->next;

		free(*list);
		*list = next;
	}
}

void
block_pool_clear(struct block_pool *pool)
{
	free_all(&pool->free);
	free_all(&pool->free_long);
	pool->free_count = pool->long_count = 0;
}

void
block_compact(struct block *block)
{
	size_t length = block_length(block);

	memmove(block->data + BLOCK_HEADROOM, block->data + block->start, length);
	block->start = BLOCK_HEADROOM;
	block->end = (uint32_t)(BLOCK_HEADROOM + length);
}

void
block_frame_chunk(struct block *block, int last)
{
	size_t length = block_length(block);

	if (length > 0) {
		char *p = block->data + block->start;

		*--p = '\n';
		*--p = '\r';
		for (size_t n = length; n > 0; n >>= 4)
			*--p = "0123456789abcdef"[n & 15];
		block->start = (uint32_t)(p - block->data);
		memcpy(block->data + block->end, "\r\n", 2);
		block->end += 2;
	}
	if (last) {
		memcpy(block->data + block->end, "0\r\n\r\n", 5);
		block->end += 5;
	}
}

void
queue_push(struct queue *queue, struct block_pool *pool, struct block *block)
{
	size_t length = block_length(block);

	if (length == 0) {
		block_put(pool, block);
		return;
	}
	if (queue->last && queue_merge(queue, block->data + block->start, length)) {
		block_put(pool, block);
		return;
	}
	block->next = NULL;
	if (queue->last)
		queue->last->next = block;
	else
		queue->first = block;
	queue->last = block;
	queue->bytes += length;
}

int
queue_merge(struct queue *queue, const char *data, size_t length)
{
	struct block *last = queue->last;

	if (!last || last->capacity - last->end < length)
		return 0;
	memcpy(last->data + last->end, data, length);
	last->end += (uint32_t)length;
	queue->bytes += length;
	return 1;
}

int
queue_append(struct queue *queue, struct block_pool *pool, const char *data, size_t length)
{
	struct block *block;

	if (length == 0 || queue_merge(queue, data, length))
		return 0;
	block = block_get(pool, length);
	if (!block)
		return -1;
	memcpy(block->data + block->end, data, length);
	block->end += (uint32_t)length;
	queue_push(queue, pool, block);
	return 0;
}

/* What is queued, as far as one call takes it, in one write. `ret_asked`: how much that was. */
static ssize_t
send_gathered(const struct queue *queue, int fd, int flags, size_t *ret_asked)
{
	struct iovec parts[WRITE_BLOCKS_MAX];
	struct msghdr message = {.msg_iov = parts};

	*ret_asked = 0;
	for (struct block *b = queue->first; b && message.msg_iovlen < WRITE_BLOCKS_MAX;
	     b = b->next) {
		parts[message.msg_iovlen].iov_base = b->data + b->start;
		parts[message.msg_iovlen].iov_len = block_length(b);
		*ret_asked += block_length(b);
		message.msg_iovlen++;
	}
	return sendmsg(fd, &message, flags);
}

static ssize_t
send_first(const struct queue *queue, int fd, int flags, size_t *ret_asked)
{
	const struct block *block = queue->first;

	*ret_asked = block_length(block);
	return send(fd, block->data + block->start, *ret_asked, flags);
}

void
queue_taken(struct queue *queue, struct block_pool *pool, size_t n)
{
	queue->bytes -= n;
	while (n > 0) {
		struct block *block = queue->first;
		size_t length = block_length(block);

		if (n < length) {
			block->start += (uint32_t)n;
			return;
		}
		n -= length;
		queue->first = block->next;
		if (!queue->first)
			queue->last = NULL;
		block_put(pool, block);
	}
}

int
queue_write(struct queue *queue, struct block_pool *pool, int fd, bool ends, size_t *ret_written)
{
	int flags = MSG_NOSIGNAL | (ends ? MSG_MORE : 0);

	*ret_written = 0;
	while (queue->first) {
		size_t asked;
		ssize_t n = queue->first->next ? send_gathered(queue, fd, flags, &asked)
		                               : send_first(queue, fd, flags, &asked);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
		}
		queue_taken(queue, pool, (size_t)n);
		*ret_written += (size_t)n;
		if ((size_t)n < asked)
			return 0;
	}
	return 1;
}

void
queue_clear(struct queue *queue, struct block_pool *pool)
{
	while (queue->first) {
		struct block *next = queue->first->next;

		block_put(pool, queue->first);
		queue->first = next;
	}
	queue->last = NULL;
	queue->bytes = 0;
}
