/* Ticket keys: made, rotated in time, read whole while they change. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "base/ticket_keys.h"

static void
test_none_made(void **state)
{
	struct ticket_keys keys = {0};
	struct ticket_key read[TICKET_KEYS];

	(void)state;
	assert_int_equal(ticket_keys_read(&keys, read), -1);
}

static void
test_rotation(void **state)
{
	struct ticket_keys keys = {0};
	struct ticket_key first[TICKET_KEYS], later[TICKET_KEYS];

	(void)state;
	ticket_keys_init(&keys, 1000);
	assert_int_equal(ticket_keys_read(&keys, first), 0);
	for (size_t i = 1; i < TICKET_KEYS; i++)
		assert_memory_not_equal(&first[i - 1], &first[i], sizeof first[0]);
	ticket_keys_rotate(&keys, 1000 + TICKET_ROTATION_NS - 1);
	assert_int_equal(ticket_keys_read(&keys, later), 0);
	assert_memory_equal(first, later, sizeof first);
	ticket_keys_rotate(&keys, 1000 + TICKET_ROTATION_NS);
	assert_int_equal(ticket_keys_read(&keys, later), 0);
	assert_memory_equal(&first[0], &later[1], sizeof first[0]);
	assert_memory_equal(&first[1], &later[2], sizeof first[0]);
	for (size_t i = 0; i < TICKET_KEYS; i++)
		assert_memory_not_equal(&later[0], &first[i], sizeof first[0]);
}

/* What is sealed at the last moment of a key can be opened for as long as the session lives. */
static void
test_kept_long_enough(void **state)
{
	(void)state;
	assert_true((TICKET_KEYS - 1) * TICKET_ROTATION_NS >= TICKET_LIFETIME_S * NS_PER_S);
}

/* A writer died within a change: no keys, and no endless wait. */
static void
test_writer_died(void **state)
{
	struct ticket_keys keys = {0};
	struct ticket_key read[TICKET_KEYS];

	(void)state;
	ticket_keys_init(&keys, 1);
	atomic_fetch_add(&keys.version, 1);
	assert_int_equal(ticket_keys_read(&keys, read), -1);
}

static void *
rotate_often(void *arg)
{
	struct ticket_keys *keys = arg;

	for (uint64_t i = 1; i <= 20000; i++)
		ticket_keys_rotate(keys, i * TICKET_ROTATION_NS);
	return NULL;
}

/* Neighbours of one reading are neighbours of the next one or gone: a torn reading would mix keys.
 */
static void
test_read_while_rotating(void **state)
{
	struct ticket_keys keys = {0};
	struct ticket_key read[TICKET_KEYS], before[TICKET_KEYS];
	pthread_t thread;
	size_t good = 0;

	(void)state;
	ticket_keys_init(&keys, 0);
	assert_int_equal(ticket_keys_read(&keys, before), 0);
	assert_int_equal(pthread_create(&thread, NULL, rotate_often, &keys), 0);
	for (int n = 0; n < 20000; n++) {
		if (ticket_keys_read(&keys, read) != 0)
			continue;
		good++;
		for (size_t i = 0; i < TICKET_KEYS; i++)
			for (size_t j = 0; j < TICKET_KEYS; j++)
				if (memcmp(read[i].name, before[j].name, 16) == 0)
					assert_memory_equal(&read[i], &before[j], sizeof read[i]);
		memcpy(before, read, sizeof before);
	}
	pthread_join(thread, NULL);
	assert_true(good > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_none_made),           cmocka_unit_test(test_rotation),
	    cmocka_unit_test(test_kept_long_enough),    cmocka_unit_test(test_writer_died),
	    cmocka_unit_test(test_read_while_rotating),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
