/* From a list of [number of the frame before or -1, frame] to arrays of frames. */
#include "collector/stack_join.h"

#include "model/profile_batch.h"

/* Outermost first. Each frame names one before it in the list, so that it ends. */
static json_t *
stack_of(const json_t *nodes, json_int_t at)
{
	json_t *stack = json_array();
	for (size_t depth = 0; depth < PROFILE_FRAMES_MAX && at >= 0; depth++) {
		const json_t *node = json_array_get(nodes, (size_t)at);
		json_t *parent = json_array_get(node, 0), *frame = json_array_get(node, 1);
		if (!json_is_object(frame) || !json_is_integer(parent))
			break;
		json_array_insert(stack, 0, frame);
		at = json_integer_value(parent) < at ? json_integer_value(parent) : -1;
	}
	return stack;
}

static void
join_rows(const json_t *nodes, json_t *rows)
{
	size_t i;
	json_t *row;
	json_array_foreach(rows, i, row)
	{
		const json_t *number = json_object_get(row, "stack");
		if (json_is_integer(number))
			json_object_set_new(row, "stack",
			                    stack_of(nodes, json_integer_value(number)));
	}
}

void
stack_join(json_t *exchange)
{
	static const char *const lists[] = {"breakdown", "stream_breakdown", "stalls", "threads"};
	json_t *profile = json_object_get(exchange, "profile");
	json_t *nodes = json_incref(json_object_get(profile, "frames"));
	if (nodes == NULL)
		return;
	json_object_del(profile, "frames");
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		join_rows(nodes, json_object_get(profile, lists[i]));
	json_decref(nodes);
}
