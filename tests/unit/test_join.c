/* join: the parts of t5 to t7 add up exactly and rows + unattributed make the app's part, whatever
 * was clamped; what cannot be the same request is refused and left untouched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "model/join.h"

#define CASES 200000
#define MS NS_PER_MS

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t
random_u64(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return seed * 0x2545f4914f6cdd1dull;
}

static uint64_t
below(uint64_t n)
{
	return random_u64() % n;
}

/* t0 = 1 s, t4 = +1 ms, t5 = +2 ms, t7 = +102 ms, all else after. */
static struct exchange_record
record_plain(void)
{
	struct exchange_record record = {.attempts = 1, .died_in = PHASE_COUNT};
	for (unsigned i = 0; i < MARK_COUNT; i++)
		record.marks_ns[i] = NS_PER_S;
	record.marks_ns[MARK_CONNECTED] += 1 * MS;
	record.marks_ns[MARK_SENT_FIRST] += 2 * MS;
	record.marks_ns[MARK_SENT_LAST] += 2 * MS;
	for (unsigned i = MARK_READ_FIRST; i < MARK_COUNT; i++)
		record.marks_ns[i] += 102 * MS;
	return record;
}

static struct profile_row rows[8];

/* A profile whose rows take `run`, `ready` and `wait`, the rest being unattributed. */
static struct profile
profile_plain(uint64_t enter_ns, uint64_t start_ns, uint64_t run, uint64_t ready, uint64_t wait)
{
	struct profile p = {.has_start = true,
	                    .final = true,
	                    .enter_ns = enter_ns,
	                    .start_ns = start_ns,
	                    .end_ns = start_ns + 5 * MS};
	memset(rows, 0, sizeof(rows));
	rows[0] = (struct profile_row){.kind = PROFILE_WAIT, .exact = true, .ns = wait};
	rows[1] = (struct profile_row){.kind = PROFILE_RUN, .exact = true, .ns = run};
	rows[2] = (struct profile_row){.kind = PROFILE_READY, .exact = true, .ns = ready};
	p.breakdown = (struct profile_rows){.rows = rows, .count = 3};
	p.unattributed_ns = start_ns - enter_ns - run - ready - wait;
	return p;
}

static void
assert_sums(const struct exchange_record *record, const struct profile *p, const struct join *join)
{
	uint64_t span = record->marks_ns[MARK_READ_FIRST] - record->marks_ns[MARK_SENT_FIRST];
	if (join->app_queue_ns + join->app_ns + join->app_out_ns != span)
		fail_msg("split is not t5 to t7");
	if (profile_rows_sum(&p->breakdown, p->unattributed_ns) != join->app_ns)
		fail_msg("rows and unattributed are not the app's part");
}

static void
test_plain(void **state)
{
	struct exchange_record record = record_plain();
	struct join join;
	(void)state;
	struct profile p =
	    profile_plain(NS_PER_S + 10 * MS, NS_PER_S + 90 * MS, 10 * MS, 1 * MS, 60 * MS);
	assert_int_equal(join_split(&record, &p, true, &join), 0);
	assert_true(join.shared);
	assert_int_equal(join.app_queue_ns, 8 * MS);
	assert_int_equal(join.app_ns, 80 * MS);
	assert_int_equal(join.app_out_ns, 12 * MS);
	assert_int_equal(join.slack_ns, 0);
	assert_int_equal(join.clipped_ns, 0);
	assert_int_equal(join.app_stream_ns, 5 * MS);
	assert_int_equal(p.unattributed_ns, 9 * MS);
	assert_true(rows[0].exact && rows[1].exact && rows[2].exact);
	assert_sums(&record, &p, &join);
}

static void
test_enter_before_sent(void **state)
{
	struct exchange_record record = record_plain();
	struct join join;
	(void)state;
	/* Between t4 and t5 is no disorder: the write's return was seen later than its effect. */
	struct profile p = profile_plain(NS_PER_S + 3 * MS / 2, NS_PER_S + 90 * MS, 0, 0, 80 * MS);
	assert_int_equal(join_split(&record, &p, true, &join), 0);
	assert_int_equal(join.app_queue_ns, 0);
	assert_int_equal(join.app_ns, 88 * MS);
	assert_int_equal(join.slack_ns, 0);
	assert_int_equal(join.clipped_ns, MS / 2);
	assert_int_equal(p.unattributed_ns, 8 * MS); /* 8.5 less the half */
	assert_true(rows[0].exact);
	assert_sums(&record, &p, &join);
}

static void
test_order_of_clipping(void **state)
{
	struct exchange_record record = record_plain();
	struct join join;
	(void)state;
	/* 5 ms before t5, 4 of them before t4; 1 ms is unattributed: run gives 3, ready 1. */
	struct profile p =
	    profile_plain(NS_PER_S - 3 * MS, NS_PER_S + 92 * MS, 3 * MS, 2 * MS, 89 * MS);
	assert_int_equal(p.unattributed_ns, 1 * MS);
	assert_int_equal(join_split(&record, &p, true, &join), 0);
	assert_int_equal(join.slack_ns, 4 * MS);
	assert_int_equal(join.clipped_ns, 5 * MS);
	assert_int_equal(p.unattributed_ns, 0);
	assert_int_equal(rows[1].ns, 0);
	assert_int_equal(rows[2].ns, 1 * MS);
	assert_int_equal(rows[0].ns, 89 * MS);
	assert_false(rows[1].exact || rows[2].exact);
	assert_true(rows[0].exact);
	assert_sums(&record, &p, &join);
}

static void
test_slack_limits(void **state)
{
	struct exchange_record record = record_plain();
	struct join join;
	uint64_t t4 = NS_PER_S + MS, t7 = NS_PER_S + 102 * MS;
	(void)state;
	struct profile p = profile_plain(t4 - JOIN_SLACK_MAX_NS, t7, 0, 0, 0);
	assert_int_equal(join_split(&record, &p, true, &join), 0);
	assert_int_equal(join.slack_ns, JOIN_SLACK_MAX_NS);
	p = profile_plain(t4 - JOIN_SLACK_MAX_NS - 1, t7, 0, 0, 0);
	assert_int_equal(join_split(&record, &p, true, &join), -1);
	p = profile_plain(t4 + MS, t7 + JOIN_SLACK_MAX_NS, 0, 0, 0);
	assert_int_equal(join_split(&record, &p, true, &join), 0);
	assert_int_equal(join.slack_ns, JOIN_SLACK_MAX_NS);
	assert_int_equal(join.app_out_ns, 0);
	assert_sums(&record, &p, &join);
	p = profile_plain(t4 + MS, t7 + JOIN_SLACK_MAX_NS + 1, 20 * MS, 0, 0);
	uint64_t before = p.unattributed_ns;
	assert_int_equal(join_split(&record, &p, true, &join), -1);
	assert_int_equal(p.unattributed_ns, before); /* refused: untouched */
	assert_int_equal(rows[1].ns, 20 * MS);
}

static void
test_no_answer(void **state)
{
	struct exchange_record record = record_plain();
	struct join join;
	(void)state;
	/* The client went away while the app worked: the app's part ends with the exchange. */
	record.died_in = PHASE_WAIT;
	struct profile p = profile_plain(NS_PER_S + 10 * MS, NS_PER_S + 900 * MS, 0, 0, 890 * MS);
	assert_int_equal(join_split(&record, &p, true, &join), 0);
	assert_int_equal(join.app_ns, 92 * MS);
	assert_int_equal(join.clipped_ns, 798 * MS);
	assert_int_equal(join.slack_ns, 0);
	assert_int_equal(rows[0].ns, 92 * MS);
	assert_false(rows[0].exact);
	assert_sums(&record, &p, &join);
	assert_false(record_was_answered(&record));
	assert_true(record_was_sent(&record));
	record.died_in = PHASE_DISPATCH;
	assert_false(record_was_sent(&record));
}

static void
test_placed(void **state)
{
	struct exchange_record record = record_plain();
	struct join join;
	(void)state;
	/* Another clock altogether: 80 ms of 100, 4 ms in the loop's queue. */
	struct profile p = profile_plain(7, 7 + 80 * MS, 0, 0, 70 * MS);
	p.has_task_queue = true;
	p.task_queue_ns = 4 * MS;
	assert_int_equal(join_split(&record, &p, false, &join), 0);
	assert_false(join.shared);
	assert_int_equal(join.slack_ns, 20 * MS);
	assert_int_equal(join.app_queue_ns, 12 * MS);
	assert_int_equal(join.app_out_ns, 8 * MS);
	assert_sums(&record, &p, &join);
	p = profile_plain(7, 7 + 110 * MS, 0, 0, 110 * MS); /* 10 ms more than there was */
	assert_int_equal(join_split(&record, &p, false, &join), 0);
	assert_int_equal(join.slack_ns, 10 * MS);
	assert_int_equal(join.app_ns, 100 * MS);
	assert_sums(&record, &p, &join);
	p = profile_plain(7, 8 + 110 * MS, 0, 0, 110 * MS);
	assert_int_equal(join_split(&record, &p, false, &join), -1);
}

static struct exchange_record
record_random(void)
{
	struct exchange_record record = {.attempts = 1, .died_in = PHASE_COUNT};
	uint64_t at = 1 + below(10 * NS_PER_S);
	for (unsigned i = 0; i < MARK_COUNT; i++) {
		at += below(3) ? below(below(2) ? 20 * MS : 1000) : 0;
		record.marks_ns[i] = at;
	}
	if (below(4) == 0)
		record.died_in = (uint8_t)(PHASE_SEND + below(PHASE_COUNT - PHASE_SEND));
	return record;
}

static struct profile
profile_random(const struct exchange_record *record)
{
	static const uint8_t kinds[] = {PROFILE_RUN, PROFILE_READY, PROFILE_WAIT,
	                                PROFILE_THREAD_QUEUE, PROFILE_THREAD_RUN};
	uint64_t base = record->marks_ns[MARK_CONNECTED];
	struct profile p = {.final = true, .has_start = below(5) != 0};
	p.enter_ns = base + below(40 * MS) > 15 * MS ? base + below(40 * MS) - 15 * MS : 1;
	p.start_ns = p.enter_ns + below(below(2) ? 60 * MS : 3000);
	p.end_ns = p.start_ns + below(10 * MS);
	if (p.enter_ns > p.start_ns)
		p.start_ns = p.enter_ns;
	p.has_task_queue = below(2);
	p.task_queue_ns = below(5 * MS);
	uint64_t left = (p.has_start ? p.start_ns : p.end_ns) - p.enter_ns;
	memset(rows, 0, sizeof(rows));
	p.breakdown = (struct profile_rows){.rows = rows, .count = below(9)};
	for (size_t i = 0; i < p.breakdown.count; i++) {
		rows[i].kind = kinds[below(5)];
		rows[i].exact = true;
		rows[i].ns = below(3) ? below(left + 1) : 0;
		left -= rows[i].ns;
	}
	if (p.breakdown.count > 0 && below(2)) { /* nothing unattributed: rows must give */
		rows[0].ns += left;
		left = 0;
	}
	p.unattributed_ns = left;
	return p;
}

static void
test_property(void **state)
{
	unsigned taken = 0, refused = 0, clipped_rows = 0;
	(void)state;
	for (unsigned n = 0; n < CASES; n++) {
		struct exchange_record record = record_random();
		struct profile p = profile_random(&record);
		struct profile_row before[8];
		struct join join;
		memcpy(before, rows, sizeof(rows));
		uint64_t unattributed = p.unattributed_ns;
		if (join_split(&record, &p, below(2), &join) != 0) {
			refused++;
			assert_memory_equal(before, rows, sizeof(rows));
			assert_int_equal(unattributed, p.unattributed_ns);
			continue;
		}
		taken++;
		assert_sums(&record, &p, &join);
		bool touched = false;
		for (size_t i = 0; i < p.breakdown.count; i++) {
			if (rows[i].ns > before[i].ns ||
			    rows[i].exact != (rows[i].ns == before[i].ns))
				fail_msg("a row grew, or its mark is wrong");
			touched |= rows[i].ns != before[i].ns;
		}
		/* No measured row is touched while anything is unattributed. */
		if (touched && p.unattributed_ns != 0)
			fail_msg("a row was cut before unattributed time was used up");
		clipped_rows += touched;
	}
	assert_true(taken > CASES / 4 && refused > CASES / 20 && clipped_rows > CASES / 20);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_plain),
	    cmocka_unit_test(test_enter_before_sent),
	    cmocka_unit_test(test_order_of_clipping),
	    cmocka_unit_test(test_slack_limits),
	    cmocka_unit_test(test_no_answer),
	    cmocka_unit_test(test_placed),
	    cmocka_unit_test(test_property),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
