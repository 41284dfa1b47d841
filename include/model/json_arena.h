/* Memory for a JSON document that is read and dropped as a whole: one region from which jansson
 * allocates while an arena is open on the thread, given back at once. A batch of profiles is tens of
 * thousands of small values: without it a third of the collector's time is their malloc and free.
 * Any thread, one arena at a time on each. */
#ifndef TAILRACE_MODEL_JSON_ARENA_H
#define TAILRACE_MODEL_JSON_ARENA_H

#include <jansson.h>
#include <stddef.h>

#define JSON_ARENA_BYTES (64u << 20)     /* address space; what does not fit is malloc()ed */
#define JSON_ARENA_KEPT_BYTES (4u << 20) /* of it that stays in memory between two documents */

/* Makes jansson ask here. Once, before there are threads. Without it arenas do nothing. */
void json_arena_install(void);

/* From here on this thread's JSON values lie in its arena, to json_arena_end(): nothing made in
 * between may be kept. */
void json_arena_begin(void);

/* Drops `root` (null-safe) and all that was made since json_arena_begin(). */
void json_arena_end(json_t *root);

/* Bytes used of this thread's arena; for tests. */
size_t json_arena_used(void);

#endif
