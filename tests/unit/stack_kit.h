/* Stacks as a hook tells them, from the JSON array of their frames. */
#ifndef TAILRACE_TESTS_STACK_KIT_H
#define TAILRACE_TESTS_STACK_KIT_H

#include <stdio.h>
#include <string.h>
#include "model/flame.h"
#include "model/stack.h"

/* All frames in one, which is written like many. Owned: stack_unref(). */
static inline struct stack *
kit_told(const char *array, uint64_t key)
{
	size_t length = strlen(array);

	return stack_new(NULL, array + (length > 1), length > 1 ? length - 2 : 0, key);
}

/* Two frames of an app, the innermost one by number. Owned: stack_unref(). */
static inline struct stack *
kit_step(unsigned number)
{
	char json[512], function[32];
	snprintf(function, sizeof(function), "step%u", number);
	snprintf(json, sizeof(json),
	         "[{\"module\":\"app\",\"function\":\"main\",\"file\":\"app.py\",\"line\":1,"
	         "\"in_app\":true},{\"module\":\"app\",\"function\":\"%s\",\"file\":\"app.py\","
	         "\"line\":%u,\"in_app\":true}]",
	         function, number + 1);
	return kit_told(json, flame_key(flame_key(0, "app", "main"), "app", function));
}

#endif
