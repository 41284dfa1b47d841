/* Interned stacks per hook instance, forgotten in the order of last hearing. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/stacks.h"
#include <uthash.h>
#include <utlist.h>

struct known {
	UT_hash_handle hh;
	int64_t id;
	struct stack *stack; /* ref */
};

struct instance {
	UT_hash_handle hh;
	struct instance *prev, *next; /* list: least recently heard first */
	uint8_t id[PROFILE_INSTANCE_SIZE];
	struct known *known; /* uthash head; owns the entries */
	uint64_t dropped;
};

struct stacks {
	struct stacks_limits limits;
	struct instance *by_id; /* uthash head; owns the instances */
	struct instance *heard;
	struct stack_pool *pool; /* owned */
	size_t instances, count;
	uint64_t forgotten;
};

struct stacks *
stacks_new(const struct stacks_limits *limits)
{
	struct stacks *stacks = xcalloc(1, sizeof(*stacks));
	stacks->limits = *limits;
	stacks->pool = stack_pool_new();
	return stacks;
}

static void
instance_clear(struct stacks *stacks, struct instance *instance)
{
	struct known *known, *next;
	HASH_ITER(hh, instance->known, known, next)
	{
		HASH_DEL(instance->known, known);
		stacks->count--;
		stack_unref(known->stack);
		free(known);
	}
}

static void
instance_forget(struct stacks *stacks, struct instance *instance)
{
	instance_clear(stacks, instance);
	HASH_DEL(stacks->by_id, instance);
	DL_DELETE(stacks->heard, instance);
	stacks->instances--;
	free(instance);
}

void
stacks_free(struct stacks *stacks)
{
	if (stacks == NULL)
		return;
	while (stacks->heard != NULL)
		instance_forget(stacks, stacks->heard);
	stack_pool_free(stacks->pool);
	free(stacks);
}

static struct instance *
instance_find(struct stacks *stacks, const uint8_t *id)
{
	struct instance *instance;
	HASH_FIND(hh, stacks->by_id, id, PROFILE_INSTANCE_SIZE, instance);
	return instance;
}

/* The instance, newest in the list; made where it is new. */
static struct instance *
instance_hear(struct stacks *stacks, const struct profile_process *process)
{
	struct instance *instance = instance_find(stacks, process->instance);
	if (instance != NULL) {
		DL_DELETE(stacks->heard, instance);
		DL_APPEND(stacks->heard, instance);
		return instance;
	}
	while (stacks->instances >= stacks->limits.instances) {
		instance_forget(stacks, stacks->heard);
		stacks->forgotten++;
	}
	instance = xcalloc(1, sizeof(*instance));
	memcpy(instance->id, process->instance, PROFILE_INSTANCE_SIZE);
	HASH_ADD(hh, stacks->by_id, id, PROFILE_INSTANCE_SIZE, instance);
	DL_APPEND(stacks->heard, instance);
	stacks->instances++;
	return instance;
}

static struct stack *
instance_stack(const struct instance *instance, int64_t id)
{
	struct known *known = NULL;
	if (instance != NULL)
		HASH_FIND(hh, instance->known, &id, sizeof(id), known);
	return known != NULL ? known->stack : NULL;
}

static int
batch_order(const void *a, const void *b)
{
	const struct profile_batch_stack *x = a, *y = b;
	return (x->id > y->id) - (x->id < y->id);
}

static bool
id_known(const struct instance *instance, const struct profile_batch *batch, int64_t id)
{
	struct profile_batch_stack key = {.id = id};
	return id < 0 || instance_stack(instance, id) != NULL ||
	       bsearch(&key, batch->stacks, batch->stack_count, sizeof(key), batch_order) != NULL;
}

static bool
rows_known(const struct instance *instance, const struct profile_batch *batch,
           const struct profile_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		if (!id_known(instance, batch, rows->rows[i].stack_id))
			return false;
	return true;
}

static bool
batch_known(const struct instance *instance, const struct profile_batch *batch)
{
	for (size_t i = 0; i < batch->profile_count; i++) {
		const struct profile *p = batch->profiles[i];
		if (!rows_known(instance, batch, &p->breakdown) ||
		    !rows_known(instance, batch, &p->stream))
			return false;
		for (size_t k = 0; k < p->stall_count; k++)
			if (!id_known(instance, batch, p->stalls[k].stack_id))
				return false;
		for (size_t k = 0; k < p->thread_count; k++)
			if (!id_known(instance, batch, p->threads[k].stack_id))
				return false;
	}
	for (size_t i = 0; i < batch->detail_count; i++)
		for (size_t k = 0; k < batch->details[i]->stack_count; k++)
			if (!id_known(instance, batch, batch->details[i]->stack_ids[k]))
				return false;
	return true;
}

static bool
over(const struct stacks *stacks)
{
	return stacks->count > stacks->limits.stacks || stacks_bytes(stacks) > stacks->limits.bytes;
}

/* A stack that is known keeps its first meaning: IDs never change theirs. */
static void
instance_learn(struct stacks *stacks, struct instance *instance, const struct profile_batch *batch)
{
	for (size_t i = 0; i < batch->stack_count; i++) {
		if (instance_stack(instance, batch->stacks[i].id) != NULL)
			continue;
		struct stack *stack = stack_share(stacks->pool, batch->stacks[i].stack);
		if (stack == NULL)
			continue; /* no memory: whoever names it is told to send it again */
		struct known *known = xcalloc(1, sizeof(*known));
		known->id = batch->stacks[i].id;
		known->stack = stack;
		HASH_ADD(hh, instance->known, id, sizeof(known->id), known);
		stacks->count++;
	}
}

static void
rows_resolve(const struct instance *instance, struct profile_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		rows->rows[i].stack = stack_ref(instance_stack(instance, rows->rows[i].stack_id));
}

static void
batch_resolve(const struct instance *instance, struct profile_batch *batch)
{
	for (size_t i = 0; i < batch->profile_count; i++) {
		struct profile *p = batch->profiles[i];
		rows_resolve(instance, &p->breakdown);
		rows_resolve(instance, &p->stream);
		for (size_t k = 0; k < p->stall_count; k++)
			p->stalls[k].stack =
			    stack_ref(instance_stack(instance, p->stalls[k].stack_id));
		for (size_t k = 0; k < p->thread_count; k++)
			p->threads[k].stack =
			    stack_ref(instance_stack(instance, p->threads[k].stack_id));
	}
	for (size_t i = 0; i < batch->detail_count; i++) {
		struct detail *d = batch->details[i];
		for (size_t k = 0; k < d->stack_count; k++)
			d->stacks[k] = stack_ref(instance_stack(instance, d->stack_ids[k]));
	}
}

enum stacks_result
stacks_take(struct stacks *stacks, struct profile_batch *batch, uint64_t *ret_dropped)
{
	*ret_dropped = 0;
	if (batch->stack_count > 1)
		qsort(batch->stacks, batch->stack_count, sizeof(*batch->stacks), batch_order);
	if (!batch_known(instance_find(stacks, batch->process->instance), batch))
		return STACKS_RESEND;
	struct instance *instance = instance_hear(stacks, batch->process);
	if (batch->process->dropped > instance->dropped)
		*ret_dropped = batch->process->dropped - instance->dropped;
	instance->dropped = batch->process->dropped;
	instance_learn(stacks, instance, batch);
	batch_resolve(instance, batch);
	while (over(stacks) && stacks->heard != instance) {
		instance_forget(stacks, stacks->heard);
		stacks->forgotten++;
	}
	if (over(stacks)) { /* rows hold their stacks; the next batch is told to resend */
		instance_forget(stacks, instance);
		stacks->forgotten++;
	}
	return STACKS_OK;
}

size_t
stacks_instances(const struct stacks *stacks)
{
	return stacks->instances;
}

size_t
stacks_count(const struct stacks *stacks)
{
	return stacks->count;
}

size_t
stacks_bytes(const struct stacks *stacks)
{
	return stacks->count * sizeof(struct known) + stack_pool_bytes(stacks->pool);
}

uint64_t
stacks_forgotten(const struct stacks *stacks)
{
	return stacks->forgotten;
}
