/* Merges stacks into a tree: equal functions at equal depth are one node, whatever lines they were
 * at, and the order is that of the rows, in which things first happened. */
#include "frame_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static uint64_t
number_of(const json_t *object, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value < 0 ? 0 : (uint64_t)value;
}

static bool
same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static struct frame_node *
add_child(struct frame_node *parent, const struct frame_node *like)
{
	struct frame_node *node;

	for (node = parent->children; node != NULL; node = node->next) {
		if (same(node->function, like->function) && same(node->file, like->file) &&
		    same(node->module, like->module) && same(node->cause, like->cause) &&
		    same(node->library_module, like->library_module) &&
		    same(node->library_function, like->library_function) &&
		    same(node->by_trace, like->by_trace))
			return node;
	}
	node = xcalloc(1, sizeof(*node));
	*node = *like;
	node->exact = true;
	if (parent->last == NULL)
		parent->children = node;
	else
		parent->last->next = node;
	parent->last = node;
	return node;
}

static void
add_line(struct frame_node *node, int line)
{
	if (line <= 0)
		return;
	for (unsigned i = 0; i < node->line_count; i++) {
		if (node->lines[i] == line)
			return;
	}
	if (node->line_count == FRAME_LINES_MAX)
		node->more_lines = true;
	else
		node->lines[node->line_count++] = line;
}

static void
add_row(struct frame_node *node, const json_t *row)
{
	node->ns += number_of(row, "ns");
	node->count += number_of(row, "count");
	node->samples += number_of(row, "samples");
	if (json_is_false(json_object_get(row, "exact")))
		node->exact = false;
}

/* Makes the leaf of a row; `library` is the outermost library frame below the app's innermost,
 * which was at `line`. */
static void
add_leaf(struct frame_node *node, const json_t *row, const json_t *library, int line)
{
	const json_t *by = json_object_get(row, "by");
	struct frame_node like = {
	    .cause = text_of(row, "cause"),
	    .library_module = text_of(library, "module"),
	    .library_function = text_of(library, "function"),
	    .by_route = text_of(by, "route"),
	    .by_trace = text_of(by, "trace_id"),
	};

	node = add_child(node, &like);
	add_line(node, line);
	add_row(node, row);
}

static void
add_stack(struct frame_node *root, const json_t *row)
{
	const json_t *stack = json_object_get(row, "stack");
	const json_t *frame, *library = NULL, *innermost = NULL;
	struct frame_node *node = root;
	int line = 0;
	size_t i;

	json_array_foreach(stack, i, frame)
	{
		struct frame_node like = {
		    .function = text_of(frame, "function"),
		    .file = text_of(frame, "file"),
		    .module = text_of(frame, "module"),
		};

		innermost = frame;
		if (!json_is_true(json_object_get(frame, "in_app")) || like.function == NULL) {
			if (library == NULL)
				library = frame;
			continue;
		}
		library = NULL;
		node = add_child(node, &like);
		line = (int)json_integer_value(json_object_get(frame, "line"));
		add_line(node, line);
		add_row(node, row);
	}
	/* A stack with nothing of the app in it is named by its innermost frame. */
	add_leaf(node, row, node == root ? innermost : library, line);
}

struct frame_node *
frame_tree_make(const json_t *breakdown, const char *kind)
{
	struct frame_node *root = xcalloc(1, sizeof(*root));
	const json_t *row;
	size_t i;

	root->exact = true;
	json_array_foreach(breakdown, i, row)
	{
		const char *is = text_of(row, "kind");

		if (is == NULL || strcmp(is, kind) != 0)
			continue;
		add_row(root, row);
		add_stack(root, row);
	}
	return root;
}

size_t
frame_tree_note(const struct frame_node *node, char *buf, size_t size)
{
	size_t n = (size_t)snprintf(buf, size, "%s", node->file == NULL ? "" : node->file);

	for (unsigned i = 0; i < node->line_count && n < size; i++)
		n +=
		    (size_t)snprintf(buf + n, size - n, "%c%d", i == 0 ? ':' : ',', node->lines[i]);
	if (node->more_lines && n < size)
		n += (size_t)snprintf(buf + n, size - n, ",...");
	return n < size ? n : size - 1;
}

void
frame_tree_free(struct frame_node *root)
{
	struct frame_node *child, *next;

	if (root == NULL)
		return;
	for (child = root->children; child != NULL; child = next) {
		next = child->next;
		frame_tree_free(child); /* as deep as a stack: 64 */
	}
	free(root);
}
