/* correlator: either side first, every outcome, retries, bounds at their maximum and past it. */
#include "correlator_fixture.h"

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

static void
test_exchanges_max(void **state)
{
	(void)state;
	for (int has_hook = 0; has_hook < 2; has_hook++) {
		struct correlator *c = fresh();
		struct correlator_stats stats;
		if (has_hook) {
			put_record(c, 1, 1, S);
			correlator_profile(c, profile_of(1, 1, S), S);
		}
		for (unsigned i = 0; i < 8; i++)
			put_record(c, 10 + i, 1, S + i);
		assert_int_equal(seen.exchanges, has_hook);
		put_record(c, 18, 1, S + 8);
		assert_int_equal(seen.exchanges, has_hook + 1);
		assert_int_equal(seen.record.trace_id[1], 10); /* the oldest */
		assert_int_equal(seen.missing, has_hook ? MISSING_DROPPED : MISSING_NO_HOOK);
		correlator_stats(c, &stats);
		assert_int_equal(stats.exchanges_displaced, 1);
		assert_int_equal(stats.exchanges_waiting, 8);
		correlator_free(c);
	}
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
	    cmocka_unit_test(test_exchanges_max),
	    cmocka_unit_test(test_profiles_max),
	    cmocka_unit_test(test_done_max),
	    cmocka_unit_test(test_finish),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
