/* The closed list of causes (close_reasons.def): one enum, one name, one status each. Pure. */
#ifndef TAILRACE_MODEL_CLOSE_REASON_H
#define TAILRACE_MODEL_CLOSE_REASON_H

#include <stdbool.h>

enum close_reason {
#define CLOSE_REASON(ID, name, status, text) CLOSE_##ID,
#include "model/close_reasons.def"
#undef CLOSE_REASON
	CLOSE_REASON_COUNT
};

/* What a client did wrong before its request was accepted; what the app did wrong in its answer. */
static inline bool
close_reason_is_refusal(enum close_reason reason)
{
	return reason >= CLOSE_BAD_REQUEST && reason <= CLOSE_BODY_TOO_SLOW;
}

static inline bool
close_reason_is_bad_answer(enum close_reason reason)
{
	return reason >= CLOSE_BAD_RESPONSE && reason <= CLOSE_RESPONSE_HEAD_TOO_LARGE;
}

/* The server could not be reached, or went away before its answer was whole. */
static inline bool
close_reason_is_no_answer(enum close_reason reason)
{
	return reason >= CLOSE_CONNECT_FAILED && reason <= CLOSE_UPSTREAM_RESET;
}

/* Metric label, API `cause`, log word. Static storage; "unknown" beyond the list. */
const char *close_reason_name(enum close_reason reason);

/* One sentence for people: error bodies and docs. Static storage. */
const char *close_reason_text(enum close_reason reason);

/* Status of the local reply; 0 where nothing is sent. */
int close_reason_status(enum close_reason reason);

#endif
