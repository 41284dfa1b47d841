/* Rows of label, count, duration and share, with a time axis as the last column. */
#include "table.h"

#include <inttypes.h>

#define AXIS_HALF_CELLS_MIN 32 /* three durations beside each other */

void
table_layout(struct table *table, const struct term *term, uint64_t total_ns)
{
	unsigned rest = term->columns - 20;

	table->term = term;
	table->total_ns = total_ns;
	table->bar_cells = rest * 45 / 100;
	table->label_columns = rest - table->bar_cells;
	table->ns_end = table->label_columns + 10;
	table->share_end = table->ns_end + 7;
	table->bar_begin = table->share_end + 2;
	table->bar_cells = term->columns - table->bar_begin;
}

static void
put_share(const struct table *table, struct term_line *line, uint64_t ns)
{
	char text[16];

	if (table->total_ns == 0)
		return;
	snprintf(text, sizeof(text), "%.1f%%", 100.0 * (double)ns / (double)table->total_ns);
	term_line_right(line, TERM_DIM, table->share_end, text);
}

static void
put_label(const struct table *table, struct term_line *line, const struct table_row *row)
{
	unsigned room, count_columns = 0;
	char count[24] = "";

	if (row->count > 1) {
		snprintf(count, sizeof(count), "%s%" PRIu64, table->term->utf8 ? "\u00d7" : "x",
		         row->count);
		count_columns = term_width(table->term, count) + 1;
	}
	term_line_pad(line, row->indent);
	room = table->label_columns > line->columns + count_columns
	           ? table->label_columns - line->columns - count_columns
	           : 1;
	term_line_text(line, row->label_color, room, row->label);
	if (row->note != NULL && *row->note != '\0' &&
	    line->columns + 8 + count_columns < table->label_columns) {
		term_line_pad(line, line->columns + 2);
		room = table->label_columns - line->columns - count_columns;
		term_line_text(line, TERM_DIM, room, row->note);
	}
	if (count_columns > 0)
		term_line_right(line, TERM_DIM, table->label_columns, count);
}

void
table_row(const struct table *table, const struct table_row *row)
{
	double scale = table->total_ns == 0 ? 0 : 1.0 / (double)table->total_ns;
	char text[TERM_DURATION_SIZE], duration[TERM_DURATION_SIZE + 2];
	struct term_line line;

	term_line_begin(&line, table->term);
	put_label(table, &line, row);
	snprintf(duration, sizeof(duration), "%s%s", row->estimated ? "~" : "",
	         term_duration(table->term, row->ns, text));
	term_line_right(&line, TERM_PLAIN, table->ns_end, duration);
	put_share(table, &line, row->ns);
	if (row->bar) {
		term_line_pad(&line, table->bar_begin);
		term_line_bar(&line, row->bar_color, table->bar_cells, (double)row->from_ns * scale,
		              (double)(row->from_ns + row->ns) * scale, row->light);
	}
	term_line_end(&line);
}

void
table_axis(const struct table *table, const char *heading, const char *note)
{
	char text[TERM_DURATION_SIZE];
	struct term_line line;
	unsigned half;

	term_line_begin(&line, table->term);
	term_line_text(&line, TERM_BOLD, table->label_columns, heading);
	if (note != NULL) {
		term_line_pad(&line, line.columns + 2);
		term_line_text(&line, TERM_DIM, table->share_end - line.columns, note);
	}
	term_line_pad(&line, table->bar_begin);
	term_line_text(&line, TERM_DIM, 1, "0");
	if (table->bar_cells >= AXIS_HALF_CELLS_MIN) {
		term_duration(table->term, table->total_ns / 2, text);
		half = table->bar_begin + (table->bar_cells + term_width(table->term, text)) / 2;
		term_line_right(&line, TERM_DIM, half, text);
	}
	term_line_right(&line, TERM_DIM, table->term->columns,
	                term_duration(table->term, table->total_ns, text));
	term_line_end(&line);
}
