/* Marks -> phases. The order of marks is mended in one place, marks_close(), once per exchange, so
 * that everything downstream may rely on twelve non-negative durations that sum to the total. */
#include "model/phase.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const phase_names[PHASE_COUNT] = {
#define PHASE(ID, name, text) [PHASE_##ID] = name,
#include "model/phases.def"
#undef PHASE
};

static_assert(MARK_COUNT == PHASE_COUNT + 1, "mark i+1 ends phase i");

const char *
phase_name(enum phase phase)
{
	assert(phase < PHASE_COUNT);
	return phase_names[phase];
}

void
mark_once(struct marks *marks, enum mark mark, uint64_t now_ns)
{
	if (marks->at_ns[mark] == 0)
		marks->at_ns[mark] = now_ns;
}

void
marks_retry(struct marks *marks)
{
	for (unsigned i = MARK_SLOT_LAST; i <= MARK_REPLY_HEAD; i++)
		marks->at_ns[i] = 0;
}

enum phase
marks_running(const struct marks *marks)
{
	unsigned last = MARK_START;

	for (unsigned i = MARK_HEAD; i < MARK_COUNT; i++) {
		/* A short response is read whole before its first byte goes out: still `reply`. */
		if (i == MARK_READ_LAST && marks->at_ns[MARK_REPLIED] == 0)
			continue;
		if (marks->at_ns[i] != 0)
			last = i;
	}
	return (enum phase)last; /* phase i runs from mark i; MARK_END gives PHASE_COUNT */
}

static uint64_t
min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void
fill_unset(uint64_t *at_ns, unsigned from, unsigned to, uint64_t value_ns)
{
	for (unsigned i = from; i <= to; i++)
		if (at_ns[i] == 0)
			at_ns[i] = value_ns;
}

/* A response that was delivered leaves at most t6 (early answer) and t10 open: they take the next
 * mark. */
static void
fill_from_next(uint64_t *at_ns)
{
	for (unsigned i = MARK_END; i-- > MARK_START;)
		if (at_ns[i] == 0)
			at_ns[i] = at_ns[i + 1];
}

void
marks_close(struct marks *marks, enum phase_end how, uint64_t decision_ns, uint64_t end_ns)
{
	uint64_t *at = marks->at_ns;
	uint64_t end;

	if (at[MARK_END] == 0)
		at[MARK_END] = end_ns;
	if (at[MARK_END] < at[MARK_START])
		at[MARK_END] = at[MARK_START];
	end = at[MARK_END];
	switch (how) {
	case PHASE_END_LOCAL:
		fill_unset(at, MARK_START, MARK_REPLY_HEAD, decision_ns);
		fill_unset(at, MARK_REPLIED, MARK_REPLIED, end);
		at[MARK_READ_LAST] = at[MARK_REPLIED];
		break;
	case PHASE_END_ABORT:
		fill_unset(at, MARK_START, MARK_READ_LAST, end);
		break;
	case PHASE_END_DONE:
		fill_from_next(at);
		break;
	}
	at[MARK_SENT_LAST] = min_u64(at[MARK_SENT_LAST], at[MARK_READ_FIRST]);
	/* The last byte is often read before the first one goes out: the monotone pass lifts it. */
	for (unsigned i = MARK_HEAD; i < MARK_END; i++) {
		at[i] = min_u64(at[i], end);
		if (at[i] < at[i - 1])
			at[i] = at[i - 1];
	}
}

void
marks_phases(const struct marks *closed, uint64_t ret_ns[PHASE_COUNT])
{
	for (unsigned i = 0; i < PHASE_COUNT; i++)
		ret_ns[i] = closed->at_ns[i + 1] - closed->at_ns[i];
}

size_t
phase_server_timing(const struct marks *marks, char *buf, size_t size)
{
	struct marks known = *marks;
	uint64_t ns[PHASE_COUNT];
	size_t length = 0;

	for (unsigned i = MARK_REPLIED; i < MARK_COUNT; i++)
		known.at_ns[i] = known.at_ns[MARK_REPLY_HEAD];
	marks_close(&known, PHASE_END_DONE, 0, 0);
	marks_phases(&known, ns);
	for (unsigned i = PHASE_HEAD; i <= PHASE_WAIT; i++) {
		int n = snprintf(buf + length, size - length, "%s%s;dur=%" PRIu64 ".%03" PRIu64,
		                 i == 0 ? "" : ", ", phase_names[i], ns[i] / 1000000,
		                 ns[i] / 1000 % 1000);

		if (n < 0 || (size_t)n >= size - length)
			return 0;
		length += (size_t)n;
	}
	return length;
}
