/* Stacks as rows of a route know them: interned by (module, qualified name) of every frame, so that
 * neither a line that moved nor a new release directory makes another stack. File, line and in_app
 * of the newest are kept beside it. An ID is a 64-bit hash of that key: the same in every process
 * and in the store, and a stack's ID follows from its parent's. Pure; one thread. */
#ifndef TAILRACE_MODEL_FLAME_H
#define TAILRACE_MODEL_FLAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/profile.h"
#include "model/text.h"

#define FLAME_STACKS_MAX 65536
#define FLAME_FRAMES_MAX 65536 /* different ones, over all stacks */

/* The ID of the stack that has one frame more than `parent` (0: the outermost frame). Never 0. */
uint64_t flame_key(uint64_t parent, const char *module, const char *function);

struct flame_frame {
	const char *module, *function, *file;
	uint32_t line;
	bool in_app;
};

struct flame;

struct flame *flame_new(size_t stacks_max, size_t frames_max);
void flame_free(struct flame *flame); /* null-safe */

/* The ID of a stack the hook told; 0 where it has no frames, or is new and there is no room
 * (counted). `now_s` is any clock of seconds. */
uint64_t flame_intern(struct flame *flame, const struct stack *stack, uint64_t now_s);

/* As flame_intern() from the JSON array of frames that flame_write() makes. 0 also where it is no
 * such array. */
uint64_t flame_learn(struct flame *flame, const char *json, size_t length, uint64_t now_s);

/* The ID of the stack without its innermost frame, interned; 0 where there is none or it is not
 * known. For struct rollup_parents: `arg` is the table. */
uint64_t flame_parent(void *arg, uint64_t stack);

/* Number of frames; 0 where the stack is not known. */
size_t flame_depth(const struct flame *flame, uint64_t stack);

/* Frame `at` (0 = outermost) of a known stack. Borrowed until the table changes. */
struct flame_frame flame_frame(const struct flame *flame, uint64_t stack, size_t at);

/* The frame that names a row: the innermost of the app, else the innermost. Returns false where
 * the stack is not known. */
bool flame_named(const struct flame *flame, uint64_t stack, struct flame_frame *ret);

/* Appends the stack as the API shows it, a JSON array, outermost first; [] where it is not
 * known. */
void flame_write(const struct flame *flame, uint64_t stack, struct text *out);

/* Stacks that are new, have new lines, or were told to `each` more than `again_s` before `now_s`
 * and used since. `each` returns false to stop behind this one. */
void flame_each_unsaved(struct flame *flame, uint64_t now_s, uint64_t again_s,
                        bool (*each)(void *arg, uint64_t stack), void *arg);

/* Forgets stacks not used since `before_s`. */
void flame_prune(struct flame *flame, uint64_t before_s);

size_t flame_count(const struct flame *flame);
uint64_t flame_overflowed(const struct flame *flame); /* look-ups answered 0 for want of room */

#endif
