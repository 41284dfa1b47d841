/* The closed list of causes (close_reasons.def): one enum, one name, one status each. Pure. */
#ifndef TAILRACE_MODEL_CLOSE_REASON_H
#define TAILRACE_MODEL_CLOSE_REASON_H

enum close_reason {
#define CLOSE_REASON(ID, name, status, text) CLOSE_##ID,
#include "model/close_reasons.def"
#undef CLOSE_REASON
	CLOSE_REASON_COUNT
};

/* Metric label, API `cause`, log word. Static storage; "unknown" beyond the list. */
const char *close_reason_name(enum close_reason reason);

/* One sentence for people: error bodies and docs. Static storage. */
const char *close_reason_text(enum close_reason reason);

/* Status of the local reply; 0 where nothing is sent. */
int close_reason_status(enum close_reason reason);

#endif
