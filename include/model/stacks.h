/* The stacks the hooks have told: per instance a table from its own IDs to shared stacks. Bounded
 * by instances, stacks and bytes; the instance heard of least recently is forgotten first, and who
 * names a stack that is not known is told to send all of his again. Pure; one thread. */
#ifndef TAILRACE_MODEL_STACKS_H
#define TAILRACE_MODEL_STACKS_H

#include <stddef.h>
#include <stdint.h>
#include "model/profile_batch.h"

#define STACKS_INSTANCES_MAX 256
#define STACKS_MAX \
	262144 /* of all instances: what eight processes of an app have in common counts eight times */
#define STACKS_BYTES_MAX (48u << 20) /* what they have in common counts once */

struct stacks;

struct stacks_limits {
	size_t instances, stacks, bytes;
};

enum stacks_result {
	STACKS_OK,
	STACKS_RESEND, /* a row names an unknown stack: nothing was taken */
};

/* Owned, freed with stacks_free(). */
struct stacks *stacks_new(const struct stacks_limits *limits);
void stacks_free(struct stacks *stacks);

/* Takes the batch's new stacks and puts the stack into every row that names one. An instance that
 * alone passes the bounds is forgotten once its rows have theirs, so that its next batch is
 * answered "resend". Tells by how much the instance's own count of lost profiles rose since its
 * last batch (*ret_dropped). */
enum stacks_result stacks_take(struct stacks *stacks, struct profile_batch *batch,
                               uint64_t *ret_dropped);

size_t stacks_instances(const struct stacks *stacks);
size_t stacks_count(const struct stacks *stacks);
size_t stacks_bytes(const struct stacks *stacks);
uint64_t stacks_forgotten(const struct stacks *stacks); /* instances forgotten for want of room */

#endif
