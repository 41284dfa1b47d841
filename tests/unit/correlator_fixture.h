/* What the correlator's tests share: events written down, records and profiles made by hand. */
#ifndef TAILRACE_TESTS_CORRELATOR_FIXTURE_H
#define TAILRACE_TESTS_CORRELATOR_FIXTURE_H

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

static inline void
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

static inline void
on_late(void *arg, const struct profile_key *key)
{
	(void)arg;
	(void)key;
	seen.late++;
}

static inline void
on_tail(void *arg, const struct profile_key *key, uint64_t tail_ns)
{
	(void)arg;
	(void)key;
	seen.tails++;
	seen.tail_ns = tail_ns;
}

static inline struct correlator_options
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

static inline struct correlator *
fresh(void)
{
	struct correlator_options o = options();
	memset(&seen, 0, sizeof(seen));
	return correlator_new(&o);
}

static inline struct profile_key
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
static inline struct exchange_record *
record_of(unsigned trace, unsigned span, uint64_t begin_ns, size_t *ret_size)
{
	static _Alignas(8) char memory[RECORD_SIZE_MAX];
	struct exchange_record *record = (struct exchange_record *)memory;
	struct profile_key key = key_of(trace, span);
	*record = (struct exchange_record){.attempts = 1,
	                                   .died_in = PHASE_COUNT,
	                                   .status = 200,
	                                   .method_length = 3,
	                                   .path_length = 2};
	memcpy(record->trace_id, key.trace_id, TRACE_ID_SIZE);
	memcpy(record->span_id, key.span_id, SPAN_ID_SIZE);
	memcpy(memory + sizeof(*record), "GET/p", 5);
	for (unsigned i = 0; i < MARK_COUNT; i++)
		record->marks_ns[i] = begin_ns + (i >= MARK_READ_FIRST ? 100 * MS : 0) +
		                      (i >= MARK_END ? 100 * MS : 0);
	*ret_size = sizeof(*record) + 5;
	return record;
}

static inline void
put_record(struct correlator *c, unsigned trace, unsigned span, uint64_t begin_ns)
{
	size_t size;
	struct exchange_record *record = record_of(trace, span, begin_ns, &size);
	correlator_record(c, record, size, begin_ns + 200 * MS);
}

/* Enter = begin + 10 ms, start = begin + 90 ms, end = begin + 150 ms. */
static inline struct profile *
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

static inline uint64_t
outcome(struct correlator *c, enum profile_outcome which)
{
	struct correlator_stats stats;
	correlator_stats(c, &stats);
	return stats.outcomes[which];
}

static inline uint64_t
outcomes(struct correlator *c)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < PROFILE_OUTCOME_COUNT; i++)
		sum += outcome(c, i);
	return sum;
}

static inline void
assert_empty(struct correlator *c)
{
	struct correlator_stats stats;
	correlator_stats(c, &stats);
	assert_int_equal(stats.exchanges_waiting, 0);
	assert_int_equal(stats.exchanges_open, 0);
	assert_int_equal(stats.profiles_waiting, 0);
	assert_int_equal(stats.profile_bytes, 0);
}

#endif
