/* What the hook says of one attempt (docs/protocol.md section 2): rows, stalls, times; long
 * responses in parts that are put together here. Pure; one thread. */
#ifndef TAILRACE_MODEL_PROFILE_H
#define TAILRACE_MODEL_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/clock.h"
#include "model/record.h"
#include "model/stack.h"

#define PROFILE_STRING_MAX 512
#define PROFILE_VERSION_MAX 128 /* of the app */
#define PROFILE_ROWS_MAX 1024   /* breakdown, stream and stall rows of one profile together */
#define PROFILE_THREADS_MAX 64  /* functions of thread jobs of one profile */
#define PROFILE_HOLDS_MAX 16    /* stalls before its ASGI call, beside PROFILE_ROWS_MAX */
#define PROFILE_LIFE_MAX_NS (24ull * 3600 * NS_PER_S)
#define PROFILE_INSTANCE_SIZE 16

enum profile_kind {
#define PROFILE_KIND(ID, name, has_cause) PROFILE_##ID,
#include "model/profile_words.def"
#undef PROFILE_KIND
	PROFILE_KIND_COUNT
};

enum profile_cause {
#define PROFILE_CAUSE(ID, name) PROFILE_CAUSE_##ID,
#include "model/profile_words.def"
#undef PROFILE_CAUSE
	PROFILE_CAUSE_COUNT /* also: none */
};

enum profile_ended {
#define PROFILE_ENDED(ID, name) PROFILE_ENDED_##ID,
#include "model/profile_words.def"
#undef PROFILE_ENDED
	PROFILE_ENDED_COUNT
};

enum profile_stall_kind { PROFILE_STALL_STEP, PROFILE_STALL_CALLBACK, PROFILE_STALL_IO_CALLBACK };
enum profile_stall_state { PROFILE_STALL_BLOCKED, PROFILE_STALL_BUSY, PROFILE_STALL_UNKNOWN };

/* Join key: one attempt of one exchange. */
struct profile_key {
	uint8_t trace_id[TRACE_ID_SIZE];
	uint8_t span_id[SPAN_ID_SIZE];
};

/* The sender, shared by its profiles (reference-counted). */
struct profile_process {
	uint32_t references;
	uint8_t instance[PROFILE_INSTANCE_SIZE];
	uint32_t pid;
	char *python, *loop, *engine, *hook_version; /* owned */
	char *version;                               /* of the app; owned; null = not told */
	char boot_id[CLOCK_BOOT_ID_SIZE];            /* "" = not told */
	uint64_t time_namespace;                     /* 0 = not told */
	uint64_t dropped;
};

struct profile_row {
	uint8_t kind;  /* enum profile_kind */
	uint8_t cause; /* enum profile_cause, PROFILE_CAUSE_COUNT = none */
	bool exact, has_by_trace;
	uint8_t by_trace[TRACE_ID_SIZE];
	int64_t stack_id;    /* the instance's own; -1 = none */
	struct stack *stack; /* ref; null = none, or not resolved yet */
	uint64_t ns, count, samples;
	char *by_route; /* owned, or null */
};

struct profile_rows {
	struct profile_row *rows; /* owned */
	size_t count;
};

/* Who held the loop while the request was due; or, `queued`, before the app was called. */
struct profile_stall {
	bool has_trace, exact, queued;
	uint8_t trace_id[TRACE_ID_SIZE];
	uint8_t kind, state; /* enum profile_stall_* */
	int64_t stack_id;
	struct stack *stack; /* ref, or null */
	uint64_t ns;         /* queued: all of it, as parsed; once joined what lies in app_queue */
	uint64_t begin_ns;   /* queued only */
	char *route;         /* owned, or null */
};

/* The thread jobs of one function together. */
struct profile_thread {
	int64_t stack_id;
	struct stack *stack; /* ref, or null */
	uint64_t count, queue_ns, run_ns, cpu_ns, return_ns;
	bool has_return;
};

struct profile {
	struct profile_key key;
	struct profile_process *process; /* ref */
	uint32_t parts; /* parts put together here; as parsed: the part's number + 1 */
	bool final, truncated, has_start, has_task_queue, has_tail, has_cpu;
	uint8_t ended; /* enum profile_ended */
	char *route;   /* owned, or null */
	uint64_t task_queue_ns, enter_ns, start_ns, end_ns, tail_ns, cpu_ns;
	struct profile_rows breakdown, stream;
	uint64_t unattributed_ns, stream_unattributed_ns;
	struct profile_stall *stalls; /* owned */
	size_t stall_count;
	struct profile_thread *threads; /* owned, or null */
	size_t thread_count;
	size_t bytes; /* memory held, about; for the tables' bounds */
};

void profile_free(struct profile *profile);                  /* null-safe */
void profile_process_unref(struct profile_process *process); /* null-safe */

/* The protocol's words, as the API shows them. Static storage. */
const char *profile_kind_name(unsigned kind);
const char *profile_cause_name(unsigned cause); /* null for none */
const char *profile_ended_name(unsigned ended);
const char *profile_stall_kind_name(unsigned kind);
const char *profile_stall_state_name(unsigned state); /* null for unknown */

/* Sum of a list of rows plus `more`, or UINT64_MAX where it overflows. */
uint64_t profile_rows_sum(const struct profile_rows *rows, uint64_t more);

/* Puts the next part of a long response behind what is there. Takes nothing of `part` but
 * references. Returns 0, or -1 with `into` untouched where the part cannot follow: another number,
 * other times, a sum that does not hold. Rows beyond PROFILE_ROWS_MAX go to stream_unattributed_ns
 * and set `truncated`. */
int profile_append(struct profile *into, const struct profile *part);

#endif
