/* The split of an exchange by its profile (docs/internals.md section 7): t5 to t7 = app_queue + app +
 * app_out, exactly, and the profile's rows + unattributed = app, exactly. Pure. */
#ifndef TAILRACE_MODEL_JOIN_H
#define TAILRACE_MODEL_JOIN_H

#include <stdbool.h>
#include <stdint.h>
#include "model/profile.h"
#include "model/record.h"

#define JOIN_SLACK_MAX_NS \
	(10 * NS_PER_MS) /* disorder of two clocks that is clamped; more is refused */

struct join {
	bool shared;       /* both clocks are one; else the app's part is placed by causality */
	uint64_t slack_ns; /* shared: disorder that was clamped; placed: how far the app's part may
	                      be off */
	uint64_t app_queue_ns, app_ns, app_out_ns;
	uint64_t clipped_ns; /* app time outside t5 to t7: before the first byte was sent, or after
	                      * an exchange that never saw a response */
	uint64_t app_stream_ns;
};

/* Whether the record's last attempt sent something, and whether a response came (t5 and t7 are
 * real). */
bool record_was_sent(const struct exchange_record *record);
bool record_was_answered(const struct exchange_record *record);

/* 5xx, exchanges that died or were cut off, and those without an answer. */
bool record_is_error(const struct exchange_record *record);

/* Computes the split, and fits the profile's rows to it: what is clipped is taken from
 * unattributed_ns and, only where that does not suffice, from rows (run first, then ready, then the
 * others), which are then marked not exact. What held the loop before the ASGI call is cut to
 * app_queue. Returns 0, or -1 with the profile untouched where the
 * two cannot be the same request. */
int join_split(const struct exchange_record *record, struct profile *profile, bool shared,
               struct join *ret);

#endif
