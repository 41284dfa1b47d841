/* watched: which exchanges count, and which of their time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "model/watched.h"

/* Phase i lasts (i + 1) * 100 ns. */
static struct exchange_record
record(void)
{
	struct exchange_record record = {.status = 200, .died_in = PHASE_COUNT};
	uint64_t at_ns = 5000;

	for (size_t i = 0; i < MARK_COUNT; i++) {
		record.marks_ns[i] = at_ns;
		at_ns += (i + 1) * 100;
	}
	return record;
}

static uint64_t
phase_of(unsigned phase)
{
	return (phase + 1) * 100;
}

static void
test_time(void **state)
{
	struct exchange_record r = record();
	uint64_t total_ns = r.marks_ns[MARK_END] - r.marks_ns[MARK_START];
	uint64_t server_ns =
	    total_ns - phase_of(PHASE_HEAD) - phase_of(PHASE_SEND) - phase_of(PHASE_DRAIN);

	(void)state;
	assert_int_equal(watched_ns(&r, CONFIG_LATENCY_TOTAL), total_ns);
	assert_int_equal(watched_ns(&r, CONFIG_LATENCY_FIRST_BYTE),
	                 total_ns - phase_of(PHASE_STREAM) - phase_of(PHASE_DRAIN));
	assert_int_equal(watched_ns(&r, CONFIG_LATENCY_SERVER), server_ns);
	r.backpressure_ns = 30;
	assert_int_equal(watched_ns(&r, CONFIG_LATENCY_SERVER), server_ns - 30);
	/* Never more than the phase it lies in. */
	r.backpressure_ns = 1000000;
	assert_int_equal(watched_ns(&r, CONFIG_LATENCY_SERVER), server_ns - phase_of(PHASE_STREAM));
	assert_int_equal(watched_ns(&r, CONFIG_LATENCY_TOTAL), total_ns);
}

static void
test_which(void **state)
{
	static const struct {
		uint16_t status;
		bool counts;
	} statuses[] = {{0, false},  {101, false}, {199, false}, {200, true},
	                {304, true}, {499, true},  {500, false}, {503, false}};
	static const uint32_t flags[] = {RECORD_PROVISIONAL, RECORD_LOCAL_REPLY,
	                                 RECORD_EVENT_STREAM};
	struct exchange_record r = record();

	(void)state;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		r.status = statuses[i].status;
		assert_int_equal(watched_counts(&r), statuses[i].counts);
	}
	r.status = 200;
	r.flags = RECORD_CLIENT_REUSED | RECORD_CLIENT_TLS;
	assert_true(watched_counts(&r));
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		r.flags = flags[i];
		assert_false(watched_counts(&r));
	}
	r.flags = 0;
	r.died_in = PHASE_STREAM; /* the client left */
	assert_false(watched_counts(&r));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_time),
	    cmocka_unit_test(test_which),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
