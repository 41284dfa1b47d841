/* intake: records out of a ring into the correlator; broken ones are counted and skipped; a turn is
 * bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "collector/intake.h"
#include "proxy/ring.h"

static unsigned exchanges;
static struct service service;
static struct ring *producer;
static void *memory;

static void
on_exchange(void *arg, const struct exchange_record *record, size_t size,
            const struct profile *profile, const struct join *join, enum profile_missing missing)
{
	(void)arg;
	(void)record;
	(void)size;
	(void)profile;
	(void)join;
	(void)missing;
	exchanges++;
}

static int
set_up(void **state)
{
	struct correlator_options options = {
	    .exchanges_max = 10000, .done_max = 10000, .events = {.exchange = on_exchange}};
	(void)state;
	exchanges = 0;
	memory = mmap(NULL, (size_t)BOARD_RINGS_MAX * RING_BYTES, PROT_READ | PROT_WRITE,
	              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	service = (struct service){.board = xcalloc(1, sizeof(struct board)),
	                           .correlator = correlator_new(&options),
	                           .intake = intake_new(memory)};
	atomic_store(&service.board->workers[0].state, BOARD_RUNNING);
	producer = ring_attach(memory);
	assert_non_null(producer);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	intake_free(service.intake);
	correlator_free(service.correlator);
	free(service.board);
	munmap(memory, (size_t)BOARD_RINGS_MAX * RING_BYTES);
	return 0;
}

/* A record of an exchange that never reached an app: handed on at once. `size` counts its text. */
static bool
produce(size_t size, uint16_t method_length, uint16_t path_length, bool disordered)
{
	char bytes[RECORD_SIZE_MAX + 64] = {0};
	struct exchange_record record = {.method_length = method_length,
	                                 .path_length = path_length};
	record.marks_ns[3] = disordered ? 5 : 0;
	memcpy(bytes, &record, sizeof(record));
	void *room = ring_reserve(producer, size);
	if (room == NULL)
		return false;
	memcpy(room, bytes, size);
	ring_commit(producer);
	return true;
}

static void
test_records(void **state)
{
	const size_t fixed = sizeof(struct exchange_record);
	(void)state;
	assert_true(produce(fixed + 5, 3, 2, false));
	assert_true(produce(fixed + 5, 3, 3, false)); /* text longer than the record */
	assert_true(produce(fixed - 8, 0, 0, false)); /* not even a record */
	assert_true(produce(RECORD_SIZE_MAX + 8, 3, 2, false));
	assert_true(produce(fixed + 33, 33, 0, false)); /* method over its maximum */
	assert_true(produce(fixed + 5, 3, 2, true));    /* marks in disorder */
	assert_true(produce(fixed + 32 + 1024, 32, 1024, false));
	assert_false(intake_poll(service.intake, &service, 1));
	assert_int_equal(exchanges, 2);
	assert_int_equal(service.counters[SERVICE_RECORDS_READ], 2);
	assert_int_equal(service.counters[SERVICE_RECORDS_BROKEN], 5);
	assert_true(ring_is_empty(producer));
}

static void
test_bounded_turn(void **state)
{
	(void)state;
	for (unsigned i = 0; i < INTAKE_RECORDS_MAX + 1; i++)
		assert_true(produce(sizeof(struct exchange_record) + 5, 3, 2, false));
	assert_true(intake_poll(service.intake, &service, 1));
	assert_int_equal(exchanges, INTAKE_RECORDS_MAX);
	assert_false(intake_poll(service.intake, &service, 1));
	assert_int_equal(exchanges, INTAKE_RECORDS_MAX + 1);
}

static void
test_full_ring(void **state)
{
	unsigned produced = 0, dropped = 0;
	(void)state;
	while (dropped < 3)
		if (produce(RECORD_SIZE_MAX, 32, 1024, false))
			produced++;
		else
			dropped++;
	assert_int_equal(intake_dropped(service.intake), 0); /* not attached yet */
	while (intake_poll(service.intake, &service, 1))
		;
	assert_int_equal(exchanges, produced);
	assert_int_equal(intake_dropped(service.intake), 3);
}

static void
test_successor(void **state)
{
	(void)state;
	/* A collector that was killed: its successor reads on where it stopped. */
	assert_true(produce(sizeof(struct exchange_record) + 5, 3, 2, false));
	intake_poll(service.intake, &service, 1);
	assert_true(produce(sizeof(struct exchange_record) + 5, 3, 2, false));
	intake_free(service.intake);
	service.intake = intake_new(memory);
	intake_poll(service.intake, &service, 1);
	assert_int_equal(exchanges, 2);
}

static void
test_pause(void **state)
{
	const unsigned longest = INTAKE_PAUSE_MAX_US, shortest = INTAKE_PAUSE_MIN_US;
	(void)state;
	assert_int_equal(intake_pause_us(0, 0), longest);
	assert_int_equal(intake_pause_us(0, UINT64_MAX / INTAKE_RECORDS_AIM), longest);
	assert_int_equal(intake_pause_us(INTAKE_RECORDS_AIM, longest), longest);
	assert_in_range(intake_pause_us(INTAKE_RECORDS_AIM + 1, longest), longest * 9 / 10,
	                longest - 1);
	assert_int_equal(intake_pause_us(INTAKE_RECORDS_AIM, 10000), 10000);
	/* A rate of 10 a millisecond, however long the last turn was ago. */
	assert_int_equal(intake_pause_us(200, 20000), 6400);
	assert_int_equal(intake_pause_us(64, 6400), 6400);
	assert_int_equal(intake_pause_us(10, 1000), 6400);
	assert_int_equal(intake_pause_us(64, 1001), 1001);
	assert_int_equal(intake_pause_us(64, 999), shortest);
	assert_int_equal(intake_pause_us(INTAKE_RECORDS_MAX, 1), shortest);
	assert_int_equal(intake_pause_us(UINT64_MAX / longest, 1), shortest);
}

int
main(void)
{
#define INTAKE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    INTAKE_TEST(test_records),    INTAKE_TEST(test_bounded_turn),
	    INTAKE_TEST(test_full_ring),  INTAKE_TEST(test_successor),
	    cmocka_unit_test(test_pause),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
