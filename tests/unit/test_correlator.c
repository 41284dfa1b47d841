/* correlator: either side first, every outcome, parts, retries, bounds at their maximum and one past it; and at random:
 * every exchange is handed on once, every profile counted once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "model/correlator.h"

#define S NS_PER_S
#define MS NS_PER_MS
#define TIMEOUT_NS (10 * S)

struct seen {
	unsigned exchanges, provisional, late, tails;
	struct exchange_record record; /* the last one */
	enum profile_missing missing;
	bool has_profile, truncated;
	struct join join;
	uint32_t parts;
	uint64_t stream_ns, tail_ns;
	size_t stream_rows;
	unsigned per_exchange[4096]; /* finals, by the first two bytes of the trace */
};
static struct seen seen;

static void
on_exchange(void *arg, const struct exchange_record *record, size_t size,
	    const struct profile *profile, const struct join *join, enum profile_missing missing)
{
	const char *method, *path;
	assert_ptr_equal(arg, &seen);
	assert_int_equal(record_text(record, size, &method, &path), 0);
	assert_memory_equal(path, "/p", 2);
	if (record->flags & RECORD_PROVISIONAL) {
		seen.provisional++;
		return;
	}
	seen.exchanges++;
	seen.record = *record;
	seen.missing = missing;
	seen.has_profile = profile != NULL;
	assert_int_equal(profile != NULL, missing == MISSING_NOT);
	seen.per_exchange[(record->trace_id[0] << 8 | record->trace_id[1]) % 4096]++;
	if (profile == NULL)
		return;
	seen.join = *join;
	seen.truncated = profile->truncated;
	seen.parts = profile->parts;
	seen.stream_rows = profile->stream.count;
	seen.stream_ns = profile_rows_sum(&profile->stream, profile->stream_unattributed_ns);
	assert_int_equal(seen.stream_ns, join->app_stream_ns);
	if (profile->has_tail)
		seen.tail_ns = profile->tail_ns;
}

static void
on_late(void *arg, const struct profile_key *key)
{
	(void)arg;
	(void)key;
	seen.late++;
}

static void
on_tail(void *arg, const struct profile_key *key, uint64_t tail_ns)
{
	(void)arg;
	(void)key;
	seen.tails++;
	seen.tail_ns = tail_ns;
}

static struct correlator_options
options(void)
{
	return (struct correlator_options){
	    .join_timeout_ns = TIMEOUT_NS,
	    .exchanges_max = 8,
	    .profiles_max = 8,
	    .profile_bytes_max = 1 << 20,
	    .done_max = 64,
	    .boot_id = "c181387b-f975-4f1d-b700-466102bad21a",
	    .time_namespace = 5,
	    .events = {&seen, on_exchange, on_late, on_tail},
	};
}

static struct correlator *
fresh(void)
{
	struct correlator_options o = options();
	memset(&seen, 0, sizeof(seen));
	return correlator_new(&o);
}

static struct profile_key
key_of(unsigned trace, unsigned span)
{
	struct profile_key key = {{0}, {0}};
	key.trace_id[0] = (uint8_t)(trace >> 8);
	key.trace_id[1] = (uint8_t)trace;
	key.trace_id[15] = 1;
	key.span_id[0] = (uint8_t)span;
	return key;
}

/* t5 = begin, t7 = begin + 100 ms, t11 = begin + 200 ms */
static struct exchange_record *
record_of(unsigned trace, unsigned span, uint64_t begin_ns, size_t *ret_size)
{
	static _Alignas(8) char memory[RECORD_SIZE_MAX];
	struct exchange_record *record = (struct exchange_record *)memory;
	struct profile_key key = key_of(trace, span);
	*record = (struct exchange_record){.attempts = 1, .died_in = PHASE_COUNT, .status = 200,
					   .method_length = 3, .path_length = 2};
	memcpy(record->trace_id, key.trace_id, TRACE_ID_SIZE);
	memcpy(record->span_id, key.span_id, SPAN_ID_SIZE);
	memcpy(memory + sizeof(*record), "GET/p", 5);
	for (unsigned i = 0; i < MARK_COUNT; i++)
		record->marks_ns[i] = begin_ns + (i >= MARK_READ_FIRST ? 100 * MS : 0) +
				      (i >= MARK_END ? 100 * MS : 0);
	*ret_size = sizeof(*record) + 5;
	return record;
}

static void
put_record(struct correlator *c, unsigned trace, unsigned span, uint64_t begin_ns)
{
	size_t size;
	struct exchange_record *record = record_of(trace, span, begin_ns, &size);
	correlator_record(c, record, size, begin_ns + 200 * MS);
}

/* Enter = begin + 10 ms, start = begin + 90 ms, end = begin + 150 ms. */
static struct profile *
profile_of(unsigned trace, unsigned span, uint64_t begin_ns)
{
	struct profile *p = xcalloc(1, sizeof(*p));
	p->process = xcalloc(1, sizeof(*p->process));
	p->process->references = 1;
	strcpy(p->process->boot_id, "c181387b-f975-4f1d-b700-466102bad21a");
	p->process->time_namespace = 5;
	p->key = key_of(trace, span);
	p->parts = 1;
	p->final = true;
	p->has_start = true;
	p->enter_ns = begin_ns + 10 * MS;
	p->start_ns = begin_ns + 90 * MS;
	p->end_ns = begin_ns + 150 * MS;
	p->unattributed_ns = 80 * MS;
	p->stream_unattributed_ns = 60 * MS;
	p->bytes = sizeof(*p);
	return p;
}

static uint64_t
outcome(struct correlator *c, enum profile_outcome which)
{
	struct correlator_stats stats;
	correlator_stats(c, &stats);
	return stats.outcomes[which];
}

static uint64_t
outcomes(struct correlator *c)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < PROFILE_OUTCOME_COUNT; i++)
		sum += outcome(c, i);
	return sum;
}

static void
assert_empty(struct correlator *c)
{
	struct correlator_stats stats;
	correlator_stats(c, &stats);
	assert_int_equal(stats.exchanges_waiting, 0);
	assert_int_equal(stats.exchanges_open, 0);
	assert_int_equal(stats.profiles_waiting, 0);
	assert_int_equal(stats.profile_bytes, 0);
}

static void
test_either_first(void **state)
{
	(void)state;
	for (int profile_first = 0; profile_first < 2; profile_first++) {
		struct correlator *c = fresh();
		if (profile_first)
			correlator_profile(c, profile_of(1, 1, S), S);
		put_record(c, 1, 1, S);
		assert_int_equal(seen.exchanges, profile_first);
		if (!profile_first)
			correlator_profile(c, profile_of(1, 1, S), 2 * S);
		assert_int_equal(seen.exchanges, 1);
		assert_true(seen.has_profile && seen.join.shared);
		assert_int_equal(seen.join.app_queue_ns, 10 * MS);
		assert_int_equal(seen.join.app_ns, 80 * MS);
		assert_int_equal(seen.join.app_out_ns, 10 * MS);
		assert_int_equal(outcome(c, PROFILE_JOINED), 1);
		assert_empty(c);
		correlator_profile(c, profile_of(1, 1, S), 2 * S); /* sent again */
		assert_int_equal(outcome(c, PROFILE_REPEATED), 1);
		assert_int_equal(seen.exchanges, 1);
		correlator_free(c);
	}
}

static void
test_key_is_both(void **state)
{
	(void)state;
	/* A trusted client repeats trace IDs: the span tells them apart. */
	struct correlator *c = fresh();
	put_record(c, 1, 1, S);
	put_record(c, 1, 2, S);
	correlator_profile(c, profile_of(1, 2, S), 2 * S);
	assert_int_equal(seen.record.span_id[0], 2);
	correlator_profile(c, profile_of(2, 1, S), 2 * S);
	assert_int_equal(seen.exchanges, 1);
	correlator_free(c);
}

static void
test_timeouts(void **state)
{
	struct correlator *c = fresh();
	(void)state;
	put_record(c, 1, 1, S); /* ends at 1.2 s */
	assert_false(correlator_expire(c, 1200 * MS + TIMEOUT_NS - 1, 100));
	assert_int_equal(seen.exchanges, 0);
	correlator_expire(c, 1200 * MS + TIMEOUT_NS, 100);
	assert_int_equal(seen.exchanges, 1);
	assert_int_equal(seen.missing, MISSING_NO_HOOK); /* this server never sent one */
	correlator_profile(c, profile_of(1, 1, S), 12 * S);
	assert_int_equal(outcome(c, PROFILE_LATE), 1);
	assert_int_equal(seen.late, 1);
	correlator_profile(c, profile_of(1, 1, S), 12 * S);
	assert_int_equal(outcome(c, PROFILE_REPEATED), 1);
	assert_int_equal(seen.late, 1);
	/* Once the server has joined one, it has a hook: the next that is missing is late. */
	put_record(c, 2, 1, 20 * S);
	correlator_profile(c, profile_of(2, 1, 20 * S), 20 * S);
	put_record(c, 3, 1, 21 * S);
	correlator_expire(c, 40 * S, 100);
	assert_int_equal(seen.missing, MISSING_LATE);
	put_record(c, 4, 1, 41 * S);
	correlator_lost(c, 42 * S);
	correlator_expire(c, 60 * S, 100);
	assert_int_equal(seen.missing, MISSING_DROPPED);
	/* A server that has joined none for long has no hook any more. */
	put_record(c, 5, 1, 1000 * S);
	correlator_expire(c, 1020 * S, 100);
	assert_int_equal(seen.missing, MISSING_NO_HOOK);
	/* Profiles without an exchange. */
	correlator_profile(c, profile_of(6, 1, 1100 * S), 1100 * S);
	correlator_expire(c, 1100 * S + TIMEOUT_NS + CORRELATOR_ORPHAN_EXTRA_NS - 1, 100);
	assert_int_equal(outcome(c, PROFILE_ORPHANED), 0);
	correlator_expire(c, 1100 * S + TIMEOUT_NS + CORRELATOR_ORPHAN_EXTRA_NS, 100);
	assert_int_equal(outcome(c, PROFILE_ORPHANED), 1);
	assert_empty(c);
	correlator_free(c);
}

static void
test_expire_budget(void **state)
{
	struct correlator *c = fresh();
	(void)state;
	for (unsigned i = 0; i < 5; i++)
		put_record(c, i, 1, S);
	assert_true(correlator_expire(c, 100 * S, 2));
	assert_int_equal(seen.exchanges, 2);
	assert_false(correlator_expire(c, 100 * S, 3));
	assert_int_equal(seen.exchanges, 5);
	correlator_free(c);
}

static void
test_not_sent(void **state)
{
	struct correlator *c = fresh();
	size_t size;
	(void)state;
	/* Nothing was sent to an app: nothing is waited for. */
	struct exchange_record *record = record_of(1, 0, S, &size);
	record->attempts = 0;
	record->died_in = PHASE_ADMIT;
	correlator_record(c, record, size, S);
	record = record_of(2, 3, S, &size);
	record->died_in = PHASE_CONNECT;
	correlator_record(c, record, size, S);
	assert_int_equal(seen.exchanges, 2);
	assert_int_equal(seen.missing, MISSING_NO_HOOK);
	assert_empty(c);
	correlator_free(c);
}

static void
put_retried(struct correlator *c, uint64_t begin_ns)
{
	size_t size;
	struct exchange_record *record = record_of(1, 3, begin_ns, &size);
	record->attempts = 3;
	record->earlier_spans[0][0] = 1;
	record->earlier_spans[1][0] = 2;
	correlator_record(c, record, size, begin_ns);
}

static void
test_retries(void **state)
{
	struct correlator *c = fresh();
	(void)state;
	correlator_profile(c, profile_of(1, 1, S), S); /* before the record */
	put_retried(c, S);
	assert_int_equal(outcome(c, PROFILE_SUPERSEDED), 1);
	correlator_profile(c, profile_of(1, 2, S), S); /* after it */
	assert_int_equal(outcome(c, PROFILE_SUPERSEDED), 2);
	correlator_profile(c, profile_of(1, 2, S), S);
	assert_int_equal(outcome(c, PROFILE_REPEATED), 1);
	assert_int_equal(seen.exchanges, 0);
	correlator_profile(c, profile_of(1, 3, S), S);
	assert_int_equal(outcome(c, PROFILE_JOINED), 1);
	assert_int_equal(seen.exchanges, 1);
	correlator_free(c);
}

static void
test_refused_keeps_waiting(void **state)
{
	(void)state;
	for (int profile_first = 0; profile_first < 2; profile_first++) {
		struct correlator *c = fresh();
		struct profile *forged = profile_of(1, 1, S);
		forged->start_ns += 200 * MS; /* long after t7 */
		forged->end_ns += 200 * MS;
		forged->unattributed_ns += 200 * MS;
		if (profile_first)
			correlator_profile(c, forged, S);
		put_record(c, 1, 1, S);
		if (!profile_first)
			correlator_profile(c, forged, S);
		assert_int_equal(outcome(c, PROFILE_REFUSED), 1);
		assert_int_equal(seen.exchanges, 0);
		if (profile_first) { /* the true one still joins */
			correlator_profile(c, profile_of(1, 1, S), S);
			assert_true(seen.has_profile);
		} else {
			correlator_expire(c, 100 * S, 10);
			assert_int_equal(seen.missing, MISSING_REFUSED);
		}
		assert_int_equal(seen.exchanges, 1);
		correlator_free(c);
	}
	struct correlator *c = fresh();
	struct profile_key key = key_of(1, 1);
	put_record(c, 1, 1, S);
	correlator_refused(c, &key); /* by its own checks */
	assert_int_equal(outcome(c, PROFILE_REFUSED), 1);
	correlator_expire(c, 100 * S, 10);
	assert_int_equal(seen.missing, MISSING_REFUSED);
	correlator_free(c);
}

static struct profile *
part_of(unsigned part, bool final, uint64_t from_ns, uint64_t to_ns)
{
	struct profile *p = profile_of(1, 1, S);
	p->parts = part + 1;
	p->final = final;
	p->end_ns = to_ns;
	p->stream_unattributed_ns = 0;
	if (part > 0)
		p->unattributed_ns = 0;
	else
		from_ns = p->start_ns;
	p->stream.rows = xcalloc(1, sizeof(*p->stream.rows));
	p->stream.count = 1;
	p->stream.rows[0] = (struct profile_row){.kind = PROFILE_WAIT, .exact = true, .stack_id = -1,
						 .cause = PROFILE_CAUSE_SLEEP, .ns = to_ns - from_ns};
	return p;
}

static void
put_open(struct correlator *c, bool provisional, uint64_t now_ns)
{
	size_t size;
	struct exchange_record *record = record_of(1, 1, S, &size);
	record->marks_ns[MARK_END] = now_ns;
	record->marks_ns[MARK_READ_LAST] = now_ns;
	if (provisional)
		record->flags = RECORD_PROVISIONAL;
	correlator_record(c, record, size, now_ns);
}

static void
test_parts(void **state)
{
	struct correlator *c = fresh();
	(void)state;
	correlator_profile(c, part_of(0, false, 0, 11 * S), 11 * S);
	put_open(c, true, 11 * S);
	assert_int_equal(seen.provisional, 1);
	assert_int_equal(seen.exchanges, 0);
	put_open(c, true, 11 * S);
	assert_int_equal(seen.provisional, 1);
	correlator_profile(c, part_of(2, false, 21 * S, 31 * S), 31 * S); /* out of order */
	assert_int_equal(outcome(c, PROFILE_REFUSED), 1);
	correlator_profile(c, part_of(1, false, 11 * S, 21 * S), 21 * S);
	correlator_profile(c, part_of(1, false, 11 * S, 21 * S), 21 * S);
	assert_int_equal(outcome(c, PROFILE_REPEATED), 1);
	struct profile *wrong = part_of(2, true, 20 * S, 25 * S); /* sums to one second too much */
	correlator_profile(c, wrong, 25 * S);
	assert_int_equal(outcome(c, PROFILE_REFUSED), 2);
	correlator_expire(c, 40 * S, 10);
	correlator_profile(c, part_of(2, true, 21 * S, 25 * S), 25 * S);
	assert_int_equal(seen.exchanges, 0); /* whole, but the exchange has not ended */
	put_open(c, false, 25 * S);
	assert_int_equal(seen.exchanges, 1);
	assert_int_equal(seen.parts, 3);
	assert_int_equal(seen.stream_rows, 1); /* equal rows are merged */
	assert_int_equal(seen.stream_ns, 25 * S - (S + 90 * MS));
	assert_false(seen.truncated);
	assert_int_equal(outcome(c, PROFILE_JOINED), 1);
	assert_empty(c);
	correlator_free(c);
}

static void
test_parts_cut_short(void **state)
{
	struct correlator *c = fresh();
	(void)state;
	/* The last part never comes: joined with those that did, and marked. */
	put_open(c, true, 11 * S);
	correlator_profile(c, part_of(0, false, 0, 11 * S), 11 * S);
	put_open(c, false, 25 * S);
	assert_int_equal(seen.exchanges, 0);
	correlator_expire(c, 25 * S + TIMEOUT_NS, 10);
	assert_int_equal(seen.exchanges, 1);
	assert_true(seen.has_profile && seen.truncated);
	correlator_profile(c, part_of(1, true, 11 * S, 21 * S), 36 * S);
	assert_int_equal(outcome(c, PROFILE_LATE), 1);
	assert_int_equal(seen.late, 0); /* it has a profile: nothing is corrected */
	/* A first part that nobody knows of. */
	struct profile *lone = part_of(1, true, 11 * S, 21 * S);
	lone->key = key_of(9, 9);
	correlator_profile(c, lone, 36 * S);
	assert_int_equal(outcome(c, PROFILE_REFUSED), 1);
	correlator_free(c);
}

static void
test_tails(void **state)
{
	struct correlator *c = fresh();
	struct profile_key key = key_of(1, 1), other = key_of(2, 2);
	(void)state;
	correlator_profile(c, profile_of(1, 1, S), S);
	correlator_tail(c, &key, 77);
	correlator_tail(c, &other, 5);
	put_record(c, 1, 1, S);
	assert_int_equal(seen.tail_ns, 77);
	assert_int_equal(seen.tails, 0);
	correlator_tail(c, &key, 88);
	assert_int_equal(seen.tails, 1);
	assert_int_equal(seen.tail_ns, 88);
	correlator_free(c);
}

static void
test_exchanges_max(void **state)
{
	struct correlator *c = fresh();
	struct correlator_stats stats;
	(void)state;
	for (unsigned i = 0; i < 8; i++)
		put_record(c, 10 + i, 1, S + i);
	assert_int_equal(seen.exchanges, 0);
	put_record(c, 18, 1, S + 8);
	assert_int_equal(seen.exchanges, 1);
	assert_int_equal(seen.record.trace_id[1], 10); /* the oldest */
	assert_int_equal(seen.missing, MISSING_DROPPED);
	correlator_stats(c, &stats);
	assert_int_equal(stats.exchanges_displaced, 1);
	assert_int_equal(stats.exchanges_waiting, 8);
	correlator_free(c);
}

static void
test_profiles_max(void **state)
{
	struct correlator *c = fresh();
	(void)state;
	for (unsigned i = 0; i < 7; i++)
		correlator_profile(c, profile_of(i, 1, S), S);
	assert_true(correlator_has_room(c, 1, 100));
	assert_false(correlator_has_room(c, 2, 100));
	assert_true(correlator_has_room(c, 1, (1 << 20) - 7 * sizeof(struct profile)));
	assert_false(correlator_has_room(c, 1, (1 << 20) - 7 * sizeof(struct profile) + 1));
	correlator_profile(c, profile_of(7, 1, S), S);
	assert_false(correlator_has_room(c, 1, 100));
	put_record(c, 3, 1, S);
	assert_true(correlator_has_room(c, 1, 100));
	correlator_free(c);
}

static void
test_done_max(void **state)
{
	struct correlator *c = fresh();
	struct correlator_stats stats;
	(void)state;
	for (unsigned i = 0; i < 65; i++) {
		put_record(c, i, 1, S);
		correlator_profile(c, profile_of(i, 1, S), S);
	}
	correlator_stats(c, &stats);
	assert_int_equal(stats.done_displaced, 1);
	correlator_profile(c, profile_of(1, 1, S), S);
	assert_int_equal(outcome(c, PROFILE_REPEATED), 1);
	correlator_profile(c, profile_of(0, 1, S), S); /* forgotten: it waits, and is orphaned */
	assert_int_equal(outcome(c, PROFILE_REPEATED), 1);
	correlator_expire(c, 50 * S, 1000);
	assert_int_equal(outcome(c, PROFILE_ORPHANED), 1);
	correlator_free(c);
}

static void
test_finish(void **state)
{
	struct correlator *c = fresh();
	(void)state;
	put_record(c, 1, 1, S);
	correlator_profile(c, profile_of(2, 1, S), S);
	correlator_finish(c, 2 * S);
	assert_int_equal(seen.exchanges, 1);
	assert_false(seen.has_profile);
	assert_int_equal(outcome(c, PROFILE_ORPHANED), 1);
	assert_empty(c);
	correlator_free(c);
}

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static unsigned
below(unsigned n)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return (unsigned)((seed * 0x2545f4914f6cdd1dull >> 33) % n);
}

/* Random order of both sides, some lost, some doubled: nothing is handed on twice or counted twice. */
static void
test_random(void **state)
{
	enum { N = 3000 };
	static bool recorded[N];
	struct correlator_options o = options();
	uint64_t profiles = 0, now_ns = S, waiting = 0;
	unsigned records = 0;
	(void)state;
	memset(&seen, 0, sizeof(seen));
	o.exchanges_max = 100;
	o.done_max = 4096;
	struct correlator *c = correlator_new(&o);
	for (unsigned i = 0; i < 40000; i++) {
		unsigned base = i * N / 40000, n = base + below(30);
		now_ns += below(3000) * NS_PER_US;
		if (n >= N)
			continue;
		if (below(2) && !recorded[n]) {
			recorded[n] = true;
			records++;
			put_record(c, n, 1, now_ns - 200 * MS);
		} else {
			struct profile *p = profile_of(n, 1, now_ns - 200 * MS);
			if (correlator_has_room(c, 1, p->bytes)) {
				profiles++;
				correlator_profile(c, p, now_ns);
			} else {
				profile_free(p);
			}
		}
		if (below(10) == 0)
			correlator_expire(c, now_ns, below(20));
	}
	correlator_finish(c, now_ns);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(seen.per_exchange[i], recorded[i]);
	assert_int_equal(seen.exchanges, records);
	assert_int_equal(outcomes(c) + waiting, profiles);
	assert_true(outcome(c, PROFILE_JOINED) > 100);
	assert_empty(c);
	correlator_free(c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_either_first),
	    cmocka_unit_test(test_key_is_both),
	    cmocka_unit_test(test_timeouts),
	    cmocka_unit_test(test_expire_budget),
	    cmocka_unit_test(test_not_sent),
	    cmocka_unit_test(test_retries),
	    cmocka_unit_test(test_refused_keeps_waiting),
	    cmocka_unit_test(test_parts),
	    cmocka_unit_test(test_parts_cut_short),
	    cmocka_unit_test(test_tails),
	    cmocka_unit_test(test_exchanges_max),
	    cmocka_unit_test(test_profiles_max),
	    cmocka_unit_test(test_done_max),
	    cmocka_unit_test(test_finish),
	    cmocka_unit_test(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
