/* A table for people whose last column is a time axis: one row a span of time, with its share of the
 * whole and a bar where it lay. One thread. */
#ifndef TAILRACE_TABLE_H
#define TAILRACE_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include "term.h"

struct table {
	const struct term *term;
	unsigned label_columns;     /* the first column's width */
	unsigned ns_end, share_end; /* where the right-aligned columns end */
	unsigned bar_begin, bar_cells;
	uint64_t total_ns; /* what the axis stands for */
};

/* One row of the table. */
struct table_row {
	unsigned indent;
	const char *label;
	enum term_color label_color;
	const char *note;   /* dim, behind the label; may be null */
	uint64_t ns, count; /* count > 1 is told */
	bool estimated;
	uint64_t from_ns; /* where its bar begins */
	enum term_color bar_color;
	bool bar, light;
};

/* Divides the terminal's columns; the axis stands for `total_ns`. `term` is borrowed. */
void table_layout(struct table *table, const struct term *term, uint64_t total_ns);

/* Prints one row. */
void table_row(const struct table *table, const struct table_row *row);

/* Prints a heading, a dim note (or null) and the axis: 0, half where there is room, all. */
void table_axis(const struct table *table, const char *heading, const char *note);

#endif
