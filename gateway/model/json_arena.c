/* A bump allocator behind jansson. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "model/json_arena.h"

#define ALIGNMENT 16

static bool installed;
static _Thread_local struct {
	char *memory; /* mapped at first use, for the thread's life */
	size_t used;
	bool open, spilled; /* spilled: something did not fit */
} arena;

static void *
take(size_t size)
{
	if (!arena.open)
		return malloc(size);
	size_t rounded = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	if (size > JSON_ARENA_BYTES || rounded > JSON_ARENA_BYTES - arena.used) {
		arena.spilled = true;
		return malloc(size);
	}
	void *at = arena.memory + arena.used;
	arena.used += rounded;
	return at;
}

static void
give_back(void *at)
{
	uintptr_t from = (uintptr_t)arena.memory, p = (uintptr_t)at;
	if (arena.memory == NULL || p < from || p >= from + JSON_ARENA_BYTES)
		free(at);
}

void
json_arena_install(void)
{
	json_set_alloc_funcs(take, give_back);
	installed = true;
}

void
json_arena_begin(void)
{
	if (!installed)
		return;
	if (arena.memory == NULL) {
		void *memory = mmap(NULL, JSON_ARENA_BYTES, PROT_READ | PROT_WRITE,
		                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory == MAP_FAILED)
			return;
		arena.memory = memory;
	}
	arena.open = true;
	arena.spilled = false;
}

void
json_arena_end(json_t *root)
{
	if (!arena.open || arena.spilled)
		json_decref(root);
	if (!arena.open)
		return;
	if (arena.used > JSON_ARENA_KEPT_BYTES)
		madvise(arena.memory + JSON_ARENA_KEPT_BYTES, arena.used - JSON_ARENA_KEPT_BYTES,
		        MADV_DONTNEED);
	arena.used = 0;
	arena.open = false;
}

size_t
json_arena_used(void)
{
	return arena.used;
}
