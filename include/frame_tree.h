/* Breakdown rows of a profile merged into a call tree of the app's own frames: library frames fold into
 * the leaf below them. Borrows all text from the JSON it was made of. One thread. */
#ifndef TAILRACE_FRAME_TREE_H
#define TAILRACE_FRAME_TREE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_LINES_MAX 4 /* lines told of one frame; more are counted as "..." */

struct frame_node {
	struct frame_node *children, *last, *next; /* owned */
	const char *function;                      /* of a frame; null = leaf */
	const char *file;
	const char *module;
	const char *cause;                             /* leaf: what was waited for, or null */
	const char *library_module, *library_function; /* leaf: outermost library frame, or null */
	const char *by_route, *by_trace; /* leaf: the foreign lane that woke it, or null */
	uint64_t ns;                     /* with everything below */
	uint64_t count, samples;
	bool exact; /* every row below is */
	bool more_lines;
	unsigned line_count; /* a leaf's are those of the frame it is in */
	int lines[FRAME_LINES_MAX];
};

/* The rows of `breakdown` (an array of docs/api.md) that have this kind, as a tree under a nameless
 * root. Never null; free with frame_tree_free(). */
struct frame_node *frame_tree_make(const json_t *breakdown, const char *kind);

/* "app.py:46,48": the file, where there is one, and the lines. Returns how much of `buf` is used. */
size_t frame_tree_note(const struct frame_node *node, char *buf, size_t size);

void frame_tree_free(struct frame_node *root);

#endif
