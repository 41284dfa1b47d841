/* Each cell of a lane's line shows what the lane did most in its share of the time. */
#include "waterfall_lanes.h"

#include <string.h>

#define LANES_SHOWN_MAX 24
#define DEPTH_MAX 6
#define KINDS 5

static const struct {
	const char *name, *wide, *plain;
	enum term_color color;
} kinds[KINDS] = {
    {"run", "\u2588", "#", TERM_GREEN},          {"ready", "\u2592", "!", TERM_YELLOW},
    {"wait", "\u2500", "-", TERM_BLUE},          {"thread_queue", "\u2592", "!", TERM_YELLOW},
    {"thread_run", "\u2588", "=", TERM_MAGENTA},
};

static uint64_t
number_of(const json_t *object, const char *key)
{
	json_int_t value = json_integer_value(json_object_get(object, key));

	return value < 0 ? 0 : (uint64_t)value;
}

static size_t
kind_of(const json_t *segment)
{
	const char *name = json_string_value(json_array_get(segment, 2));
	size_t i = 0;

	while (name != NULL && i < KINDS && strcmp(kinds[i].name, name) != 0)
		i++;
	return name == NULL ? KINDS : i;
}

static uint64_t
overlap(const json_t *segment, uint64_t from_ns, uint64_t to_ns)
{
	uint64_t begin_ns = (uint64_t)json_integer_value(json_array_get(segment, 0));
	uint64_t end_ns = (uint64_t)json_integer_value(json_array_get(segment, 1));

	begin_ns = begin_ns > from_ns ? begin_ns : from_ns;
	end_ns = end_ns < to_ns ? end_ns : to_ns;
	return end_ns > begin_ns ? end_ns - begin_ns : 0;
}

/* What the lane did most between two times; KINDS where it was not there. *first is the first
 * segment that may reach into it, and goes on with it. */
static size_t
dominant(const json_t *timeline, size_t *first, uint64_t from_ns, uint64_t to_ns)
{
	uint64_t sums[KINDS + 1] = {0};
	size_t best = KINDS;

	for (size_t i = *first; i < json_array_size(timeline); i++) {
		const json_t *segment = json_array_get(timeline, i);

		if ((uint64_t)json_integer_value(json_array_get(segment, 0)) >= to_ns)
			break;
		if ((uint64_t)json_integer_value(json_array_get(segment, 1)) <= from_ns)
			*first = i + 1;
		sums[kind_of(segment)] += overlap(segment, from_ns, to_ns);
	}
	for (size_t i = 0; i < KINDS; i++)
		if (sums[i] > 0 && (best == KINDS || sums[i] > sums[best]))
			best = i;
	return best;
}

static void
put_timeline(const struct table *w, struct term_line *line, const json_t *timeline)
{
	unsigned cells = w->bar_cells;
	size_t first = 0;

	if (cells == 0 || w->total_ns == 0)
		return;
	term_line_pad(line, w->bar_begin);
	for (unsigned cell = 0; cell < cells; cell++) {
		uint64_t from_ns = (uint64_t)((double)w->total_ns * cell / cells);
		uint64_t to_ns = (uint64_t)((double)w->total_ns * (cell + 1) / cells);
		size_t kind = dominant(timeline, &first, from_ns, to_ns);

		if (kind == KINDS)
			term_line_text(line, TERM_PLAIN, 1, " ");
		else
			term_line_text(line, kinds[kind].color, 1,
			               w->term->utf8 ? kinds[kind].wide : kinds[kind].plain);
	}
}

static unsigned
depth_of(const json_t *lanes, const json_t *lane)
{
	unsigned depth = 0;
	uint64_t parent = number_of(lane, "parent");

	for (; parent > 0 && depth < DEPTH_MAX; depth++)
		parent = number_of(json_array_get(lanes, (size_t)parent - 1), "parent");
	return depth;
}

static void
put_lane(const struct table *w, const json_t *lanes, const json_t *lane)
{
	const char *kind = json_string_value(json_object_get(lane, "kind"));
	const char *name = json_string_value(json_object_get(lane, "name"));
	unsigned indent = 2 + 2 * depth_of(lanes, lane);
	uint64_t life_ns =
	    number_of(lane, "run_ns") + number_of(lane, "ready_ns") + number_of(lane, "wait_ns");
	char text[TERM_DURATION_SIZE];
	struct term_line line;

	term_line_begin(&line, w->term);
	term_line_pad(&line, indent);
	term_line_text(&line, TERM_BOLD, w->label_columns - indent, name == NULL ? "?" : name);
	if (kind != NULL && strcmp(kind, "task") != 0 && line.columns + 9 < w->label_columns) {
		term_line_pad(&line, line.columns + 1);
		term_line_text(&line, TERM_DIM, w->label_columns - line.columns, kind);
	}
	term_line_right(&line, TERM_PLAIN, w->ns_end, term_duration(w->term, life_ns, text));
	put_timeline(w, &line, json_object_get(lane, "timeline"));
	term_line_end(&line);
}

void
waterfall_lanes(const struct table *w, const json_t *profile)
{
	const json_t *lanes = json_object_get(profile, "lanes"), *lane;
	size_t i;

	if (json_array_size(lanes) == 0)
		return;
	fputc('\n', w->term->out);
	table_axis(w, "lanes",
	           w->term->utf8 ? "\u2588 runs, \u2592 ready, \u2500 waits"
	                         : "# = runs, ! ready, - waits");
	json_array_foreach(lanes, i, lane)
	{
		if (i == LANES_SHOWN_MAX)
			break;
		put_lane(w, lanes, lane);
	}
	if (json_array_size(lanes) > LANES_SHOWN_MAX) {
		struct term_line line;

		term_line_begin(&line, w->term);
		term_line_printf(&line, TERM_DIM, "  %zu more lanes",
		                 json_array_size(lanes) - LANES_SHOWN_MAX);
		term_line_end(&line);
	}
}
