/* correlator: long responses in parts, tails; and at random: every exchange is handed on once,
 * every profile counted once. */
#include "correlator_fixture.h"

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
	p->stream.rows[0] = (struct profile_row){.kind = PROFILE_WAIT,
	                                         .exact = true,
	                                         .stack_id = -1,
	                                         .cause = PROFILE_CAUSE_SLEEP,
	                                         .ns = to_ns - from_ns};
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

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static unsigned
below(unsigned n)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return (unsigned)((seed * 0x2545f4914f6cdd1dull >> 33) % n);
}

/* Random order of both sides, some lost, some doubled: nothing is handed on twice or counted twice.
 */
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
	    cmocka_unit_test(test_parts),
	    cmocka_unit_test(test_parts_cut_short),
	    cmocka_unit_test(test_tails),
	    cmocka_unit_test(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
