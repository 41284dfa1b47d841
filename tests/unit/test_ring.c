/* ring: order, wrapping, the maximum and one past it, full, corrupt memory, and two threads at
 * once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "proxy/ring.h"

#define RECORD_MAX ((RING_BYTES - 256) / 4) /* what one record may have */

static int
make(void **state)
{
	*state = aligned_alloc(4096, RING_BYTES);
	if (!*state)
		return -1;
	memset(*state, 0, RING_BYTES);
	return 0;
}

static int
drop(void **state)
{
	free(*state);
	return 0;
}

static void
put(struct ring *ring, uint64_t number, size_t length)
{
	unsigned char *p = ring_reserve(ring, length);

	assert_non_null(p);
	memset(p, (int)(number & 0xff), length);
	memcpy(p, &number, sizeof number);
	ring_commit(ring);
}

static void
take(struct ring *ring, uint64_t number, size_t length)
{
	size_t got;
	const unsigned char *p = ring_peek(ring, &got);

	assert_non_null(p);
	assert_int_equal(got, length);
	assert_memory_equal(p, &number, sizeof number);
	for (size_t i = sizeof number; i < length; i++)
		assert_int_equal(p[i], number & 0xff);
	ring_release(ring);
}

static void
keeps_order_and_lengths(void **state)
{
	struct ring *ring = ring_attach(*state);
	size_t length;

	assert_non_null(ring);
	assert_true(ring_is_empty(ring));
	assert_null(ring_peek(ring, &length));
	for (uint64_t i = 0; i < 100; i++)
		put(ring, i, 8 + i);
	assert_false(ring_is_empty(ring));
	for (uint64_t i = 0; i < 100; i++)
		take(ring, i, 8 + i);
	assert_true(ring_is_empty(ring));
	assert_int_equal(ring_dropped(ring), 0);
}

static void
uncommitted_is_invisible(void **state)
{
	struct ring *ring = ring_attach(*state);
	size_t length;

	assert_non_null(ring_reserve(ring, 64));
	assert_null(ring_peek(ring, &length));
	put(ring, 7, 64); /* the reservation that was given up is used again */
	take(ring, 7, 64);
	assert_true(ring_is_empty(ring));
}

static void
wraps_many_times(void **state)
{
	struct ring *ring = ring_attach(*state);
	uint64_t in = 0, out = 0;

	while (out < 40000) { /* about ten times round */
		for (int i = 0; i < 7; i++, in++)
			put(ring, in, 8 + in * 37 % 2000);
		for (int i = 0; i < 7; i++, out++)
			take(ring, out, 8 + out * 37 % 2000);
	}
	assert_int_equal(ring_dropped(ring), 0);
}

static void
full_drops_and_counts(void **state)
{
	struct ring *ring = ring_attach(*state);
	uint64_t in = 0, fresh;

	while (ring_reserve(ring, 1000)) {
		put(ring, in, 1000);
		in++;
	}
	assert_int_equal(in, (RING_BYTES - 256) / 1008);
	assert_int_equal(ring_dropped(ring), 1);
	assert_null(ring_reserve(ring, 1000));
	assert_int_equal(ring_dropped(ring), 2);
	take(ring, 0, 1000);
	take(ring, 1, 1000);
	put(ring, in, 1000); /* room again */
	fresh = in + 1;
	for (uint64_t i = 2; i < fresh; i++)
		take(ring, i, 1000);
	assert_true(ring_is_empty(ring));
}

static void
largest_record_and_one_past_it(void **state)
{
	struct ring *ring = ring_attach(*state);

	put(ring, 1, RECORD_MAX);
	take(ring, 1, RECORD_MAX);
	assert_null(ring_reserve(ring, RECORD_MAX + 1));
	assert_null(ring_reserve(ring, 0));
	assert_int_equal(ring_dropped(ring), 2);
}

static void
survives_a_new_attach(void **state)
{
	struct ring *ring = ring_attach(*state);

	put(ring, 5, 100);
	ring = ring_attach(*state);
	assert_non_null(ring);
	take(ring, 5, 100);
}

static void
corrupt_length_empties_it(void **state)
{
	struct ring *ring = ring_attach(*state);
	uint64_t lengths[] = {0, RECORD_MAX + 1, UINT64_MAX - 3, UINT64_MAX};
	size_t length;

	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		unsigned char *p = ring_reserve(ring, 64);

		assert_non_null(p);
		ring_commit(ring);
		memcpy(p - 8, &lengths[i], 8);
		put(ring, 9, 64);
		assert_null(ring_peek(ring, &length));
		assert_true(ring_is_empty(ring));
		assert_int_equal(ring_dropped(ring), i + 1);
	}
	put(ring, 10, 64); /* and it goes on */
	take(ring, 10, 64);
}

static void
foreign_memory_is_refused(void **state)
{
	memset(*state, 0x5a, 4096);
	assert_null(ring_attach(*state));
}

#define MANY 200000u

static void *
produce(void *memory)
{
	struct ring *ring = ring_attach(memory);

	for (uint64_t i = 0; i < MANY;) {
		size_t length = 16 + i % 500;
		uint64_t *p = ring_reserve(ring, length);

		if (!p)
			continue; /* full: the consumer is behind */
		p[0] = i;
		p[1] = ~i;
		ring_commit(ring);
		i++;
	}
	return NULL;
}

static void
two_threads_agree(void **state)
{
	struct ring *ring = ring_attach(*state);
	pthread_t thread;
	uint64_t next = 0;

	assert_int_equal(pthread_create(&thread, NULL, produce, *state), 0);
	while (next < MANY) {
		size_t length;
		const uint64_t *p = ring_peek(ring, &length);

		if (!p)
			continue;
		assert_int_equal(length, 16 + next % 500);
		assert_true(p[0] == next && p[1] == ~next);
		ring_release(ring);
		next++;
	}
	pthread_join(thread, NULL);
	assert_true(ring_is_empty(ring));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(keeps_order_and_lengths, make, drop),
	    cmocka_unit_test_setup_teardown(uncommitted_is_invisible, make, drop),
	    cmocka_unit_test_setup_teardown(wraps_many_times, make, drop),
	    cmocka_unit_test_setup_teardown(full_drops_and_counts, make, drop),
	    cmocka_unit_test_setup_teardown(largest_record_and_one_past_it, make, drop),
	    cmocka_unit_test_setup_teardown(survives_a_new_attach, make, drop),
	    cmocka_unit_test_setup_teardown(corrupt_length_empties_it, make, drop),
	    cmocka_unit_test_setup_teardown(foreign_memory_is_refused, make, drop),
	    cmocka_unit_test_setup_teardown(two_threads_agree, make, drop),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
