/* The hook instances that post: who they are, when they were heard of. Bounded: beyond HOOKS_MAX the one
 * heard of least recently is forgotten. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_HOOKS_H
#define TAILRACE_COLLECTOR_HOOKS_H

#include <stdint.h>
#include "model/profile.h"
#include "model/text.h"

#define HOOKS_MAX 256 /* as many as model/stacks.h knows */
#define HOOKS_SILENT_NS \
	(600 * NS_PER_S) /* after that an instance is not shown: its process is gone */

struct hooks;

struct hooks *hooks_new(void);        /* owned */
void hooks_free(struct hooks *hooks); /* null-safe */

/* A batch of `profiles` came. */
void hooks_heard(struct hooks *hooks, const struct profile_process *process, uint64_t profiles,
                 uint64_t now_ns);

/* Appends a JSON array, latest heard first. */
void hooks_write(const struct hooks *hooks, uint64_t now_ns, struct text *out);

#endif
