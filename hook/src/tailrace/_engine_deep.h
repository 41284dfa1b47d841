/* Deep profiles: the parts their two files share. A request's tree has a root per lane; a node is a
 * function called from its parent. Guarded by the GIL. */
#ifndef TAILRACE_ENGINE_DEEP_H
#define TAILRACE_ENGINE_DEEP_H

#include "_engine_detail.h"

enum {
	DEEP_ACTIVE_MAX = 2,   /* requests at a time */
	DEEP_NODES_MAX = 8192, /* of a request; what is called beyond counts for its caller */
	DEEP_SLOTS = DEEP_NODES_MAX * 2,
	DEEP_LANES_MAX = 256,
	DEEP_BUILTINS_MAX = 1024,
	DEEP_DEPTH_MAX = 1024, /* frames on one thread's stack */
	DEEP_THREADS_MAX = 64, /* that run a deep request's code at one time */
	DEEP_NONE = UINT16_MAX,
};

enum deep_state {
	DEEP_OK,
	DEEP_BUSY,    /* somebody else's profiler was there */
	DEEP_LIMITED, /* too many at a time, or more than their share of the time */
	DEEP_CUT,     /* the share of the time was used up while it ran */
};

struct deep_node {
	const void *key; /* a code object, a C function's definition; NULL: a lane's root */
	int64_t self_ns, await_ns, cpu_ns;
	uint32_t calls;
	int32_t function; /* stack of the one frame; -2 - n: the n-th built-in; root: the lane */
	uint16_t parent;
};

struct deep_lane {
	uint16_t number, root;
	uint16_t leaf;     /* where it waits, while it does */
	int64_t paused_ns; /* end of its last step, NO_TIME while it runs or before the first */
};

struct deep {
	struct deep_node *nodes;
	uint16_t *slots; /* index + 1, by parent and key */
	struct deep_lane lanes[DEEP_LANES_MAX];
	struct {
		const void *key;
		char *name; /* owned */
	} builtins[DEEP_BUILTINS_MAX];
	uint32_t node_count, node_room, lane_count, builtin_count;
	uint32_t contexts; /* threads in it now */
	bool counted;      /* among those that are active */
	bool closed;       /* the request has ended: nothing more is recorded */
	bool truncated;
	uint8_t state;
};

struct deep_entry {
	const void *frame; /* or a C function's definition: what its end must show */
	uint16_t node;
};

/* A thread that runs a step or job of a deep request. */
struct deep_context {
	struct deep *deep;
	struct deep_lane *lane;
	const void *owner;          /* the step or job */
	struct deep_context *outer; /* on the same thread */
	int64_t last_ns;            /* the last event: the time since is the top's own */
	int64_t begin_ns;
	int64_t cpu_at_ns;  /* the thread's CPU clock when it was last read */
	int64_t assumed_ns; /* taken for CPU since, in gaps too short to be looked at */
	uint16_t top;
	uint16_t depth, over;
	uint16_t leaf;         /* innermost that has just suspended */
	const void *suspended; /* what it yielded */
	bool unwinding;        /* the last event was a suspension */
	bool hooked;           /* our profile function was set by this step */
	struct deep_entry stack[DEEP_DEPTH_MAX];
};

/* The context of this thread, or NULL. */
extern _Thread_local struct deep_context *deep_current;

/* Events, from whichever source. first: not the resumption of a suspended frame. */
void deep_called(struct deep_context *context, const void *frame, PyCodeObject *code, bool first);
void deep_returned(struct deep_context *context, const void *frame, bool suspended,
                   const void *value);
void deep_called_c(struct deep_context *context, PyObject *function);
void deep_returned_c(struct deep_context *context, PyObject *function);

/* The source of events. */
bool deep_events_init(void);
/* Before the first deep request and after the last: where events are on for everybody. False where
 * they cannot be had. */
bool deep_events_open(void);
void deep_events_close(void);
/* On this thread, for the step or job of a context. False where somebody else's are there. */
bool deep_events_on(struct deep_context *context);
/* False where they are not ours any more. */
bool deep_events_off(struct deep_context *context);
/* Whether the cost is there from open to close (else only from on to off). */
bool deep_events_cost_all(void);

#endif
