/* Detail of a request, beside its profile: what each of its lanes did when, and the path in order.
 * Kept for a while after the request's end, sent where it is asked for. Guarded by the GIL. */
#ifndef TAILRACE_ENGINE_DETAIL_H
#define TAILRACE_ENGINE_DETAIL_H

#include "_engine.h"

enum {
	DETAIL_LANES_MAX = 512,     /* of a request; later ones are left out */
	DETAIL_SEGMENTS_MAX = 4096, /* of all its lanes; later ones only count in the sums */
	DETAIL_PATH_MAX = 1024,
	DETAIL_RING_BYTES = 8 << 20, /* of ended requests; the oldest go */
	DETAIL_RECORDS_MAX = 32768,
	DETAIL_DUE_MAX = 256, /* kept at the request's end and not yet taken by the sender */
	DETAIL_ROW_BYTES_MAX = 640 << 10,
	KEEP_ROUTES_MAX = 4096,
};

enum { DETAIL_KIND_SHIFT = 12 };

struct writer;

enum lane_kind { LANE_TASK, LANE_THREAD, LANE_CALLBACK };

/* Lanes of a request are numbered from 1; 0 is none. */
void detail_begin(struct request *request);
/* name: the stack of its function, or STACK_NONE. Returns its number, 0 where there is no room. */
uint16_t detail_lane(struct request *request, uint16_t parent, enum lane_kind kind, int32_t name,
                     int64_t created_ns);
/* A lane whose function is known later. */
void detail_name(struct request *request, uint16_t lane, int32_t name);
/* What the lane did from the end of its last segment on. waker: the lane that ended it, or 0. */
void detail_add(struct request *request, uint16_t lane, enum segment_kind kind, int32_t stack,
                uint16_t waker, int64_t until_ns);
void detail_lane_end(struct request *request, uint16_t lane);
/* The request has ended: its detail goes to those kept for a while. Its paths are still there. */
void detail_close(struct request *request);
/* Gives up what an unfinished request holds. */
void detail_drop(struct request *request);
/* The stack a path's segment has, once the request is known. */
int32_t detail_stack(const struct request *request, int32_t stack);
bool detail_init(void);
void detail_after_fork(void);

extern PyMethodDef detail_functions[];

/* For the sender's long work: gives the GIL to whoever waits for it where this thread has had it
 * since *since_ns for long enough. What it looks at may have changed then. */
void breathe(int64_t *since_ns);
/* The longest that ended in a breath, by the wall clock, since this was asked last. */
int64_t breathe_longest_ns(void);
/* Bytes of the profiles' ring that are in use: what ring_take() may take of it later on. */
size_t ring_due(void);

/* --- ended requests ------------------------------------------------------------------------- */

struct detail_lane {
	int64_t created_ns, last_ns; /* last: the end of its last segment */
	int64_t run_ns, ready_ns, wait_ns;
	int32_t name;
	uint16_t parent;
	uint8_t kind;
	bool ended;
};

struct detail_segment {
	int64_t ns;
	int32_t stack;
	uint16_t lane; /* number | kind << DETAIL_KIND_SHIFT */
	uint16_t waker;
};

struct detail_step { /* of the path */
	int64_t ns;
	int32_t stack;
	uint8_t kind, cause, exact;
};

/* After its end: one piece of memory. */
struct record {
	size_t bytes;
	int64_t enter_ns;
	struct deep *deep; /* owned, or NULL */
	uint32_t lanes, segments, steps;
	bool truncated;
	char key[KEY_LEN + 1];
	/* then the lanes, the segments, the path's steps */
};

static inline struct detail_lane *
record_lanes(struct record *record)
{
	return (struct detail_lane *)(record + 1);
}

static inline struct detail_segment *
record_segments(struct record *record)
{
	return (struct detail_segment *)(record_lanes(record) + record->lanes);
}

static inline struct detail_step *
record_steps(struct record *record)
{
	return (struct detail_step *)(record_segments(record) + record->segments);
}

/* Takes the record; wanted: it is sent unasked. */
void record_keep(struct record *record, bool wanted);
void record_after_fork(void);
/* As a row of docs/protocol.md; without the GIL. */
void record_write(struct writer *writer, struct record *record);

extern PyMethodDef record_functions[];

/* --- text: bounded JSON writing, also used without the GIL ---------------------------------- */

struct writer {
	char *at, *end;
	bool cut; /* something had no room */
};

void write_text(struct writer *writer, const char *text);
void write_number(struct writer *writer, int64_t number);
/* A JSON string with its quotes; bytes beyond ASCII pass as they are. */
void write_quoted(struct writer *writer, const char *text);

/* --- span: explicit names -------------------------------------------------------------------- */

/* The stack with the frames of these spans and of those round them. */
int32_t span_stack(const struct span *span, int32_t stack);
bool span_init(void);
/* The open job that runs on this thread: borrowed, or NULL. */
struct job *thread_job(void);
/* Adds what the job ran up to now, with a frame of `code` (or NULL) below that of `owner`. */
void thread_cut(struct job *job, const PyCodeObject *owner, PyCodeObject *code);

extern PyTypeObject span_type;
extern PyMethodDef span_functions[];

/* --- deep: the call tree of chosen requests ------------------------------------------------- */

struct deep;

/* Starts a deep profile of the request, in the step that runs; or notes why there is none. */
void deep_begin(struct request *request);
/* A step or job (its owner) of a lane of this request begins and ends on this thread. */
void deep_enter(struct request *request, uint16_t lane, const void *owner, int64_t now_ns);
void deep_leave(const void *owner, int64_t now_ns);
/* How many threads are between the two: where none is, deep_leave() need not be called. */
extern uint32_t deep_threads;
/* Between these the thread's time counts for who called last, and nothing is seen of what is
 * called. */
void *deep_mute(void);
void deep_unmute(void *muted);
/* The request has ended; takes the tree off it. */
struct deep *deep_take(struct request *request);
void deep_free(struct deep *deep); /* null-safe */
size_t deep_bytes(const struct deep *deep);
/* JSON of docs/protocol.md; without the GIL. */
void deep_write(struct writer *writer, const struct deep *deep);
bool deep_init(void);
void deep_after_fork(void);

extern PyMethodDef deep_functions[];

#endif
