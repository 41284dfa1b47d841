/* JSON, speedscope and collapsed stacks; Chrome's format has a file of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "collector/export.h"
#include "collector/export_chrome.h"

#define NAME_BYTES 640
#define DEEP_DEPTH_MAX 256 /* of a call tree's stacks; frames further in count for the outer one */

enum export_format
export_format(const char *name)
{
	static const char *const names[EXPORT_FORMATS] = {"json", "speedscope", "collapsed",
	                                                  "chrome"};
	if (name == NULL)
		return EXPORT_JSON;
	for (unsigned i = 0; i < EXPORT_FORMATS; i++)
		if (strcmp(name, names[i]) == 0)
			return (enum export_format)i;
	return EXPORT_FORMATS;
}

const char *
export_type(enum export_format format)
{
	return format == EXPORT_COLLAPSED ? "text/plain; charset=utf-8" : "application/json";
}

static const char *
text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* What a segment was, as a frame below its stack: "[wait: sleep]". */
static void
leaf_name(char *buf, size_t size, const char *kind, const char *cause)
{
	snprintf(buf, size, cause != NULL ? "[%s: %s]" : "[%s]", kind != NULL ? kind : "?", cause);
}

/* --- collapsed ------------------------------------------------------------------------------ */

/* Semicolons part frames, and a line ends where it ends. */
static void
collapsed_name(struct text *out, const char *name)
{
	for (; name != NULL && *name != '\0'; name++) {
		char c = *name == ';' ? ':' : (unsigned char)*name < 0x20 ? ' ' : *name;
		text_add(out, &c, 1);
	}
}

static void
collapsed_rows(struct text *out, const char *root, const char *part, const json_t *rows)
{
	const json_t *row, *frame;
	char leaf[NAME_BYTES];
	size_t i, k;
	json_array_foreach(rows, i, row)
	{
		collapsed_name(out, root);
		text_printf(out, ";%s", part);
		json_array_foreach(json_object_get(row, "stack"), k, frame)
		{
			text_puts(out, ";");
			collapsed_name(out, text_of(frame, "module"));
			text_puts(out, ":");
			collapsed_name(out, text_of(frame, "function"));
		}
		leaf_name(leaf, sizeof(leaf), text_of(row, "kind"), text_of(row, "cause"));
		text_printf(out, ";%s ", leaf);
		text_u64(out, (uint64_t)json_integer_value(json_object_get(row, "ns")));
		text_puts(out, "\n");
	}
}

static void
collapsed(const json_t *exchange, struct text *out)
{
	static const char *const parts[][3] = {
	    {"app", "breakdown", "unattributed_ns"},
	    {"app_stream", "stream_breakdown", "stream_unattributed_ns"}};
	const json_t *profile = json_object_get(exchange, "profile");
	const char *root = text_of(exchange, "route");
	for (size_t i = 0; i < 2; i++) {
		json_int_t rest_ns = json_integer_value(json_object_get(profile, parts[i][2]));
		collapsed_rows(out, root, parts[i][0], json_object_get(profile, parts[i][1]));
		if (rest_ns > 0) {
			collapsed_name(out, root);
			text_printf(out, ";%s;[unattributed] %lld\n", parts[i][0],
			            (long long)rest_ns);
		}
	}
}

/* --- speedscope ----------------------------------------------------------------------------- */

struct scope {
	struct text *out; /* the profiles */
	struct text frames;
	json_t *known; /* frame's key → its number */
	struct text weights;
	bool any_profile, any_sample;
};

/* The number of a frame, which is listed where it is new. */
static json_int_t
frame_number(struct scope *s, const char *function, const char *file, json_int_t line)
{
	char key[NAME_BYTES * 3];
	snprintf(key, sizeof(key), "%s\n%s\n%lld", function, file, (long long)line);
	const json_t *known = json_object_get(s->known, key);
	if (known != NULL)
		return json_integer_value(known);
	json_int_t number = (json_int_t)json_object_size(s->known);
	json_object_set_new(s->known, key, json_integer(number));
	text_puts(&s->frames, number > 0 ? ",{\"name\":" : "{\"name\":");
	text_json_or_null(&s->frames, function);
	if (file[0] != '\0') {
		text_puts(&s->frames, ",\"file\":");
		text_json_or_null(&s->frames, file);
		text_printf(&s->frames, ",\"line\":%lld", (long long)line);
	}
	text_puts(&s->frames, "}");
	return number;
}

static json_int_t
frame_of(struct scope *s, const json_t *frame)
{
	const char *function = text_of(frame, "function"), *file = text_of(frame, "file");
	return frame_number(s, function != NULL ? function : "?", file != NULL ? file : "",
	                    json_integer_value(json_object_get(frame, "line")));
}

static void
profile_begin(struct scope *s, const char *name, json_int_t total_ns)
{
	text_puts(s->out, s->any_profile ? ",{" : "{");
	text_puts(s->out, "\"type\":\"sampled\",\"unit\":\"nanoseconds\",\"startValue\":0,");
	text_printf(s->out, "\"endValue\":%lld,\"name\":", (long long)total_ns);
	text_json_or_null(s->out, name);
	text_puts(s->out, ",\"samples\":[");
	text_reset(&s->weights);
	s->any_profile = true;
	s->any_sample = false;
}

static void
sample_begin(struct scope *s, json_int_t ns)
{
	text_puts(s->out, s->any_sample ? ",[" : "[");
	text_printf(&s->weights, "%s%lld", s->any_sample ? "," : "", (long long)ns);
	s->any_sample = true;
}

static void
profile_end(struct scope *s)
{
	text_puts(s->out, "],\"weights\":[");
	if (s->any_sample)
		text_add(s->out, s->weights.data, s->weights.length);
	text_puts(s->out, "]}");
}

/* One sample: the stack, and below it what it was. */
static void
sample(struct scope *s, const json_t *stack, const char *kind, const char *cause, json_int_t ns)
{
	const json_t *frame;
	char leaf[NAME_BYTES];
	size_t i;
	if (ns <= 0)
		return;
	sample_begin(s, ns);
	json_array_foreach(stack, i, frame)
	    text_printf(s->out, "%lld,", (long long)frame_of(s, frame));
	leaf_name(leaf, sizeof(leaf), kind, cause);
	text_printf(s->out, "%lld]", (long long)frame_number(s, leaf, "", 0));
}

/* The path in order where its detail is there, else its rows, largest first as they came. */
static void
scope_path(struct scope *s, const json_t *profile)
{
	const json_t *path = json_object_get(profile, "path"), *row;
	const json_t *stacks = json_object_get(profile, "stacks");
	json_int_t total_ns = 0;
	size_t i;
	if (json_array_size(path) > 0) {
		json_array_foreach(path, i, row) total_ns +=
		    json_integer_value(json_array_get(row, 1)) -
		    json_integer_value(json_array_get(row, 0));
		profile_begin(s, "path that decided", total_ns);
		json_array_foreach(path, i, row) sample(
		    s, json_array_get(stacks, (size_t)json_integer_value(json_array_get(row, 4))),
		    json_string_value(json_array_get(row, 2)),
		    json_string_value(json_array_get(row, 3)),
		    json_integer_value(json_array_get(row, 1)) -
		        json_integer_value(json_array_get(row, 0)));
	} else {
		json_array_foreach(json_object_get(profile, "breakdown"), i, row) total_ns +=
		    json_integer_value(json_object_get(row, "ns"));
		profile_begin(s, "path that decided (not in order: no detail)", total_ns);
		json_array_foreach(json_object_get(profile, "breakdown"), i, row)
		    sample(s, json_object_get(row, "stack"), text_of(row, "kind"),
		           text_of(row, "cause"), json_integer_value(json_object_get(row, "ns")));
	}
	profile_end(s);
}

static void
lane_title(char *buf, size_t size, const json_t *lane, const char *what)
{
	const char *kind = text_of(lane, "kind"), *name = text_of(lane, "name");
	snprintf(buf, size, "%s %lld%s%s%s", kind != NULL ? kind : "lane",
	         (long long)json_integer_value(json_object_get(lane, "id")),
	         name != NULL ? ": " : "", name != NULL ? name : "", what);
}

static void
scope_lane(struct scope *s, const json_t *lane, const json_t *stacks)
{
	static const char *const parts[] = {"run_ns", "ready_ns", "wait_ns"};
	char title[NAME_BYTES];
	json_int_t life_ns = 0;
	const json_t *row;
	size_t i;
	for (i = 0; i < 3; i++)
		life_ns += json_integer_value(json_object_get(lane, parts[i]));
	lane_title(title, sizeof(title), lane, "");
	profile_begin(s, title, life_ns);
	json_array_foreach(json_object_get(lane, "timeline"), i, row)
	    sample(s, json_array_get(stacks, (size_t)json_integer_value(json_array_get(row, 3))),
	           json_string_value(json_array_get(row, 2)), NULL,
	           json_integer_value(json_array_get(row, 1)) -
	               json_integer_value(json_array_get(row, 0)));
	profile_end(s);
}

/* --- speedscope: call trees ----------------------------------------------------------------- */

static json_int_t
node_field(const json_t *nodes, size_t node, size_t field)
{
	return json_integer_value(json_array_get(json_array_get(nodes, node), field));
}

/* A node's own time, below the functions that led to it. */
static void
node_sample(struct scope *s, const json_t *deep, size_t node, size_t time_field, const char *leaf)
{
	const json_t *nodes = json_object_get(deep, "nodes");
	const json_t *functions = json_object_get(deep, "functions");
	json_int_t chain[DEEP_DEPTH_MAX], ns = node_field(nodes, node, time_field);
	size_t depth = 0;
	if (ns <= 0)
		return;
	for (json_int_t at = (json_int_t)node; node_field(nodes, (size_t)at, 0) >= 0;
	     at = node_field(nodes, (size_t)at, 0)) {
		json_int_t function = node_field(nodes, (size_t)at, 1);
		if (depth < DEEP_DEPTH_MAX)
			chain[depth++] =
			    function >= 0 ? frame_of(s, json_array_get(functions, (size_t)function))
			                  : frame_number(s, "?", "", 0);
	}
	sample_begin(s, ns);
	while (depth-- > 0)
		text_printf(s->out, "%lld,", (long long)chain[depth]);
	text_printf(s->out, "%lld]", (long long)frame_number(s, leaf, "", 0));
}

static void
scope_tree(struct scope *s, const json_t *profile, const json_t *tree)
{
	const json_t *deep = json_object_get(profile, "deep");
	const json_t *nodes = json_object_get(deep, "nodes");
	json_int_t root = json_integer_value(json_object_get(tree, "root")), total_ns = 0;
	json_int_t number = json_integer_value(json_object_get(tree, "lane"));
	const json_t *lane = json_array_get(json_object_get(profile, "lanes"), (size_t)number - 1);
	char title[NAME_BYTES];
	size_t count = json_array_size(nodes), i;
	char *ours = calloc(count + 1, 1);
	if (ours == NULL)
		return;
	for (i = 0; i < count; i++) { /* parents come before their children */
		json_int_t parent = node_field(nodes, i, 0);
		ours[i] = parent >= 0 ? ours[parent] : (json_int_t)i == root;
		if (ours[i])
			total_ns += node_field(nodes, i, 3) + node_field(nodes, i, 4);
	}
	lane_title(title, sizeof(title), lane, " (all calls)");
	profile_begin(s, title, total_ns);
	for (i = 0; i < count; i++) {
		if (!ours[i])
			continue;
		node_sample(s, deep, i, 3, "[self]");
		node_sample(s, deep, i, 4, "[await]");
	}
	profile_end(s);
	free(ours);
}

static void
speedscope(const json_t *exchange, struct text *out)
{
	const json_t *profile = json_object_get(exchange, "profile"), *item;
	const json_t *stacks = json_object_get(profile, "stacks");
	const json_t *deep = json_object_get(profile, "deep");
	struct text profiles = {0};
	struct scope s = {.out = &profiles, .known = json_object()};
	size_t i;
	scope_path(&s, profile);
	json_array_foreach(json_object_get(profile, "lanes"), i, item) scope_lane(&s, item, stacks);
	json_array_foreach(json_object_get(deep, "lanes"), i, item) scope_tree(&s, profile, item);
	text_puts(out, "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\","
	               "\"exporter\":\"tailrace " TAILRACE_VERSION "\",\"name\":");
	text_json_or_null(out, text_of(exchange, "route"));
	text_puts(out, ",\"activeProfileIndex\":0,\"shared\":{\"frames\":[");
	text_add(out, s.frames.data != NULL ? s.frames.data : "", s.frames.length);
	text_puts(out, "]},\"profiles\":[");
	text_add(out, profiles.data, profiles.length);
	text_puts(out, "]}");
	out->failed |= s.frames.failed || profiles.failed || s.weights.failed;
	text_free(&s.frames);
	text_free(&s.weights);
	text_free(&profiles);
	json_decref(s.known);
}

/* --- all ------------------------------------------------------------------------------------ */

static void
whole(const json_t *exchange, struct text *out)
{
	char *text = json_dumps(exchange, JSON_COMPACT);
	if (text == NULL)
		out->failed = true;
	else
		text_puts(out, text);
	free(text);
}

const char *
export_profile(const json_t *exchange, enum export_format format, struct text *out)
{
	if (!json_is_object(json_object_get(exchange, "profile")))
		return "this exchange has no profile";
	switch (format) {
	case EXPORT_SPEEDSCOPE:
		speedscope(exchange, out);
		break;
	case EXPORT_COLLAPSED:
		collapsed(exchange, out);
		break;
	case EXPORT_CHROME:
		export_chrome(exchange, out);
		break;
	case EXPORT_JSON:
	case EXPORT_FORMATS:
		whole(exchange, out);
		break;
	}
	return NULL;
}
