/* tailrace._engine: the types its files share. Everything here is guarded by the GIL except what
 * is _Atomic, which the sampler thread reads without it. Times are CLOCK_MONOTONIC nanoseconds. */
#ifndef TAILRACE_ENGINE_H
#define TAILRACE_ENGINE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
	TRACE_LEN = 32,
	SPAN_LEN = 16,
	KEY_LEN = TRACE_LEN + 1 + SPAN_LEN, /* <trace>-<span> */
	ROUTE_BYTES_MAX = 512,
	CODES_MAX = 65536,
	STACKS_MAX = 65536,
	STACKS_TAKE_MAX = 8, /* then their rows wait; few objects make no garbage collection */
	STACK_FRAMES_MAX = 64,
	LINKS_KEPT = 24,
	REQUEST_LANES_MAX = 256,
	REQUEST_STACKS_MAX = 512,
	REQUEST_ROWS_MAX = 1024, /* with stalls, as the gateway takes them */
	PATH_SEGMENTS_MAX = 4096,
	REQUEST_STALLS_MAX = 32,
	REQUEST_HOLDS_MAX = 16, /* before its ASGI call */
	STALL_LOG_MAX = 256,
	RECENT_STEPS_MAX = 8,
	SAMPLE_STACKS_MAX = 32,
	LOOPS_MAX = 256,
	JOBS_MAX = 1024,
	ARGS_MAX = 8,
	CALLBACK_HOPS_MAX = 4,
	PROFILE_RING_BYTES = 2 << 20,
	TAIL_RING_BYTES = 256 << 10,
	ROW_BYTES_MAX = 240 << 10, /* two and the sender's 256 KiB go into a body of 1 MiB */
	STACK_NONE = -1,
	STACK_LANE = -2, /* the first in-app frame of the request, known later */
};

#define NS_PER_MS INT64_C(1000000)
#define RUN_STACK_MIN_NS NS_PER_MS
#define LONG_STEP_MIN_NS NS_PER_MS
#define IDLE_GAP_NS (100 * INT64_C(1000))
#define IDLE_LOOK_NS (8 * NS_PER_MS)
#define STEP_SAMPLE_MIN_NS (8 * NS_PER_MS)
#define JOB_SAMPLE_MIN_NS (10 * NS_PER_MS)
#define NO_TIME INT64_C(-1)

enum segment_kind { SEG_RUN, SEG_READY, SEG_WAIT, SEG_THREAD_QUEUE, SEG_THREAD_RUN };

enum cause {
	CAUSE_NONE,
	CAUSE_SLEEP,
	CAUSE_LOCK,
	CAUSE_QUEUE,
	CAUSE_EVENT,
	CAUSE_POOL,
	CAUSE_TASK,
	CAUSE_THREAD,
	CAUSE_LIMITER,
	CAUSE_EXECUTOR,
	CAUSE_CLIENT_RECEIVE,
	CAUSE_CLIENT_SEND,
	CAUSE_SOCKET,
	CAUSE_HTTP,
	CAUSE_DATABASE,
	CAUSE_CACHE,
	CAUSE_SHORT,
	CAUSE_UNKNOWN,
};

struct request;
struct lane;
struct loop;
struct job;
struct detail;
struct span;
struct deep;
struct job_totals;

/* Who a request is, for stalls and paths that outlive it: holds nothing of the app. */
struct identity {
	uint32_t refs;
	int32_t first_stack; /* its endpoint's, or STACK_NONE */
	const char *route;   /* JSON-escaped, without quotes; owned by the route cache */
	char trace[TRACE_LEN + 1];
};

/* One segment of a path: it lasts from its parent's end_ns to its own.
 * Shared by reference; changed only while one lane alone holds it. */
struct node {
	struct node *parent;
	struct identity *by; /* strong, or NULL */
	int64_t end_ns;
	uint32_t refs;
	uint32_t depth;
	int32_t stack;
	uint32_t samples;
	uint8_t kind;
	uint8_t cause;
	uint8_t exact;
	uint8_t count; /* 0 where it continues the segment before it */
};

/* What a segment is, beside its end. */
struct segment {
	enum segment_kind kind;
	enum cause cause;
	int32_t stack;
	uint32_t samples;
	bool exact;
	bool continued;
	struct identity *by; /* borrowed */
};

struct sample {
	int32_t stack;
	uint32_t count;
	int64_t ns;
};

struct sample_set {
	uint32_t len, last; /* last: the item sampled last */
	int64_t last_ns;
	struct sample items[SAMPLE_STACKS_MAX];
};

enum source_kind { SOURCE_IO, SOURCE_LANE, SOURCE_TIMER, SOURCE_THREAD, SOURCE_FOREIGN };

/* Why a callback was scheduled: who made it due, when, and the path that led there. */
struct source {
	enum source_kind kind;
	uint8_t hops;
	uint8_t job;     /* jobs_add()'s of the job that has just ended, 0 = none */
	uint16_t number; /* of the lane that made it due, 0 = none */
	int64_t due_ns;
	uint64_t turn;
	struct request *request; /* strong, with LANE and THREAD */
	struct lane *lane;       /* borrowed, compared only */
	struct node *path;       /* strong, with request */
	struct identity
	    *who; /* strong, with FOREIGN: a request that is closed and whose app still runs */
};

/* One asyncio task that works for a request. */
struct lane {
	struct lane *next, **link; /* in its request's list */
	struct request *request;   /* borrowed; NULL once detached */
	struct identity *who; /* strong: of a closed request whose app still runs in this task */
	void *task;           /* identity only: may be a dead object's address */
	struct loop *loop;
	struct node *path;
	int64_t paused_ns; /* end of its last step */
	uint32_t refs;
	int32_t first_stack; /* its first in-app frame, or STACK_LANE */
	int32_t made_at;     /* the in-app frames that made a task of a library's coroutine */
	uint16_t number;     /* in its request's detail, 0 = not there */
	struct span *spans;  /* borrowed: open in it, innermost first */
	bool started;
	bool running;
	bool run_counted;      /* part of the running step is in the path already */
	struct node *job_path; /* where it is driven: of the job whose result it waits for */
	uint8_t job;           /* and that job: as in struct source */
	uint8_t link_count;
	const void *links[LINKS_KEPT]; /* of its last walk: may be dead, are only prefetched */
};

enum hold_state { HOLD_UNKNOWN, HOLD_BLOCKED, HOLD_BUSY };

/* Whether what holds a thread computes: its CPU clock between two looks of the watchdog. */
struct hold {
	int64_t cpu_ns, at_ns; /* at the first look; with what it waited for a processor */
	enum hold_state state;
};

/* What the loop is running. Part of its struct step: greenlets move the C stack. */
struct running {
	struct running *outer;
	struct loop *loop;
	PyObject *task;          /* borrowed; NULL for plain callbacks */
	struct lane *lane;       /* strong */
	struct request *request; /* strong: whose it is, even when that has closed meanwhile */
	struct source source;
	int64_t begin_ns;
	int64_t queued_ns; /* when a new task was created, else NO_TIME */
	struct sample_set *samples;
	int32_t stack; /* where it ended, if it was long */
	struct hold hold;
	bool is_eager;   /* create_task() runs; a task's step only once that has begun in it */
	bool has_queued; /* the task that was made waits for its first step: it is not eager */
};

enum stall_kind { STALL_STEP, STALL_CALLBACK, STALL_IO_CALLBACK };

struct stall {
	int64_t begin_ns, end_ns;
	struct identity *who; /* strong, or NULL */
	int32_t stack;
	uint8_t kind;  /* enum stall_kind; begin and end of the last one are estimates */
	uint8_t state; /* enum hold_state */
};

/* A callback that does not pass through us (a protocol's, a reader's), as the watchdog saw it. */
struct io_hold {
	int64_t begin_ns; /* about: between two looks; 0: none */
	int64_t idle_ns;  /* when the loop was last seen with nothing to do */
	struct sample_set *samples;
	struct hold hold;
};

struct recent_step {
	int64_t begin_ns, end_ns;
	uint64_t turn;
};

/* What is hooked into one event loop; owned by the loop's __dict__. */
struct loop {
	PyObject_HEAD PyObject *call_soon, *call_later, *call_at, *call_soon_threadsafe,
	    *run_in_executor, *set_task_factory;
	PyObject *create_task; /* NULL: no task factory is set, nothing is put in its place */
	PyObject *time;
	struct running *running;
	PyThreadState *thread;
	uint32_t active; /* requests that are open */
	uint32_t steps_seen;
	bool is_uvloop;
	bool is_bare; /* no loop's calls are watched: coroutines are driven */
	int slot;
	uint64_t id; /* never used again */
	uint64_t turn;
	int64_t last_end_ns;
	int64_t busy_since_ns;
	uint32_t steps_since_idle; /* callbacks run since the loop last had nothing to do */
	struct io_hold io;
	uint64_t thread_key; /* PyThreadState_GetID(thread) */
	int native_id;       /* of that thread, as the kernel names it */
	struct request *closing;
	struct recent_step recent[RECENT_STEPS_MAX];
	uint32_t recent_next;
	struct stall stalls[STALL_LOG_MAX];
	uint32_t stalls_next;
	PyCodeObject *base_code; /* borrowed from the code table */
};

/* A callback handed to the loop in place of the app's own. */
struct step {
	PyObject_HEAD vectorcallfunc vectorcall;
	PyObject *callback;
	struct loop *loop;
	PyObject *task;    /* borrowed from callback, or NULL */
	struct lane *lane; /* strong, or NULL */
	struct source source;
	int64_t scheduled_ns, ended_ns;
	uint64_t scheduled_turn;
	bool is_first, is_running;
	struct running running;
};

enum request_state { REQUEST_OPEN, REQUEST_SENT, REQUEST_CLOSED };
enum ended { ENDED_RESPONSE, ENDED_EXCEPTION, ENDED_DISCONNECT, ENDED_CANCELLED, ENDED_OPEN };

/* One ASGI call; callable: it is the `send` the app gets. */
struct request {
	PyObject_HEAD vectorcallfunc vectorcall;
	struct loop *loop; /* strong; NULL: totals only */
	PyObject *send, *scope, *root_path;
	struct identity *who; /* strong */
	struct request *closing_next;
	struct lane *lanes;
	struct lane *root; /* strong */
	struct node *start_path, *end_path;
	struct detail *detail;   /* owned, or NULL */
	struct deep *deep;       /* owned, or NULL */
	struct job_totals *jobs; /* owned, or NULL */
	int64_t enter_ns, start_ns, end_ns, part_ns, queued_ns;
	uint32_t lane_count;
	uint32_t part;
	uint32_t generation;
	uint8_t state, ended;
	bool truncated;
	char span[SPAN_LEN + 1];
};

/* Its key, without an end. */
static inline void
request_key(const struct request *request, char to[KEY_LEN])
{
	memcpy(to, request->who->trace, TRACE_LEN);
	to[TRACE_LEN] = '-';
	memcpy(to + TRACE_LEN + 1, request->span, SPAN_LEN);
}

/* How much the engine does; guard.c. */
enum stage { STAGE_FULL, STAGE_COARSE, STAGE_NO_STACKS, STAGE_TOTALS };

struct engine {
	int64_t wait_threshold_ns, stall_threshold_ns, part_interval_ns;
	uint32_t generation; /* one more after each fork */
	bool disabled;
	enum stage stage;
	int64_t walk_min_ns; /* waits under it count as short */
	const char *name;    /* how requests of the loop prepared last are timed */
	uint64_t dropped, tails_dropped;
	/* What the maxima cut: lanes, segments and rows or stacks of requests; code objects and
	 * stacks of the process. */
	uint64_t lanes_over, segments_over, rows_over, codes_over, stacks_over;
	char loop_name[32];
	PyObject *send_last;  /* coroutine function of middleware.py: (awaitable, request) */
	PyObject *name_route; /* function of middleware.py: (scope, root_path) -> str | None */
	PyObject *report;     /* function of middleware.py: (where, error) */
	PyObject *say_stage;  /* function of middleware.py: (stage, percent) */
	PyObject *allow_deep; /* function of deep.py: (key, mac) -> bool; or NULL */
	PyTypeObject *task_type, *py_task_type, *step_type, *thread_pool_type;
	PyMethodDef *wakeup_def;
};

extern struct engine engine;

static inline int64_t
clock_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Everything below is called with the GIL held unless it says otherwise; nothing raises unless it
 * returns PyObject *: then NULL with an exception, and the result is a new reference. */

/* --- module ---------------------------------------------------------------------------------- */

/* An error inside the hook: disables it, says so once, clears the exception. */
void engine_failed(const char *where);
/* After a look-up of ours on an object of the app's: it may have no such attribute, or one that
 * raises, which is not said; without memory the hook ends as above. Clears the exception. */
void engine_check(const char *where);

#include "_engine_app.h"

/* --- guard ------------------------------------------------------------------------------------- */

/* Is this step's cost to be measured? Then guard_add() is told what the engine took of it. */
bool guard_samples(void);
void guard_add(int64_t own_ns, int64_t now_ns);
void guard_apply(enum stage stage);
const char *guard_stage_name(void);

/* --- route ------------------------------------------------------------------------------------ */

bool route_init(void);
/* Name and first stack of the request's route, as far as there are any. False with an exception
 * that is no error of ours: KeyboardInterrupt, SystemExit. */
bool route_learn(struct request *request);
/* After bind(): answers of the function before. */
void route_forget(void);

/* --- stack: code objects and stacks, interned, kept alive, named by small integers ------------- */

struct code_info;

struct frame_ref {
	const struct code_info *info;
	int32_t line;
};

struct frame_list {
	int len;
	struct frame_ref items[STACK_FRAMES_MAX]; /* outermost first */
};

bool stack_init(void);
/* Sets what is in-app (module prefixes; folders of libraries). False with an exception. */
bool stack_configure(PyObject *in_app, PyObject *library_prefixes);
/* The table's entry for a code object, which it keeps alive; NULL when the table is full. */
const struct code_info *code_intern(PyCodeObject *code);
bool code_in_app(const struct code_info *info);
/* Of a library that asks others: a database's, a cache's, of HTTP, a pool. */
bool code_is_client(const struct code_info *info);
/* The same, looked up anew. */
bool code_frame_in_app(PyCodeObject *code);
/* The number of a stack; STACK_NONE when it is empty or the table full. */
int32_t stack_intern(const struct frame_list *frames);
/* outer's frames, then inner's; either may be STACK_NONE. */
int32_t stack_join(int32_t outer, int32_t inner);
/* The stack of only that frame at its function's first line; STACK_LANE where none is in-app. */
int32_t stack_first_in_app(int32_t stack);
int32_t stack_of_code(PyCodeObject *code);
/* The stack with a frame of `code` after its last frame of `after`, or at its end. */
int32_t stack_insert(int32_t stack, const PyCodeObject *after, PyCodeObject *code);
bool stack_has_in_app(int32_t stack);
/* What a wait with this await stack is for. */
enum cause stack_cause(int32_t stack);
/* [(id, ((code, line), ...)), ...]: all, or at most STACKS_TAKE_MAX of those not taken before. */
PyObject *stack_take(bool all, int64_t *since_ns); /* of breathe() */
void stack_after_fork(void);

/* --- cause: of a wait in this function; CAUSE_NONE where the function is not known -------------- */

enum cause cause_of_code(const char *path, const char *name);
/* Functions that make a connection: inside a pool's function it is not the pool that is waited for. */
bool cause_connects(const char *name);
/* True for those that hold only where nothing finer is known. */
bool cause_is_vague(enum cause cause);
const char *cause_name(enum cause cause); /* as JSON */

/* --- walk: each returns a stack's number, or STACK_NONE ---------------------------------------- */

bool walk_init(void);
/* What a suspended task awaits, down to the innermost coroutine. lane: its own, or NULL. */
int32_t walk_task(PyObject *task, struct lane *lane);
/* A thread's frames from `frame` out to `base`'s (left out) or `outermost`'s; each may be NULL. */
int32_t walk_frames(PyFrameObject *frame, const PyCodeObject *base, const PyCodeObject *outermost);
/* The same out to the frame that runs `base`; STACK_NONE where none does or none is inside it. */
int32_t walk_above(PyFrameObject *frame, const PyCodeObject *base);
/* The innermost frames in a row that are in-app, a few frames out from `frame` at most; of what
 * lies between the functions of clients, which tell what the task is for. */
int32_t walk_makers(PyFrameObject *frame);
/* The function a thread's job runs. */
int32_t walk_job(PyObject *callable, PyObject *const *args, Py_ssize_t count);
/* The code of the task's coroutine, of a callable's function: borrowed, or NULL. */
PyCodeObject *walk_task_code(PyObject *task);
PyCodeObject *walk_callable_code(PyObject *callable);
bool walk_task_done(PyObject *task);

/* --- path: functions that take a path's reference return one to the path that follows it -------- */

/* An empty path; NULL without memory, which every function here accepts. */
struct node *path_new(int64_t at_ns);
/* Takes path. */
struct node *path_add(struct node *path, const struct segment *segment, int64_t end_ns);
/* Takes path; cut into one segment per sampled stack where there are samples, which are emptied. */
struct node *path_add_run(struct node *path, int64_t end_ns, int32_t stack, bool continued,
                          enum segment_kind kind, struct sample_set *samples);
/* Takes path. */
struct node *path_prefix_jobs(struct node *path, int32_t outer);
void path_unref(struct node *path);

static inline struct node *
path_ref(struct node *path)
{
	if (path != NULL)
		path->refs++;
	return path;
}

/* Puts path (whose reference is taken) in place of what was there. */
static inline void
path_set(struct node **place, struct node *path)
{
	struct node *old = *place;
	*place = path;
	path_unref(old);
}

/* --- lane -------------------------------------------------------------------------------------- */

/* A new reference, or NULL at the cap; takes path. */
struct lane *lane_new(struct request *request, struct loop *loop, PyObject *task,
                      struct node *path);
/* Borrowed, or NULL. */
struct lane *lane_find(const void *task);
void lane_detach(struct lane *lane);
/* The request of this lane has closed while its app still runs in the task: it is known by name. */
void lane_haunt(struct lane *lane, struct identity *who);
void lane_unref(struct lane *lane);
/* A step of the lane begins, ends. */
void lane_resume(struct lane *lane, const struct step *step, int64_t now_ns);
void lane_pause(struct lane *lane, struct running *running, int64_t now_ns);
/* The path up to now, the running step included: a new reference. */
struct node *lane_path_at(struct lane *lane, int64_t now_ns);

static inline struct lane *
lane_ref(struct lane *lane)
{
	if (lane != NULL)
		lane->refs++;
	return lane;
}

/* --- step -------------------------------------------------------------------------------------- */

bool step_init(void);
/* What to hand to the loop instead of callback, callback itself where it is not to be timed.
 * timer_due_ns: its deadline, NO_TIME where it is due at once. */
PyObject *step_wrap(struct loop *loop, PyObject *callback, int64_t timer_due_ns, bool from_thread);
/* A step begins, has ended. */
void step_enter(struct step *step, int64_t now_ns);
void step_leave(struct step *step);
/* create_task() begins (NULL: then it is not watched), has ended. */
struct step *step_enter_eager(struct loop *loop);
void step_leave_eager(struct step *step);

#include "_engine_drive.h"

/* --- loop -------------------------------------------------------------------------------------- */

bool loop_init(void);
/* One for the coroutines driven on this thread: a new reference, or NULL with an exception. */
struct loop *loop_new_bare(void);
bool loop_on_own_thread(const struct loop *loop);
/* The loop that last ran a step on this thread: borrowed, or NULL. */
struct loop *loop_current(void);
void loop_set_current(struct loop *loop);
/* Borrowed, or NULL. */
struct loop *loop_at(int slot);
/* A step of LONG_STEP_MIN_NS and more has ended. */
void loop_note(struct loop *loop, const struct running *running, int64_t end_ns);
/* What the watchdog saw outside our steps has ended, at about end_ns. */
void loop_io_ended(struct loop *loop, int64_t end_ns);
/* How long such steps held the loop between two times, in the turn given or the one before it. */
int64_t loop_recent_overlap(const struct loop *loop, uint64_t turn, int64_t from_ns, int64_t to_ns);
void loop_after_fork(void);

/* --- request ----------------------------------------------------------------------------------- */

bool request_init(void);
/* The last body message was sent. False with an exception, as route_learn(). */
bool request_sent_last(struct request *request);

/* --- last ------------------------------------------------------------------------------------- */

#define LAST_SEND_NAME "tailrace._engine.LastSend"

bool last_init(void);
/* NULL with StopIteration(result), as iterators return; takes the reference. */
PyObject *stop_iteration(PyObject *result);
/* What to await instead of awaitable (whose reference is taken; NULL stays NULL), so that the
 * request learns when it is through. */
PyObject *last_send_new(struct request *request, PyObject *awaitable);
bool begin_init(void);
/* What a Request is called as: the app's `send`. */
PyObject *request_send(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names);
void identity_unref(struct identity *who);

static inline struct identity *
identity_ref(struct identity *who)
{
	if (who != NULL)
		who->refs++;
	return who;
}

static inline struct request *
current_request(const struct running *running)
{
	return running != NULL && running->lane != NULL ? running->lane->request : NULL;
}

/* The step in which last body messages were sent has ended: their rows are due. */
void request_close_pending(struct loop *loop);

/* --- rows, ring -------------------------------------------------------------------------------- */

/* tail_ns: the app has returned so long after the end, or NO_TIME. */
void rows_emit(struct request *request, int64_t tail_ns, bool is_final);
void rows_emit_tail(const struct request *request, int64_t tail_ns);
/* False when full: the row is lost. */
bool ring_put_profile(const char *row, size_t len);
bool ring_put_tail(const char *row, size_t len);
/* What goes beside the profile put last. */
enum beside { BESIDE_THREADS, BESIDE_RETURNS, BESIDE_HOLDS, BESIDE_COUNT };
bool ring_put_beside(enum beside which, const char *row, size_t len);
/* (profile rows of the first `due` bytes, tail rows), joined by commas: up to `max` bytes or one row. */
PyObject *ring_take(size_t due, size_t max);
/* What goes beside the profiles taken so far, joined by commas. */
PyObject *ring_take_beside(enum beside which);
void ring_after_fork(void);

#include "_engine_thread.h"

/* --- sampler ----------------------------------------------------------------------------------- */

/* A request begins: the watchdog must look. Starts its thread where none runs. */
void sampler_wake(void);
void sampler_step_begin(int slot, int64_t now_ns);
/* is_active: requests are open, so that the loop's idle time is looked at too. */
void sampler_step_end(int slot, int64_t now_ns, bool is_active);
/* A slot to give back, or -1 where all are taken: the job is not sampled then. */
int sampler_job_begin(struct job *job, int64_t now_ns);
void sampler_job_end(int slot);
/* The stack with most time, or STACK_NONE. */
int32_t sample_top(const struct sample_set *samples);
/* The interpreter ends: the thread touches it no more. */
void sampler_stop(void);
void sampler_after_fork(void);

#ifdef TAILRACE_FAULTS
#include "_engine_fault.h"
#endif

extern PyTypeObject step_type, loop_type, request_type, job_type, drive_type;
extern PyMethodDef loop_functions[], begin_functions[], thread_functions[], drive_functions[],
    fault_functions[], guard_functions[];

#endif
