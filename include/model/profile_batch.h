/* A batch of profiles as the hook posts it (docs/protocol.md section 2): from bytes to validated
 * structs. What is malformed is refused whole with a JSON pointer, what cannot be true is refused
 * alone. Pure. */
#ifndef TAILRACE_MODEL_PROFILE_BATCH_H
#define TAILRACE_MODEL_PROFILE_BATCH_H

#include <stddef.h>
#include <stdint.h>
#include "model/detail.h"
#include "model/json_read.h"
#include "model/profile.h"

#define PROFILE_BODY_MAX (1u << 20) /* bytes of a batch, inflated */
#define PROFILE_NESTING_MAX 8
#define PROFILE_BATCH_MAX 4096  /* profiles of a batch; stacks and tails likewise */
#define PROFILE_DETAILS_MAX 256 /* details of a batch; keys that are gone: PROFILE_BATCH_MAX */
#define PROFILE_FRAMES_MAX 64
#define PROFILE_FILE_MAX 1024 /* bytes of a frame's file; other strings: PROFILE_STRING_MAX */

struct profile_batch_stack {
	int64_t id;
	struct stack *stack; /* ref */
};

struct profile_tail {
	struct profile_key key;
	uint64_t tail_ns;
};

struct profile_batch {
	struct profile_process *process; /* ref */
	struct profile_batch_stack *stacks;
	size_t stack_count;
	struct profile **profiles; /* owned, unless taken out and nulled */
	size_t profile_count;
	struct profile_key *refused; /* profiles that cannot be true */
	size_t refused_count;
	struct profile_tail *tails;
	size_t tail_count;
	struct detail **details; /* owned */
	size_t detail_count;
	size_t details_refused;   /* details that cannot be true */
	struct profile_key *gone; /* whose detail was wanted and is not there any more */
	size_t gone_count;
};

/* Reads "<trace>-<span>". */
bool profile_key_read(struct read_error *error, const struct place *at, struct profile_key *ret);

/* Elements of a row: a trace ID or null, a stack's ID. */
bool profile_trace_read(struct read_error *error, const struct place *row, size_t index,
                        bool *ret_has, uint8_t ret[TRACE_ID_SIZE]);
bool profile_stack_id_read(struct read_error *error, const struct place *row, size_t index,
                           int64_t *ret);

/* The profile of that key and part, looked for from *at on, which follows it. Null where there is
 * none (it was refused). */
struct profile *profile_batch_find(const struct profile_batch *batch, const struct profile_key *key,
                                   uint64_t part, size_t *at);

/* Parses and validates a batch of at most PROFILE_BODY_MAX bytes. Returns 0 with *ret set (freed
 * with profile_batch_free()), or -1 with *reterr filled. */
int profile_batch_parse(const char *bytes, size_t length, struct profile_batch **ret,
                        struct read_error *reterr);
void profile_batch_free(struct profile_batch *batch); /* null-safe */

#endif
