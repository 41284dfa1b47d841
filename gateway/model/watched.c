/* What the detector looks at. */
#include "model/watched.h"

/* Marks stand in order: phase i goes from mark i to mark i + 1. */
static uint64_t
phase_ns(const struct exchange_record *record, enum phase phase)
{
	return record->marks_ns[phase + 1] - record->marks_ns[phase];
}

bool
watched_counts(const struct exchange_record *record)
{
	return record->status >= 200 && record->status < 500 && record->died_in == PHASE_COUNT &&
	       !(record->flags & (RECORD_PROVISIONAL | RECORD_LOCAL_REPLY | RECORD_EVENT_STREAM));
}

uint64_t
watched_ns(const struct exchange_record *record, enum config_latency latency)
{
	const uint64_t *marks = record->marks_ns;
	uint64_t total_ns = marks[MARK_END] - marks[MARK_START];

	if (latency == CONFIG_LATENCY_FIRST_BYTE)
		return marks[MARK_REPLIED] - marks[MARK_START];
	if (latency == CONFIG_LATENCY_TOTAL)
		return total_ns;
	total_ns -= phase_ns(record, PHASE_HEAD) + phase_ns(record, PHASE_SEND) +
	            phase_ns(record, PHASE_DRAIN);
	/* A body larger than all buffers: the app was not read because the client did not. */
	uint64_t paused_ns = record->backpressure_ns, stream_ns = phase_ns(record, PHASE_STREAM);
	return total_ns - (paused_ns < stream_ns ? paused_ns : stream_ns);
}
