/* Trace events: times are microseconds with three decimals. */
#include <stdio.h>
#include <string.h>
#include "collector/export_chrome.h"

#define TRACK_GATEWAY 1 /* then the path, then the lanes */
#define TRACK_PATH 2
#define TRACK_LANES 10

struct events {
	struct text *out;
	bool any;
	unsigned arrows;
};

static void
micros(struct text *out, json_int_t ns)
{
	if (ns < 0)
		ns = 0;
	text_printf(out, "%lld.%03lld", (long long)(ns / 1000), (long long)(ns % 1000));
}

/* Begins an event, up to its track. */
static void
begin(struct events *e, const char *phase, json_int_t track, const char *name)
{
	text_printf(e->out, "%s{\"ph\":\"%s\",\"pid\":1,\"tid\":%lld,\"name\":", e->any ? "," : "",
	            phase, (long long)track);
	text_json_or_null(e->out, name != NULL ? name : "?");
	e->any = true;
}

static void
name_track(struct events *e, json_int_t track, const char *name)
{
	begin(e, "M", track, "thread_name");
	text_puts(e->out, ",\"args\":{\"name\":");
	text_json_or_null(e->out, name);
	text_puts(e->out, "}}");
	begin(e, "M", track, "thread_sort_index");
	text_printf(e->out, ",\"args\":{\"sort_index\":%lld}}", (long long)track);
}

/* A slice, up to its arguments. */
static void
slice(struct events *e, json_int_t track, const char *name, json_int_t begin_ns, json_int_t end_ns)
{
	begin(e, "X", track, name);
	text_puts(e->out, ",\"ts\":");
	micros(e->out, begin_ns);
	text_puts(e->out, ",\"dur\":");
	micros(e->out, end_ns - begin_ns);
}

static void
phases(struct events *e, const json_t *exchange)
{
	const json_t *phase;
	json_int_t at_ns = 0;
	size_t i;
	name_track(e, TRACK_GATEWAY, "gateway: phases");
	json_array_foreach(json_object_get(exchange, "phases"), i, phase)
	{
		json_int_t ns = json_integer_value(json_object_get(phase, "ns"));
		if (ns > 0) {
			slice(e, TRACK_GATEWAY, json_string_value(json_object_get(phase, "name")),
			      at_ns, at_ns + ns);
			text_puts(e->out, "}");
		}
		at_ns += ns;
	}
}

/* The innermost in-app frame's function, else the innermost's. */
static const char *
function_of(const json_t *stack)
{
	const char *name = NULL;
	bool in_app = false;
	const json_t *frame;
	size_t i;
	json_array_foreach(stack, i, frame)
	{
		bool is = json_is_true(json_object_get(frame, "in_app"));
		if (is || !in_app)
			name = json_string_value(json_object_get(frame, "function"));
		in_app |= is;
	}
	return name;
}

static void
stack_argument(struct text *out, const json_t *stack)
{
	const json_t *frame;
	size_t i;
	text_puts(out, ",\"args\":{\"stack\":[");
	json_array_foreach(stack, i, frame)
	{
		char line[1200];
		snprintf(line, sizeof(line), "%s (%s:%lld)",
		         json_string_value(json_object_get(frame, "function")),
		         json_string_value(json_object_get(frame, "file")),
		         (long long)json_integer_value(json_object_get(frame, "line")));
		text_puts(out, i > 0 ? "," : "");
		text_json_or_null(out, line);
	}
	text_puts(out, "]}}");
}

static void
segment(struct events *e, const json_t *stacks, json_int_t track, const json_t *row,
        const char *cause, size_t stack_field)
{
	char name[1200];
	const json_t *stack =
	    json_array_get(stacks, (size_t)json_integer_value(json_array_get(row, stack_field)));
	const char *function = function_of(stack);
	const char *kind = json_string_value(json_array_get(row, 2));
	snprintf(name, sizeof(name), "%s%s%s%s%s", kind != NULL ? kind : "?",
	         cause != NULL ? ": " : "", cause != NULL ? cause : "",
	         function != NULL ? " in " : "", function != NULL ? function : "");
	slice(e, track, name, json_integer_value(json_array_get(row, 0)),
	      json_integer_value(json_array_get(row, 1)));
	stack_argument(e->out, stack);
}

/* From the lane that woke to the one that was woken. */
static void
arrow(struct events *e, json_int_t from, json_int_t to, json_int_t at_ns)
{
	e->arrows++;
	begin(e, "s", TRACK_LANES + from, "wakes");
	text_printf(e->out, ",\"cat\":\"wakes\",\"id\":%u,\"ts\":", e->arrows);
	micros(e->out, at_ns);
	text_puts(e->out, "}");
	begin(e, "f", TRACK_LANES + to, "wakes");
	text_printf(e->out, ",\"cat\":\"wakes\",\"bp\":\"e\",\"id\":%u,\"ts\":", e->arrows);
	micros(e->out, at_ns);
	text_puts(e->out, "}");
}

static void
lane(struct events *e, const json_t *stacks, const json_t *object)
{
	json_int_t id = json_integer_value(json_object_get(object, "id"));
	const char *kind = json_string_value(json_object_get(object, "kind"));
	const char *function = json_string_value(json_object_get(object, "name"));
	const json_t *row;
	char name[600];
	size_t i;
	snprintf(name, sizeof(name), "%s %lld%s%s", kind != NULL ? kind : "lane", (long long)id,
	         function != NULL ? ": " : "", function != NULL ? function : "");
	name_track(e, TRACK_LANES + id, name);
	json_array_foreach(json_object_get(object, "timeline"), i, row)
	{
		const json_t *waker = json_array_get(row, 4);
		segment(e, stacks, TRACK_LANES + id, row, NULL, 3);
		if (json_is_integer(waker))
			arrow(e, json_integer_value(waker), id,
			      json_integer_value(json_array_get(row, 1)));
	}
}

void
export_chrome(const json_t *exchange, struct text *out)
{
	struct events e = {.out = out};
	const json_t *profile = json_object_get(exchange, "profile");
	const json_t *stacks = json_object_get(profile, "stacks");
	const json_t *row, *object;
	size_t i;
	text_puts(out, "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"trace_id\":");
	text_json_or_null(out, json_string_value(json_object_get(exchange, "trace_id")));
	text_puts(out, ",\"route\":");
	text_json_or_null(out, json_string_value(json_object_get(exchange, "route")));
	text_puts(out, "},\"traceEvents\":[");
	phases(&e, exchange);
	if (json_array_size(json_object_get(profile, "path")) > 0)
		name_track(&e, TRACK_PATH, "app: path that decided");
	json_array_foreach(json_object_get(profile, "path"), i, row)
	    segment(&e, stacks, TRACK_PATH, row, json_string_value(json_array_get(row, 3)), 4);
	json_array_foreach(json_object_get(profile, "lanes"), i, object) lane(&e, stacks, object);
	text_puts(out, "]}");
}
