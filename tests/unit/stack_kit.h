/* Stacks as a hook tells them, from the JSON array of their frames. */
#ifndef TAILRACE_TESTS_STACK_KIT_H
#define TAILRACE_TESTS_STACK_KIT_H

#include <string.h>
#include "model/stack.h"

/* All frames in one, which is written like many. Owned: stack_unref(). */
static inline struct stack *
kit_told(const char *array, uint64_t key)
{
	size_t length = strlen(array);

	return stack_new(NULL, array + (length > 1), length > 1 ? length - 2 : 0, key);
}

#endif
