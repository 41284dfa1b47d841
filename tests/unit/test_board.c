/* board: made once, shared by all who attach, refused where it is another build's or cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/board.h"

#define RING_SIZE 4096

static void
test_shared_and_zeroed(void **state)
{
	static const uint8_t none[32];
	int fd = board_create();
	struct board *one, *two;

	(void)state;
	assert_true(fd >= 0);
	one = board_attach(fd);
	two = board_attach(fd);
	assert_non_null(one);
	assert_non_null(two);
	assert_ptr_not_equal(one, two);
	assert_int_equal(atomic_load(&one->exchanges_lost), 0);
	assert_int_equal(atomic_load(&one->workers[1].state), BOARD_EMPTY);
	assert_memory_not_equal(one->deep_key, none, sizeof(none));
	board_add(&one->threads[3][7].counters[COUNTER_EXCHANGES_ENDED], 5);
	board_add(&one->threads[3][7].counters[COUNTER_EXCHANGES_ENDED], 2);
	assert_int_equal(atomic_load(&two->threads[3][7].counters[COUNTER_EXCHANGES_ENDED]), 7);
	board_detach(one);
	board_detach(two);
	close(fd);
}

static void
test_keys_differ(void **state)
{
	int first_fd = board_create(), second_fd = board_create();
	struct board *first = board_attach(first_fd), *second = board_attach(second_fd);

	(void)state;
	assert_memory_not_equal(first->deep_key, second->deep_key, sizeof(first->deep_key));
	board_detach(first);
	board_detach(second);
	close(first_fd);
	close(second_fd);
}

static void
test_other_build_is_refused(void **state)
{
	int fd = board_create();
	struct board *board = board_attach(fd);

	(void)state;
	board->version ^= 1;
	assert_null(board_attach(fd));
	assert_int_equal(errno, EPROTO);
	board->version ^= 1;
	board->magic = 0;
	assert_null(board_attach(fd));
	board_detach(board);
	close(fd);
}

static void
test_wrong_size_is_refused(void **state)
{
	int fd = memfd_create("small", 0);

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)sizeof(struct board) - 1), 0);
	assert_null(board_attach(fd));
	assert_null(board_rings_attach(fd, RING_SIZE));
	close(fd);
	assert_null(board_attach(-1));
}

/* Nobody may take pages away under the others: that would be SIGBUS in all of them. */
static void
test_size_is_sealed(void **state)
{
	int fd = board_create();

	(void)state;
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, (off_t)(2 * sizeof(struct board))), -1);
	close(fd);
}

static void
test_rings_are_whole(void **state)
{
	int fd = board_rings_create(RING_SIZE);
	unsigned char *one = board_rings_attach(fd, RING_SIZE);
	unsigned char *two = board_rings_attach(fd, RING_SIZE);
	size_t last = (size_t)RING_SIZE * BOARD_RINGS_MAX - 1;

	(void)state;
	assert_non_null(one);
	assert_non_null(two);
	assert_int_equal(one[0], 0);
	one[last] = 42;
	assert_int_equal(two[last], 42);
	assert_null(board_rings_attach(fd, RING_SIZE * 2));
	munmap(one, last + 1);
	munmap(two, last + 1);
	close(fd);
}

static void
lag_buckets_hold_their_bounds(void **state)
{
	uint64_t bound = 1024;

	(void)state;
	assert_int_equal(board_lag_bucket(0), 0);
	assert_int_equal(board_lag_bucket(1), 0);
	for (unsigned i = 0; i < BOARD_LAG_BUCKETS - 1; i++, bound *= 4) {
		assert_int_equal(board_lag_bucket(bound), i);
		assert_int_equal(board_lag_bucket(bound + 1), i + 1);
	}
	assert_int_equal(board_lag_bucket(UINT64_MAX), BOARD_LAG_BUCKETS - 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(lag_buckets_hold_their_bounds),
	    cmocka_unit_test(test_shared_and_zeroed),
	    cmocka_unit_test(test_keys_differ),
	    cmocka_unit_test(test_other_build_is_refused),
	    cmocka_unit_test(test_wrong_size_is_refused),
	    cmocka_unit_test(test_size_is_sealed),
	    cmocka_unit_test(test_rings_are_whole),
	};

	return cmocka_run_group_tests_name("board", tests, NULL, NULL);
}
