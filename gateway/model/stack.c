/* Stacks as chains, and the pool in which chains meet. */
#include "model/stack.h"
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/profile_batch.h"

struct stack_pool {
	struct stack *stacks; /* uthash head; owns none of them */
	size_t bytes;
};

static uint64_t
text_hash(const char *text, size_t length) /* FNV-1a, mixed */
{
	uint64_t hash = 0xcbf29ce484222325ull;
	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3ull;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdull;
	return hash ^ hash >> 33;
}

struct stack *
stack_new(struct stack *parent, const char *text, size_t length, uint64_t key)
{
	struct stack *stack = xmem_try(sizeof(*stack) + length + 1);
	if (stack == NULL)
		return NULL;
	memset(stack, 0, sizeof(*stack));
	stack->key = key;
	stack->id.parent = stack_ref(parent);
	stack->id.hash = text_hash(text, length);
	stack->references = 1;
	stack->form = (uint32_t)(stack->id.hash + (parent != NULL ? parent->form * 31u : 0));
	stack->length = (uint32_t)length;
	memcpy(stack->text, text, length);
	stack->text[length] = '\0';
	return stack;
}

struct stack *
stack_ref(struct stack *stack)
{
	if (stack != NULL)
		stack->references++;
	return stack;
}

static size_t
bytes_of(const struct stack *stack)
{
	return sizeof(*stack) + stack->length + 1;
}

void
stack_unref(struct stack *stack)
{
	while (stack != NULL && --stack->references == 0) {
		struct stack *parent = stack->id.parent;
		if (stack->pool != NULL) {
			stack->pool->bytes -= bytes_of(stack);
			HASH_DEL(stack->pool->stacks, stack);
		}
		free(stack);
		stack = parent;
	}
}

/* From the outermost frame to `stack`. Returns how many. */
static size_t
frames_of(const struct stack *stack, const struct stack *ret[PROFILE_FRAMES_MAX])
{
	size_t count = 0;
	for (const struct stack *at = stack; at != NULL && at->length > 0; at = at->id.parent)
		if (count < PROFILE_FRAMES_MAX)
			ret[count++] = at;
	for (size_t i = 0; i < count / 2; i++) {
		const struct stack *other = ret[i];
		ret[i] = ret[count - 1 - i];
		ret[count - 1 - i] = other;
	}
	return count;
}

void
stack_write(const struct stack *stack, struct text *out)
{
	const struct stack *frames[PROFILE_FRAMES_MAX];
	size_t count = frames_of(stack, frames);
	text_puts(out, "[");
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			text_puts(out, ",");
		text_add(out, frames[i]->text, frames[i]->length);
	}
	text_puts(out, "]");
}

struct stack_pool *
stack_pool_new(void)
{
	return xcalloc(1, sizeof(struct stack_pool));
}

void
stack_pool_free(struct stack_pool *pool)
{
	if (pool == NULL)
		return;
	for (struct stack *stack = pool->stacks; stack != NULL; stack = stack->hh.next)
		stack->pool = NULL;
	HASH_CLEAR(hh, pool->stacks);
	free(pool);
}

/* As stack_share() of one frame, `parent` being the pool's own. */
static struct stack *
share_one(struct stack_pool *pool, struct stack *parent, const struct stack *from)
{
	struct stack *known, key = {.id = {parent, from->id.hash}};
	HASH_FIND(hh, pool->stacks, &key.id, sizeof(key.id), known);
	if (known != NULL && known->length == from->length &&
	    memcmp(known->text, from->text, from->length) == 0)
		return stack_ref(known);
	struct stack *stack = stack_new(parent, from->text, from->length, from->key);
	if (stack == NULL || known != NULL) /* two texts share a hash: this one stays alone */
		return stack;
	stack->pool = pool;
	pool->bytes += bytes_of(stack);
	HASH_ADD(hh, pool->stacks, id, sizeof(stack->id), stack);
	return stack;
}

struct stack *
stack_share(struct stack_pool *pool, const struct stack *stack)
{
	const struct stack *frames[PROFILE_FRAMES_MAX];
	size_t count = frames_of(stack, frames);
	struct stack *shared = count == 0 ? share_one(pool, NULL, stack) : NULL;
	for (size_t i = 0; i < count; i++) {
		struct stack *longer = share_one(pool, shared, frames[i]);
		stack_unref(shared);
		shared = longer;
		if (shared == NULL)
			return NULL;
	}
	return shared;
}

size_t
stack_pool_bytes(const struct stack_pool *pool)
{
	return pool->bytes;
}
