/* block: pool, chunk framing in place, queues that merge small data and survive short writes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/xmem.h"
#include "proxy/block.h"

static struct block_pool pool;

static int
clear(void **state)
{
	(void)state;
	assert_int_equal(pool.in_use, 0);
	block_pool_clear(&pool);
	return 0;
}

static struct block *
filled(const char *text)
{
	struct block *block = block_get(&pool, 0);

	assert_non_null(block);
	memcpy(block->data + block->end, text, strlen(text));
	block->end += (uint32_t)strlen(text);
	return block;
}

static void
assert_block(const struct block *block, const char *text)
{
	assert_int_equal(block_length(block), strlen(text));
	assert_memory_equal(block->data + block->start, text, strlen(text));
}

/* BLOCK_LONG_MAX long ones are kept, one more is freed. */
static void
long_blocks_come_back(void **state)
{
	struct block *blocks[BLOCK_LONG_MAX + 1];

	(void)state;
	for (size_t i = 0; i <= BLOCK_LONG_MAX; i++) {
		blocks[i] = block_get(&pool, BLOCK_LONG_ROOM);
		assert_int_equal(block_room(blocks[i]), BLOCK_LONG_ROOM);
	}
	for (size_t i = 0; i <= BLOCK_LONG_MAX; i++)
		block_put(&pool, blocks[i]);
	assert_int_equal(pool.long_count, BLOCK_LONG_MAX);
	assert_int_equal(pool.free_count, 0);
	assert_ptr_equal(block_get(&pool, BLOCK_LONG_ROOM), blocks[BLOCK_LONG_MAX - 1]);
	block_put(&pool, blocks[BLOCK_LONG_MAX - 1]);
	block_put(&pool, block_get(&pool, BLOCK_LONG_ROOM - 1)); /* no other size goes there */
	assert_int_equal(pool.long_count, BLOCK_LONG_MAX);
}

static void
blocks_come_back(void **state)
{
	struct block *first = block_get(&pool, 0), *big, *again;

	(void)state;
	block_put(&pool, first);
	again = block_get(&pool, 100);
	assert_ptr_equal(first, again);
	big = block_get(&pool, 100000);
	assert_true(block_room(big) >= 100000);
	block_put(&pool, big);
	block_put(&pool, again);
	block_put(&pool, NULL);
	assert_int_equal(pool.free_count, 1);
}

static void
short_memory_is_told(void **state)
{
	(void)state;
	xmem_fail_after(1, 0);
	assert_null(block_get(&pool, 0));
	xmem_fail_after(0, 0);
	assert_int_equal(pool.in_use, 0);
}

static void
pool_keeps_a_bounded_number(void **state)
{
	static struct block *blocks[BLOCK_POOL_MAX + 1];

	(void)state;
	for (size_t i = 0; i <= BLOCK_POOL_MAX; i++)
		blocks[i] = block_get(&pool, 0);
	for (size_t i = 0; i <= BLOCK_POOL_MAX; i++)
		block_put(&pool, blocks[i]);
	assert_int_equal(pool.free_count, BLOCK_POOL_MAX);
}

static void
chunks_are_framed_in_place(void **state)
{
	struct block *block = filled("hello");
	size_t room;

	(void)state;
	block_frame_chunk(block, 0);
	assert_block(block, "5\r\nhello\r\n");
	block_put(&pool, block);
	block = filled("");
	block_frame_chunk(block, 1);
	assert_block(block, "0\r\n\r\n");
	block_put(&pool, block);
	block = filled("0123456789abcdef");
	block_frame_chunk(block, 1);
	assert_block(block, "10\r\n0123456789abcdef\r\n0\r\n\r\n");
	block_put(&pool, block);
	block = block_get(&pool, 0); /* filled to the last byte, framing still fits */
	room = block_room(block);
	memset(block->data + block->end, 'x', room);
	block->end += (uint32_t)room;
	block_frame_chunk(block, 1);
	assert_true(block->end <= block->capacity);
	assert_int_equal(strtoul(block->data + block->start, NULL, 16), room);
	block_put(&pool, block);
}

static void
small_data_shares_a_block(void **state)
{
	struct queue queue = {0};

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(queue_append(&queue, &pool, "ab", 2), 0);
		queue_push(&queue, &pool, filled("cd"));
	}
	assert_int_equal(queue.bytes, 4000);
	assert_ptr_equal(queue.first, queue.last);
	assert_int_equal(pool.in_use, 1);
	queue_clear(&queue, &pool);
	assert_int_equal(queue.bytes, 0);
}

static void
short_writes_go_on(void **state)
{
	struct queue queue = {0};
	size_t written, total = 0, got = 0, expected = 0;
	int fds[2], done = 0, small = 4096;
	char in[65536];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
	for (int i = 0; i < 20; i++) {
		struct block *block = block_get(&pool, 0);
		size_t room = block_room(block);

		for (size_t j = 0; j < room; j++)
			block->data[block->end + j] = (char)((expected + j) % 251);
		block->end += (uint32_t)room;
		expected += room;
		queue_push(&queue, &pool, block);
	}
	while (got < expected) {
		ssize_t n;

		if (done == 0) {
			done = queue_write(&queue, &pool, fds[0], false, &written);
			assert_true(done >= 0);
			total += written;
			assert_int_equal(queue.bytes, expected - total);
		}
		n = recv(fds[1], in, sizeof in, 0);
		for (ssize_t i = 0; i < n; i++, got++)
			assert_int_equal((unsigned char)in[i], got % 251);
	}
	assert_int_equal(done, 1);
	close(fds[1]);
	queue_append(&queue, &pool, "x", 1);
	assert_int_equal(queue_write(&queue, &pool, fds[0], false, &written), -1);
	assert_int_equal(errno, EPIPE);
	queue_clear(&queue, &pool);
	close(fds[0]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_teardown(blocks_come_back, clear),
	    cmocka_unit_test_teardown(long_blocks_come_back, clear),
	    cmocka_unit_test_teardown(short_memory_is_told, clear),
	    cmocka_unit_test_teardown(pool_keeps_a_bounded_number, clear),
	    cmocka_unit_test_teardown(chunks_are_framed_in_place, clear),
	    cmocka_unit_test_teardown(small_data_shares_a_block, clear),
	    cmocka_unit_test_teardown(short_writes_go_on, clear),
	};

	return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
