/* Marks and phases of one exchange (docs/internals.md section 3): twelve intervals that sum to the total.
 * Pure: no clock is read here, every time is an argument in CLOCK_MONOTONIC nanoseconds. */
#ifndef TAILRACE_MODEL_PHASE_H
#define TAILRACE_MODEL_PHASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum phase {
#define PHASE(ID, name, text) PHASE_##ID,
#include "model/phases.def"
#undef PHASE
	PHASE_COUNT /* also: "no phase" where a phase is optional */
};

/* One timestamp of an exchange. Mark i+1 ends phase i. The names in brackets are the design's. */
enum mark {
	MARK_START,      /* t0 first byte of the request read */
	MARK_HEAD,       /* t1 head parsed and accepted */
	MARK_ADMIT,      /* t2 handed to the upstream scheduler */
	MARK_SLOT_FIRST, /* t3 slot granted for the first attempt */
	MARK_SLOT_LAST,  /* t3' slot granted for the last attempt */
	MARK_CONNECTED,  /* t4 connection usable */
	MARK_SENT_FIRST, /* t5 first byte of the request head taken by the kernel */
	MARK_SENT_LAST,  /* t6 last byte of the request taken by the kernel; m6 = min(t6, t7) */
	MARK_READ_FIRST, /* t7 first byte of the final response read */
	MARK_REPLY_HEAD, /* t8 response head parsed and accepted */
	MARK_REPLIED,    /* t9 first response byte taken by the kernel towards the client */
	MARK_READ_LAST,  /* t10 last response byte read; m10 = clamp(t10, t9, t11) */
	MARK_END,        /* t11 last response byte taken by the kernel towards the client */
	MARK_COUNT
};

/* An exchange's marks while it lives. 0 = not reached. */
struct marks {
	uint64_t at_ns[MARK_COUNT];
};

/* How the exchange came to its end, which decides what unset marks become. */
enum phase_end {
	PHASE_END_DONE,  /* the app's response was delivered */
	PHASE_END_LOCAL, /* answered by the gateway itself: unset marks up to t8 = decision */
	PHASE_END_ABORT, /* cut off: every unset mark = end */
};

/* The name users see, as in docs/api.md. `phase` < PHASE_COUNT. Static storage. */
const char *phase_name(enum phase phase);

/* Sets a mark to `now_ns`. A mark that is set already keeps its first value. */
void mark_once(struct marks *marks, enum mark mark, uint64_t now_ns);

/* Forgets every mark of the attempt that failed (t3' and on) before the next one starts, so that
 * t7 and t5 tell of the last attempt only. Times up to t3 stay. */
void marks_retry(struct marks *marks);

/* The phase that is running now: the one that ends at the first mark not reached. What `died_in`
 * is when an exchange is cut off or answered locally. PHASE_COUNT when all marks are set. */
enum phase marks_running(const struct marks *marks);

/*
 * Closes the marks: fills what was not reached, clamps m6 and m10, makes the order monotone (once,
 * in mark order). `decision_ns` counts only for PHASE_END_LOCAL. `end_ns` is t11 where it is not
 * set (0 is allowed if it is). Afterwards marks->at_ns is monotone and fully set.
 */
void marks_close(struct marks *marks, enum phase_end how, uint64_t decision_ns, uint64_t end_ns);

/* The twelve durations of closed marks. Sum equals at_ns[MARK_END] - at_ns[MARK_START] exactly. */
void marks_phases(const struct marks *closed, uint64_t ret_ns[PHASE_COUNT]);

/* Server-Timing header value (W3C) of the phases known when the response head goes out (t8), in
 * milliseconds: "queue;dur=0.01, app;dur=12.4, ...". Returns the length written, 0 if it did not fit. */
size_t phase_server_timing(const struct marks *marks, char *buf, size_t size);

#endif
