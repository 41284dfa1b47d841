/* Pooled blocks of 16 KiB, and of 64 KiB for long bodies, and queues of them: where bytes live between a read
 * and a write. One pool per loop thread; blocks never cross threads. A block of another size (a head over
 * 15 KiB) is freed on return. */
#ifndef TAILRACE_PROXY_BLOCK_H
#define TAILRACE_PROXY_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_SIZE 16384u      /* memory of a pooled block, this struct included */
#define BLOCK_LONG_SIZE 65536u /* of one for a body that comes faster than it is read */
#define BLOCK_LONG_ROOM (BLOCK_LONG_SIZE - sizeof(struct block) - BLOCK_HEADROOM - BLOCK_TAILROOM)
#define BLOCK_HEADROOM 32u      /* free bytes before the data: a chunk-size line fits */
#define BLOCK_TAILROOM 16u      /* free bytes behind it: chunk end and last chunk fit */
#define BLOCK_POOL_MAX 1024u    /* free blocks kept; beyond, memory goes back */
#define BLOCK_LONG_MAX 16u      /* free long ones kept */
#define QUEUE_HIGH (64u * 1024) /* stop reading what would be queued */
#define QUEUE_LOW (16u * 1024)  /* go on reading */

struct block {
	struct block *next;
	uint32_t capacity;   /* of data */
	uint32_t start, end; /* bytes in use: data[start, end) */
	char data[];
};

struct block_pool {
	struct block *free, *free_long;
	size_t free_count, long_count, in_use;
};

/* A block with room for `room` bytes between head- and tailroom (0: a standard block; BLOCK_LONG_ROOM: a long
 * one), start = end = BLOCK_HEADROOM. Null when memory is short. */
struct block *block_get(struct block_pool *pool, size_t room);
void block_put(struct block_pool *pool, struct block *block); /* null is allowed */
void block_pool_clear(struct block_pool *pool);

static inline size_t
block_length(const struct block *block)
{
	return block->end - block->start;
}

/* Bytes that may be appended, tailroom left aside. */
static inline size_t
block_room(const struct block *block)
{
	return block->capacity - BLOCK_TAILROOM - block->end;
}

/* Moves the data to the front, so that the room is behind it. */
void block_compact(struct block *block);

/* Turns the data into one chunk (RFC 9112 7.1) inside head- and tailroom; `last` adds the last chunk.
 * With no data, only the last chunk is written. */
void block_frame_chunk(struct block *block, int last);

/* Blocks waiting to be written to one socket, oldest first. */
struct queue {
	struct block *first, *last;
	size_t bytes;
};

/* Takes the block; an empty one goes back to the pool. */
void queue_push(struct queue *queue, struct block_pool *pool, struct block *block);

/* Copies small data behind what waits already; returns 0, or -1 when a block was needed and memory is
 * short. */
int queue_append(struct queue *queue, struct block_pool *pool, const char *data, size_t length);

/* Copies into the last block if it all fits there. Returns 1 if so, else 0. */
int queue_merge(struct queue *queue, const char *data, size_t length);

/* Writes until empty or the socket is full. Returns 1 when empty, 0 when the rest waits for EV_WRITE,
 * -1 with errno. *ret_written counts the bytes taken. `ends`: the socket is shut down right after, so
 * that the last packet may wait for that. */
int queue_write(struct queue *queue, struct block_pool *pool, int fd, bool ends,
                size_t *ret_written);

/* The first `n` bytes were taken elsewhere: their blocks go back. */
void queue_taken(struct queue *queue, struct block_pool *pool, size_t n);

void queue_clear(struct queue *queue, struct block_pool *pool);

#endif
