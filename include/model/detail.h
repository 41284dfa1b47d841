/* Detail of one request as the hook posts it where it is wanted (docs/protocol.md section 2): what each
 * lane did when, the path in order, the call tree of a deep profile. From JSON to checked structs
 * to the API's JSON. Pure; one thread. */
#ifndef TAILRACE_MODEL_DETAIL_H
#define TAILRACE_MODEL_DETAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/json_read.h"
#include "model/profile.h"
#include "model/text.h"

#define DETAIL_LANES_MAX 512
#define DETAIL_SEGMENTS_MAX 4096 /* of all lanes */
#define DETAIL_STEPS_MAX 1024    /* of the path */
#define DETAIL_NODES_MAX 8192
#define DETAIL_BUILTINS_MAX 1024

enum detail_lane_kind { DETAIL_TASK, DETAIL_THREAD, DETAIL_CALLBACK, DETAIL_LANE_KINDS };
enum detail_deep_state {
	DETAIL_DEEP_OK,
	DETAIL_DEEP_BUSY,
	DETAIL_DEEP_LIMITED,
	DETAIL_DEEP_CUT,
	DETAIL_DEEP_STATES
};

/* Times count from the ASGI call. */
struct detail_lane {
	uint32_t parent; /* number of the lane that made it, 0 = none; its own: index + 1 */
	uint8_t kind;
	bool ended;
	int64_t name; /* stack whose innermost frame is its function, -1 = none */
	uint64_t created_ns, ended_ns, run_ns, ready_ns, wait_ns;
	size_t first, count; /* its segments */
};

struct detail_segment {
	uint64_t ns;
	int64_t stack;
	uint32_t waker; /* lane, 0 = none */
	uint8_t kind;   /* enum profile_kind */
};

struct detail_step {
	uint64_t ns;
	int64_t stack;
	uint8_t kind, cause; /* cause: PROFILE_CAUSE_COUNT = none */
	bool exact;
};

struct detail_node {
	int64_t parent; /* -1: a lane's root */
	int64_t
	    function; /* stack of one frame; -1 = unknown; -2 - n: built-in n; a root's: its lane */
	uint64_t calls, self_ns, await_ns, cpu_ns;
};

struct detail {
	struct profile_key key;
	bool truncated, has_deep, deep_truncated;
	uint8_t deep_state;
	struct detail_lane *lanes;       /* owned, as all below */
	struct detail_segment *segments; /* by lane */
	struct detail_step *steps;
	struct detail_node *nodes;
	char **builtins;
	size_t lane_count, segment_count, step_count, node_count, builtin_count;
	int64_t *stack_ids;    /* those it names, ascending, each once */
	struct stack **stacks; /* refs, beside them; null = not resolved */
	size_t stack_count;
};

/* Reads one row. Returns 0 with *ret set where it is well-formed; *ret is null where it cannot be
 * true (key in *ret_key). -1 with *error filled where it is malformed. */
int detail_read(struct read_error *error, const struct place *at, struct detail **ret,
                struct profile_key *ret_key);
void detail_free(struct detail *detail); /* null-safe */

/* The members `stacks`, `lanes`, `path` and `deep` of the API's profile, as one object; all stacks
 * must be resolved. */
void detail_render(struct text *out, const struct detail *detail);

const char *detail_lane_kind_name(unsigned kind);
const char *detail_deep_state_name(unsigned state);

#endif
