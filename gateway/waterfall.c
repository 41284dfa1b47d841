/* The waterfall. Phases and the app's parts lie on the axis where they were in time; what the app's
 * part consists of is laid end to end inside it, so that it can be seen to add up. */
#include "waterfall.h"

#include <string.h>
#include "frame_tree.h"
#include "table.h"
#include "waterfall_lanes.h"

#define SMALL_SHARE 500      /* rows below 1/500 of their part are folded where there are several */
#define KEPT_COLUMNS 13      /* " (kept alive)" */
#define LABEL_COLUMNS_MIN 16 /* indentation stops growing where less would be left for the text */
#define FRAME_TEXT_MAX 512
#define STALLS_SHOWN_MAX 8
#define THREADS_SHOWN_MAX 8

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

static void
blank(const struct term *term)
{
	fputc('\n', term->out);
}

/* --- what was asked and answered ------------------------------------------- */

static enum term_color
status_color(json_int_t status)
{
	if (status == 0 || status >= 500)
		return TERM_RED;
	return status >= 400 ? TERM_YELLOW : TERM_GREEN;
}

static void
put_title(const struct term *term, const json_t *exchange)
{
	const json_t *status = json_object_get(exchange, "status");
	json_int_t code = json_integer_value(status);
	const char *method = text_of(exchange, "method"), *path = text_of(exchange, "path");
	const char *trace = text_of(exchange, "trace_id");
	char text[TERM_DURATION_SIZE];
	struct term_line line;

	term_line_begin(&line, term);
	term_line_printf(&line, TERM_BOLD, "%s %s", method == NULL ? "?" : method,
	                 path == NULL ? "?" : path);
	term_line_pad(&line, line.columns + 2);
	if (json_is_integer(status))
		term_line_printf(&line, status_color(code), "%d", (int)code);
	else
		term_line_printf(&line, TERM_RED, "nothing sent");
	term_line_pad(&line, line.columns + 2);
	term_line_text(&line, TERM_BOLD, 20,
	               term_duration(term, number_of(exchange, "total_ns"), text));
	if (trace != NULL && line.columns + 42 <= term->columns) {
		char both[80];

		snprintf(both, sizeof(both), "trace %.64s", trace);
		term_line_right(&line, TERM_DIM, term->columns, both);
	}
	term_line_end(&line);
}

/* Ends the line and begins another where less than so many columns are left on this one. */
static void
room_for(struct term_line *line, unsigned columns)
{
	const struct term *term = line->term;

	if (line->columns == 0 || line->columns + columns <= term->columns)
		return;
	term_line_end(line);
	term_line_begin(line, term);
}

static void
put_where(const struct term *term, const json_t *exchange)
{
	const json_t *connection = json_object_get(exchange, "connection");
	const char *arrow = term->utf8 ? "\u2192" : "->";
	const char *start = text_of(exchange, "start"), *route = text_of(exchange, "route");
	const char *client = text_of(connection, "client"), *server = text_of(connection, "server");
	uint64_t attempts = number_of(connection, "attempts");
	struct term_line line;

	term_line_begin(&line, term);
	if (start != NULL && strlen(start) >= 23)
		term_line_printf(&line, TERM_DIM, "%.10s %.12s UTC   ", start, start + 11);
	if (route != NULL) {
		room_for(&line, 6 + term_width(term, route));
		term_line_printf(&line, TERM_DIM, "route %s   ", route);
	}
	room_for(&line, (client != NULL ? term_width(term, client) + 3 : 0) +
	                    (server != NULL ? term_width(term, server) : 9) + KEPT_COLUMNS);
	if (client != NULL)
		term_line_printf(&line, TERM_DIM, "%s %s ", client, arrow);
	term_line_printf(
	    &line, TERM_DIM, "%s%s", server == NULL ? "no server" : server,
	    json_is_true(json_object_get(connection, "server_reused")) ? " (kept alive)" : "");
	if (attempts > 1)
		term_line_printf(&line, TERM_YELLOW, "   %u attempts", (unsigned)attempts);
	term_line_end(&line);
}

static void
put_end(const struct term *term, const json_t *exchange)
{
	const char *died_in = text_of(exchange, "died_in"), *cause = text_of(exchange, "cause");
	struct term_line line;

	if (died_in == NULL && cause == NULL)
		return;
	term_line_begin(&line, term);
	term_line_printf(&line, TERM_RED, "ended in %s: %s", died_in == NULL ? "?" : died_in,
	                 cause == NULL ? "?" : cause);
	term_line_end(&line);
}

static void
put_tunnel(const struct term *term, const json_t *exchange)
{
	const json_t *tunnel = json_object_get(exchange, "tunnel");
	const char *cause = text_of(tunnel, "cause");
	char text[TERM_DURATION_SIZE];
	struct term_line line;

	if (!json_is_object(tunnel))
		return;
	term_line_begin(&line, term);
	term_line_printf(&line, TERM_BOLD, "tunnel ");
	term_line_text(&line, TERM_BOLD, 20, term_duration(term, number_of(tunnel, "ns"), text));
	term_line_printf(&line, TERM_DIM, "   %llu bytes from the client, %llu from the app",
	                 (unsigned long long)number_of(tunnel, "client_bytes"),
	                 (unsigned long long)number_of(tunnel, "server_bytes"));
	if (cause != NULL)
		term_line_printf(&line, TERM_YELLOW, "   ended by %s", cause);
	term_line_end(&line);
}

/* --- the gateway's side ----------------------------------------------------- */

static bool
is_apps(const char *phase)
{
	return strcmp(phase, "send") == 0 || strcmp(phase, "wait") == 0;
}

/* Prints the phases; returns where the app's span (send + wait) begins, *ret_ns is its length. */
static uint64_t
put_phases(const struct table *w, const json_t *phases, uint64_t *ret_ns)
{
	uint64_t at = 0, begin = 0;
	const json_t *phase;
	char zero[256] = "";
	size_t i;

	*ret_ns = 0;
	json_array_foreach(phases, i, phase)
	{
		const char *name = text_of(phase, "name");
		uint64_t ns = number_of(phase, "ns");
		struct table_row row = {
		    .indent = 2, .label = name, .ns = ns, .from_ns = at, .bar = true};

		if (name == NULL)
			continue;
		row.bar_color = is_apps(name) ? TERM_BLUE : TERM_CYAN;
		if (is_apps(name)) {
			begin = *ret_ns == 0 ? at : begin;
			*ret_ns += ns;
		}
		if (ns > 0)
			table_row(w, &row);
		else if (strlen(zero) + strlen(name) + 3 < sizeof(zero))
			snprintf(zero + strlen(zero), sizeof(zero) - strlen(zero), "%s%s",
			         *zero == '\0' ? "" : ", ", name);
		at += ns;
	}
	if (*zero != '\0') {
		struct term_line line;

		term_line_begin(&line, w->term);
		term_line_pad(&line, 2);
		term_line_printf(&line, TERM_DIM, "0 ns: %s", zero);
		term_line_end(&line);
	}
	return begin;
}

/* --- the app's side --------------------------------------------------------- */

/* A leaf tells at which of its frame's lines it is, where there are several. */
static void
leaf_note(const struct frame_node *leaf, const struct frame_node *frame, char *buf, size_t size)
{
	const char *module = leaf->library_module, *function = leaf->library_function;

	buf[0] = '\0';
	if (leaf->line_count < frame->line_count) {
		size_t n = frame_tree_note(leaf, buf, size);

		n += (size_t)snprintf(buf + n, size - n, "%s", function != NULL ? "  " : "");
		buf += n;
		size -= n;
	}
	if (leaf->by_route != NULL || leaf->by_trace != NULL)
		snprintf(buf, size, "woken by %s",
		         leaf->by_route != NULL ? leaf->by_route : leaf->by_trace);
	else if (function != NULL)
		snprintf(buf, size, "%s%s%s", module == NULL ? "" : module,
		         module == NULL ? "" : ".", function);
}

static unsigned
tree_indent(const struct table *w, unsigned depth)
{
	unsigned indent = 4 + 2 * depth;

	unsigned room = w->label_columns; /* none to indent in, on the narrowest terminals */
	unsigned most = room > LABEL_COLUMNS_MIN + 4 ? room - LABEL_COLUMNS_MIN : 4;

	return indent < most ? indent : most;
}

/* A leaf that tells nothing its parent has not told. */
static bool
is_plain(const struct frame_node *leaf, const struct frame_node *parent)
{
	return leaf->function == NULL && leaf->cause == NULL && leaf->library_function == NULL &&
	       leaf->by_trace == NULL && parent->children == leaf && leaf->next == NULL;
}

static void
put_node(const struct table *w, const struct frame_node *parent, const struct frame_node *node,
         unsigned depth, uint64_t from_ns, enum term_color color)
{
	char note[1200];
	struct table_row row = {
	    .indent = tree_indent(w, depth),
	    .ns = node->ns,
	    .count = node->count,
	    .estimated = !node->exact,
	    .from_ns = from_ns,
	    .bar_color = color,
	    .light = true,
	    .note = note,
	};

	if (node->function != NULL) {
		frame_tree_note(node, note, sizeof(note));
		row.label = node->function;
		row.label_color = TERM_BOLD;
		row.bar = node->children == NULL || is_plain(node->children, node);
		row.count = row.bar ? node->count : 0;
	} else {
		leaf_note(node, parent, note, sizeof(note));
		row.label = node->cause != NULL              ? node->cause
		            : node->library_function != NULL ? "library"
		                                             : "itself";
		row.label_color = color;
		row.bar = true;
	}
	table_row(w, &row);
}

static void
put_folded(const struct table *w, unsigned depth, unsigned hidden, uint64_t ns)
{
	char label[48];
	struct table_row row = {
	    .indent = tree_indent(w, depth),
	    .label = label,
	    .label_color = TERM_DIM,
	    .ns = ns,
	};

	snprintf(label, sizeof(label), "%u smaller ones", hidden);
	table_row(w, &row);
}

static void
put_children(const struct table *w, const struct frame_node *parent, unsigned depth,
             uint64_t from_ns, uint64_t span_ns, enum term_color color)
{
	const struct frame_node *child;
	unsigned hidden = 0;
	uint64_t hidden_ns = 0;

	if (parent->children == NULL || is_plain(parent->children, parent))
		return;
	for (child = parent->children; child != NULL; child = child->next)
		hidden += child->ns < span_ns / SMALL_SHARE;
	for (child = parent->children; child != NULL; child = child->next) {
		if (hidden > 1 && child->ns < span_ns / SMALL_SHARE) {
			hidden_ns += child->ns;
		} else {
			put_node(w, parent, child, depth, from_ns, color);
			put_children(w, child, depth + 1, from_ns, span_ns, color);
		}
		from_ns += child->ns;
	}
	if (hidden > 1)
		put_folded(w, depth, hidden, hidden_ns);
}

/* The kinds of a breakdown, in the order they are told. */
static const struct {
	const char *kind, *label;
	enum term_color color;
} kinds[] = {
    {"run", "run", TERM_GREEN},
    {"ready", "ready (loop busy)", TERM_YELLOW},
    {"wait", "wait", TERM_BLUE},
    {"thread_queue", "thread queue", TERM_YELLOW},
    {"thread_run", "thread run", TERM_MAGENTA},
};

/* Unfolds one part of the app: its kinds, their trees, what nothing accounts for. */
static void
put_breakdown(const struct table *w, const json_t *rows, uint64_t unattributed_ns, uint64_t from_ns,
              uint64_t span_ns)
{
	struct table_row rest = {
	    .indent = 4,
	    .label = "unattributed",
	    .label_color = TERM_DIM,
	    .ns = unattributed_ns,
	    .bar_color = TERM_DIM,
	    .bar = true,
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct frame_node *tree = frame_tree_make(rows, kinds[i].kind);
		struct table_row row = {
		    .indent = 4,
		    .label = kinds[i].label,
		    .label_color = kinds[i].color,
		    .ns = tree->ns,
		    .count = tree->count,
		    .from_ns = from_ns,
		    .bar_color = kinds[i].color,
		    .bar = true,
		};

		if (tree->ns > 0) {
			table_row(w, &row);
			if (tree->ns >= span_ns / SMALL_SHARE)
				put_children(w, tree, 1, from_ns, span_ns, kinds[i].color);
		}
		from_ns += tree->ns;
		frame_tree_free(tree);
	}
	rest.from_ns = from_ns;
	table_row(w, &rest);
}

/* Puts text behind what is on the line, or on one of its own from column `indent` on where it does
 * not fit; it is cut where even that is too short. */
static void
put_behind(struct term_line *line, unsigned indent, const char *text)
{
	const struct term *term = line->term;

	room_for(line, 2 + term_width(term, text));
	term_line_pad(line, line->columns == 0 ? indent : line->columns + 2);
	term_line_text(line, TERM_DIM, term->columns - line->columns, text);
}

/* Begins the line of a stall: who held the loop, how long. A route is cut where room is short. */
static void
stall_begin(struct term_line *line, const struct term *term, const json_t *stall)
{
	const char *route = text_of(stall, "route"), *state = text_of(stall, "state");
	const char *phase = text_of(stall, "phase");
	char took[TERM_DURATION_SIZE], held[128];
	unsigned room;

	snprintf(held, sizeof(held), " held the loop for %s%s%s",
	         term_duration(term, number_of(stall, "ns"), took),
	         phase != NULL && strcmp(phase, "app_queue") == 0 ? " of app_queue" : "",
	         state == NULL                   ? ""
	         : strcmp(state, "blocked") == 0 ? ", blocked"
	                                         : ", computing");
	term_line_begin(line, term);
	term_line_pad(line, 2);
	term_line_printf(line, TERM_YELLOW, "stall");
	term_line_pad(line, 9);
	room = term->columns - line->columns;
	room = room > term_width(term, held) + 8 ? room - term_width(term, held) : 8;
	term_line_text(line, TERM_PLAIN, room,
	               route == NULL ? "something outside all requests" : route);
	term_line_text(line, TERM_PLAIN, term->columns - line->columns, held);
}

static void
put_stalls(const struct table *w, const json_t *stalls)
{
	char where[FRAME_TEXT_MAX];
	const json_t *stall, *frame;
	struct term_line line;
	size_t i, j;

	json_array_foreach(stalls, i, stall)
	{
		const char *function = NULL, *file = NULL;
		int at = 0;

		if (i == STALLS_SHOWN_MAX)
			break;
		json_array_foreach(json_object_get(stall, "stack"), j, frame)
		{
			if (!json_is_true(json_object_get(frame, "in_app")) && function != NULL)
				continue;
			function = text_of(frame, "function");
			file = text_of(frame, "file");
			at = (int)json_integer_value(json_object_get(frame, "line"));
		}
		stall_begin(&line, w->term, stall);
		if (function != NULL) {
			snprintf(where, sizeof(where), "in %s %s:%d", function,
			         file == NULL ? "?" : file, at);
			put_behind(&line, 9, where);
		}
		term_line_end(&line);
	}
	if (json_array_size(stalls) > STALLS_SHOWN_MAX) {
		term_line_begin(&line, w->term);
		term_line_printf(&line, TERM_DIM, "  %u more stalls",
		                 (unsigned)(json_array_size(stalls) - STALLS_SHOWN_MAX));
		term_line_end(&line);
	}
}

/* What ran in worker threads, and how much of it was computing. */
static void
put_threads(const struct table *w, const json_t *threads)
{
	char run[TERM_DURATION_SIZE], cpu[TERM_DURATION_SIZE], queue[TERM_DURATION_SIZE];
	char back[TERM_DURATION_SIZE], where[FRAME_TEXT_MAX];
	const json_t *job;
	struct term_line line;
	size_t i;

	json_array_foreach(threads, i, job)
	{
		const json_t *stack = json_object_get(job, "stack");
		const json_t *frame = json_array_get(stack, json_array_size(stack) - 1);
		const char *function = text_of(frame, "function");

		if (i == THREADS_SHOWN_MAX)
			break;
		term_line_begin(&line, w->term);
		term_line_pad(&line, 2);
		term_line_printf(&line, TERM_PLAIN, "thread  %s  %u %s ran %s, %s of it CPU",
		                 function == NULL ? "others" : function,
		                 (unsigned)number_of(job, "count"),
		                 number_of(job, "count") == 1 ? "job" : "jobs",
		                 term_duration(w->term, number_of(job, "run_ns"), run),
		                 term_duration(w->term, number_of(job, "cpu_ns"), cpu));
		snprintf(where, sizeof(where), "queued %s%s%s",
		         term_duration(w->term, number_of(job, "queue_ns"), queue),
		         number_of(job, "return_ns") > 0 ? ", back in the loop after " : "",
		         number_of(job, "return_ns") > 0
		             ? term_duration(w->term, number_of(job, "return_ns"), back)
		             : "");
		put_behind(&line, 10, where);
		term_line_end(&line);
	}
}

static struct table_row
part_row(const json_t *profile, const char *key, const char *label, const char *note,
         uint64_t from_ns)
{
	return (struct table_row){
	    .indent = 2,
	    .label = label,
	    .note = note,
	    .ns = number_of(profile, key),
	    .from_ns = from_ns,
	    .bar_color = TERM_BLUE,
	    .bar = true,
	};
}

static void
put_stream(const struct table *w, const json_t *profile, uint64_t from_ns)
{
	struct table_row stream = part_row(profile, "app_stream_ns", "app_stream", "", from_ns);
	struct table_row tail =
	    part_row(profile, "app_tail_ns", "app_tail", "after the last byte", from_ns);

	if (stream.ns > 0) {
		table_row(w, &stream);
		if (stream.ns >= w->total_ns / SMALL_SHARE)
			put_breakdown(w, json_object_get(profile, "stream_breakdown"),
			              number_of(profile, "stream_unattributed_ns"), from_ns,
			              stream.ns);
	}
	tail.bar = false; /* never latency: it may lie beyond the axis */
	if (tail.ns >= w->total_ns / SMALL_SHARE && tail.ns > 0)
		table_row(w, &tail);
}

static void
put_profile(const struct table *w, const json_t *profile, uint64_t from_ns)
{
	struct table_row queue =
	    part_row(profile, "app_queue_ns", "app_queue", "sent to ASGI call", from_ns);
	struct table_row app, out;
	char note[160];
	const char *loop = text_of(profile, "loop"), *python = text_of(profile, "python");

	from_ns += queue.ns;
	app = part_row(profile, "app_ns", "app", "ASGI call to response start", from_ns);
	out = part_row(profile, "app_out_ns", "app_out", "response start to first byte read",
	               from_ns + app.ns);
	snprintf(note, sizeof(note), "%.20s, Python %.16s, pid %u", loop == NULL ? "?" : loop,
	         python == NULL ? "?" : python, (unsigned)number_of(profile, "pid"));
	table_axis(w, "app", note);
	table_row(w, &queue);
	table_row(w, &app);
	put_breakdown(w, json_object_get(profile, "breakdown"),
	              number_of(profile, "unattributed_ns"), from_ns, app.ns);
	table_row(w, &out);
	put_stream(w, profile, from_ns + app.ns);
	put_stalls(w, json_object_get(profile, "stalls"));
	put_threads(w, json_object_get(profile, "threads"));
	if (json_is_true(json_object_get(profile, "truncated"))) {
		struct term_line line;

		term_line_begin(&line, w->term);
		term_line_printf(&line, TERM_YELLOW, "  the hook reached a limit: detail is cut");
		term_line_end(&line);
	}
	waterfall_lanes(w, profile);
}

/* Why there is no part of the app. `sent`: the app had the request, or its beginning. */
static void
put_missing(const struct term *term, const json_t *exchange, bool sent)
{
	static const struct {
		const char *reason, *text;
	} reasons[] = {
	    {"no_hook", "no profile came: the app runs without the hook, or its callback is wrong"},
	    {"late", "the profile came too late"},
	    {"dropped", "the profile was dropped: a limit was reached"},
	    {"refused", "the profile was refused: it could not be true"},
	};
	const char *reason = text_of(exchange, "profile_missing");
	const char *text = "the profile has not come yet";
	struct term_line line;

	for (size_t i = 0; reason != NULL && i < sizeof(reasons) / sizeof(reasons[0]); i++) {
		if (strcmp(reason, reasons[i].reason) == 0)
			text = reasons[i].text;
	}
	if (!sent)
		text = "nothing was sent to the app";
	term_line_begin(&line, term);
	term_line_text(&line, TERM_YELLOW, term->columns, text);
	term_line_end(&line);
}

void
waterfall_print(const struct term *term, const json_t *exchange)
{
	const json_t *profile = json_object_get(exchange, "profile");
	uint64_t begin_ns, span_ns;
	struct table w;

	table_layout(&w, term, number_of(exchange, "total_ns"));
	put_title(term, exchange);
	put_where(term, exchange);
	put_end(term, exchange);
	put_tunnel(term, exchange);
	blank(term);
	table_axis(&w, "gateway", "first byte in to last byte out");
	begin_ns = put_phases(&w, json_object_get(exchange, "phases"), &span_ns);
	blank(term);
	if (json_is_object(profile))
		put_profile(&w, profile, begin_ns);
	else if (span_ns > 0 || json_is_string(json_object_get(exchange, "profile_missing")))
		put_missing(term, exchange, span_ns > 0);
}
