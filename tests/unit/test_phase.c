/* phase: closed marks are monotone and their phases sum to the total, whatever happened. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "model/phase.h"

#define CASES 1000000

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t
random_u64(void) /* xorshift64*: the same cases in every run */
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 0x2545f4914f6cdd1dull;
}

static unsigned
random_below(unsigned n)
{
	return (unsigned)(random_u64() % n);
}

static void
assert_closed(const struct marks *marks, uint64_t start_ns, uint64_t end_ns)
{
	uint64_t ns[PHASE_COUNT], sum = 0;

	for (unsigned i = 1; i < MARK_COUNT; i++)
		if (marks->at_ns[i] < marks->at_ns[i - 1])
			fail_msg("mark %u before mark %u", i, i - 1);
	marks_phases(marks, ns);
	for (unsigned i = 0; i < PHASE_COUNT; i++) {
		if (ns[i] > end_ns - start_ns)
			fail_msg("phase %s is negative or too long", phase_name((enum phase)i));
		sum += ns[i];
	}
	assert_true(marks->at_ns[MARK_START] == start_ns);
	assert_true(marks->at_ns[MARK_END] == end_ns);
	assert_true(sum == end_ns - start_ns);
}

/* One made-up life: events happen in causal order per direction, the two directions interleave at
 * random, the life may end at every point by a local reply or an abort, attempts may repeat. */
struct life {
	struct marks marks;
	uint64_t now_ns;
};

static uint64_t
tick(struct life *life)
{
	life->now_ns += random_below(4) == 0 ? 0 : random_below(1000000);
	return life->now_ns;
}

static void
attempt(struct life *life, bool first)
{
	static const enum mark steps[] = {MARK_SLOT_LAST, MARK_CONNECTED, MARK_SENT_FIRST};

	if (first)
		mark_once(&life->marks, MARK_SLOT_FIRST, tick(life));
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		mark_once(&life->marks, steps[i], i == 0 && first ? life->now_ns : tick(life));
}

/* Upload (t6) against response (t7 t8 t9 t10 t11), in random interleaving; 1xx set no mark. */
static bool
two_directions(struct life *life, unsigned stop_after)
{
	enum mark next = MARK_READ_FIRST;
	unsigned events = 0;

	while (next <= MARK_END) {
		if (events++ >= stop_after)
			return false;
		tick(life);
		switch (random_below(4)) {
		case 0: /* an interim response, or a write that would block */
			break;
		case 1:
			if (life->marks.at_ns[MARK_READ_FIRST] == 0 || random_below(2) == 0)
				mark_once(&life->marks, MARK_SENT_LAST, life->now_ns);
			break;
		default:
			/* Now and then the last byte is read before the first one is sent. */
			if (next == MARK_REPLIED && random_below(3) == 0)
				mark_once(&life->marks, MARK_READ_LAST, life->now_ns);
			mark_once(&life->marks, next, life->now_ns);
			next++;
		}
	}
	return true;
}

static void
live(struct life *life, unsigned *ret_stop)
{
	unsigned stop = random_below(24);
	bool first = true;

	*ret_stop = stop;
	if (stop < 1)
		return;
	mark_once(&life->marks, MARK_HEAD, tick(life));
	if (stop < 2)
		return;
	mark_once(&life->marks, MARK_ADMIT, tick(life));
	if (stop < 3)
		return;
	do {
		if (!first)
			marks_retry(&life->marks);
		attempt(life, first);
		first = false;
	} while (random_below(4) == 0);
	if (stop < 4)
		return;
	two_directions(life, random_below(3) == 0 ? random_below(12) : 1000);
}

static void
test_random_lives(void **state)
{
	unsigned ends[3] = {0};

	(void)state;
	for (unsigned i = 0; i < CASES; i++) {
		struct life life = {.now_ns = 1 + random_below(1000)};
		uint64_t start_ns = life.now_ns, decision_ns, end_ns;
		enum phase_end how = PHASE_END_DONE;
		enum phase running;
		unsigned stop;

		life.marks.at_ns[MARK_START] = start_ns;
		live(&life, &stop);
		decision_ns = tick(&life);
		running = marks_running(&life.marks);
		if (life.marks.at_ns[MARK_END] == 0) {
			assert_true(running < PHASE_COUNT);
			how = life.marks.at_ns[MARK_REPLIED] == 0 && random_below(2) == 0
			          ? PHASE_END_LOCAL
			          : PHASE_END_ABORT;
			if (how == PHASE_END_LOCAL && random_below(4) != 0) {
				mark_once(&life.marks, MARK_REPLIED, tick(&life));
				mark_once(&life.marks, MARK_END, tick(&life));
			}
		}
		end_ns = life.marks.at_ns[MARK_END] ? life.marks.at_ns[MARK_END] : tick(&life);
		ends[how]++;
		marks_close(&life.marks, how, decision_ns, end_ns);
		assert_closed(&life.marks, start_ns, end_ns);
		if (how == PHASE_END_LOCAL)
			assert_true(life.marks.at_ns[MARK_READ_LAST] ==
			            life.marks.at_ns[MARK_REPLIED]);
	}
	/* The generator must reach all three ends, each often. */
	for (unsigned i = 0; i < 3; i++)
		assert_true(ends[i] > CASES / 20);
}

/* Not even marks in an order that cannot happen break the sum. */
static void
test_impossible_orders(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CASES; i++) {
		struct marks marks = {{0}};
		uint64_t start_ns = 1000 + random_below(1000);
		uint64_t end_ns = start_ns + random_below(1000);

		for (unsigned m = 0; m < MARK_END; m++)
			marks.at_ns[m] = random_below(2) ? random_below(4000) : 0;
		marks.at_ns[MARK_START] = start_ns;
		marks_close(&marks, (enum phase_end)random_below(3), random_below(4000), end_ns);
		assert_closed(&marks, start_ns, end_ns);
	}
}

static void
test_early_response(void **state)
{
	struct marks marks = {
	    .at_ns = {100, 110, 120, 130, 130, 140, 150, 0, 200, 210, 220, 300, 310}};
	uint64_t ns[PHASE_COUNT];

	(void)state;
	marks_close(&marks, PHASE_END_DONE, 0, 0);
	marks_phases(&marks, ns);
	assert_int_equal(ns[PHASE_SEND], 50); /* m6 = t7 where the upload was not over */
	assert_int_equal(ns[PHASE_WAIT], 0);
	assert_int_equal(ns[PHASE_STREAM], 80);
	assert_int_equal(ns[PHASE_DRAIN], 10);
}

static void
test_upload_outlives_response(void **state)
{
	struct marks marks = {
	    .at_ns = {100, 110, 120, 130, 130, 140, 150, 290, 200, 210, 220, 215, 310}};
	uint64_t ns[PHASE_COUNT];

	(void)state;
	marks_close(&marks, PHASE_END_DONE, 0, 0);
	marks_phases(&marks, ns);
	assert_int_equal(ns[PHASE_SEND], 50);
	assert_int_equal(ns[PHASE_WAIT], 0);
	assert_int_equal(ns[PHASE_STREAM], 0); /* t10 before t9 is lifted to t9 */
	assert_int_equal(ns[PHASE_DRAIN], 90);
}

static void
test_local_reply(void **state)
{
	struct marks marks = {.at_ns = {100, 110}};
	uint64_t ns[PHASE_COUNT];

	(void)state;
	assert_int_equal(marks_running(&marks), PHASE_ADMIT);
	marks.at_ns[MARK_REPLIED] = 170;
	marks.at_ns[MARK_END] = 180;
	marks_close(&marks, PHASE_END_LOCAL, 150, 0);
	marks_phases(&marks, ns);
	assert_int_equal(ns[PHASE_HEAD], 10);
	assert_int_equal(ns[PHASE_ADMIT], 40);
	assert_int_equal(ns[PHASE_WAIT], 0);
	assert_int_equal(ns[PHASE_REPLY], 20);
	assert_int_equal(ns[PHASE_STREAM], 0);
	assert_int_equal(ns[PHASE_DRAIN], 10);
}

static void
test_abort_dies_in_the_running_phase(void **state)
{
	struct marks marks = {.at_ns = {100, 110, 120, 130, 130, 140, 150, 160}};
	uint64_t ns[PHASE_COUNT];

	(void)state;
	assert_int_equal(marks_running(&marks), PHASE_WAIT);
	marks_close(&marks, PHASE_END_ABORT, 0, 500);
	marks_phases(&marks, ns);
	assert_int_equal(ns[PHASE_WAIT], 340);
	assert_int_equal(ns[PHASE_REPLY_HEAD], 0);
	assert_int_equal(ns[PHASE_DRAIN], 0);
}

static void
test_retry_forgets_the_failed_attempt(void **state)
{
	struct marks marks = {.at_ns = {100, 110, 120, 130, 130, 140, 150, 160, 170}};
	uint64_t ns[PHASE_COUNT];

	(void)state;
	marks_retry(&marks);
	assert_int_equal(marks.at_ns[MARK_SLOT_FIRST], 130);
	assert_int_equal(marks_running(&marks), PHASE_RETRY);
	marks.at_ns[MARK_SLOT_LAST] = 180;
	marks_close(&marks, PHASE_END_ABORT, 0, 200);
	marks_phases(&marks, ns);
	assert_int_equal(ns[PHASE_RETRY], 50);
	assert_int_equal(ns[PHASE_CONNECT], 20);
}

static void
test_running_with_body_read_before_reply(void **state)
{
	struct marks marks = {.at_ns = {1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 0, 10, 0}};

	(void)state;
	assert_int_equal(marks_running(&marks), PHASE_REPLY);
	marks.at_ns[MARK_REPLIED] = 11;
	assert_int_equal(marks_running(&marks), PHASE_DRAIN);
	marks.at_ns[MARK_END] = 12;
	assert_int_equal(marks_running(&marks), PHASE_COUNT);
}

static void
test_server_timing(void **state)
{
	struct marks marks = {.at_ns = {1000000, 1010000, 1011000, 1012000, 1012000, 1012000,
	                                1020000, 1030000, 13430000, 13431000}};
	char buf[256];

	(void)state;
	assert_true(phase_server_timing(&marks, buf, sizeof(buf)) == strlen(buf));
	assert_string_equal(
	    buf, "head;dur=0.010, admit;dur=0.001, queue;dur=0.001, retry;dur=0.000, "
	         "connect;dur=0.000, dispatch;dur=0.008, send;dur=0.010, wait;dur=12.400");
	assert_int_equal(phase_server_timing(&marks, buf, strlen(buf)), 0); /* one byte short */
	assert_string_equal(phase_name(PHASE_DRAIN), "drain");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_random_lives),
	    cmocka_unit_test(test_impossible_orders),
	    cmocka_unit_test(test_early_response),
	    cmocka_unit_test(test_upload_outlives_response),
	    cmocka_unit_test(test_local_reply),
	    cmocka_unit_test(test_abort_dies_in_the_running_phase),
	    cmocka_unit_test(test_retry_forgets_the_failed_attempt),
	    cmocka_unit_test(test_running_with_body_read_before_reply),
	    cmocka_unit_test(test_server_timing),
	};

	return cmocka_run_group_tests_name("phase", tests, NULL, NULL);
}
