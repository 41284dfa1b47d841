/* A stack the hook told, as its innermost frame behind the stack of the others: a thousand routes'
 * stacks have their outer frames in common, and processes of one app all their stacks.
 * Reference-counted. Pure; one thread. */
#ifndef TAILRACE_MODEL_STACK_H
#define TAILRACE_MODEL_STACK_H

#include <stddef.h>
#include <stdint.h>
#include <uthash.h>
#include "model/text.h"

struct stack_pool;

struct stack {
	uint64_t key; /* its ID in model/flame.h; 0 = it has no frames */
	struct {
		struct stack *parent; /* ref; null = the outermost frame */
		uint64_t hash;        /* of the text */
	} id;
	UT_hash_handle hh;       /* in the pool */
	struct stack_pool *pool; /* null = not shared */
	uint32_t references;
	uint32_t seen, number; /* for who writes a list of stacks: of which, and its place there */
	uint32_t form;         /* a hash of all frames' texts: tells lines that moved */
	uint32_t length;       /* of the text; 0 = it has no frames */
	char text[];           /* the innermost frame, a JSON object; NUL-terminated */
};

/* `parent`'s stack (borrowed; null = none) with one frame more, or with none at all where length is
 * 0. Null where there is no memory. */
struct stack *stack_new(struct stack *parent, const char *text, size_t length, uint64_t key);
struct stack *stack_ref(struct stack *stack); /* null-safe, as the others */
void stack_unref(struct stack *stack);

/* Appends all frames as the API shows them: a JSON array, outermost first; [] for null. */
void stack_write(const struct stack *stack, struct text *out);

/* Stacks of which there is one each, as long as somebody holds them. */
struct stack_pool *stack_pool_new(void);
void stack_pool_free(struct stack_pool *pool); /* null-safe; stacks that are held stay */

/* A reference to the pool's stack of the same frames, made where there is none. */
struct stack *stack_share(struct stack_pool *pool, const struct stack *stack);

size_t stack_pool_bytes(const struct stack_pool *pool);

#endif
