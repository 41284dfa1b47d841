/* Detail as the API shows it. */
#include <stdlib.h>
#include <string.h>
#include "model/detail.h"

/* Behind a JSON string that begins at `p`, as text_json() writes it. */
static const char *
skip_string(const char *p)
{
	for (p++; *p != '"' && *p != '\0'; p++)
		if (*p == '\\' && p[1] != '\0')
			p++;
	return *p == '"' ? p + 1 : p;
}

static size_t
index_of(const struct detail *d, int64_t id)
{
	size_t low = 0, high = d->stack_count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (d->stack_ids[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void
stack_number(struct text *out, const struct detail *d, int64_t id)
{
	if (id < 0)
		text_puts(out, "-1");
	else
		text_u64(out, index_of(d, id));
}

static void
member(struct text *out, const char *key, uint64_t value)
{
	text_printf(out, ",\"%s\":", key);
	text_u64(out, value);
}

/* The qualified name of a lane's function: what follows "module" in its frame. */
static void
lane_name(struct text *out, const struct detail *d, int64_t id)
{
	static const char before[] = "{\"module\":", between[] = ",\"function\":";
	const struct stack *stack = id >= 0 ? d->stacks[index_of(d, id)] : NULL;
	const char *frame = stack != NULL ? stack->text : "";
	if (strncmp(frame, before, sizeof(before) - 1) != 0) {
		text_puts(out, "null");
		return;
	}
	const char *name = skip_string(frame + sizeof(before) - 1);
	if (strncmp(name, between, sizeof(between) - 1) != 0) {
		text_puts(out, "null");
		return;
	}
	name += sizeof(between) - 1;
	text_add(out, name, (size_t)(skip_string(name) - name));
}

static void
timeline(struct text *out, const struct detail *d, const struct detail_lane *lane)
{
	uint64_t at_ns = lane->created_ns;
	text_puts(out, ",\"timeline\":[");
	for (size_t i = 0; i < lane->count; i++) {
		const struct detail_segment *segment = &d->segments[lane->first + i];
		text_puts(out, i > 0 ? ",[" : "[");
		text_u64(out, at_ns);
		text_puts(out, ",");
		text_u64(out, at_ns += segment->ns);
		text_printf(out, ",\"%s\",", profile_kind_name(segment->kind));
		stack_number(out, d, segment->stack);
		text_puts(out, ",");
		if (segment->waker > 0)
			text_u64(out, segment->waker);
		else
			text_puts(out, "null");
		text_puts(out, "]");
	}
	text_puts(out, "]}");
}

static void
lanes(struct text *out, const struct detail *d)
{
	for (size_t i = 0; i < d->lane_count; i++) {
		const struct detail_lane *lane = &d->lanes[i];
		text_puts(out, i > 0 ? ",{\"id\":" : "{\"id\":");
		text_u64(out, i + 1);
		text_puts(out, ",\"parent\":");
		if (lane->parent > 0)
			text_u64(out, lane->parent);
		else
			text_puts(out, "null");
		text_printf(out, ",\"kind\":\"%s\",\"name\":", detail_lane_kind_name(lane->kind));
		lane_name(out, d, lane->name);
		member(out, "created_ns", lane->created_ns);
		if (lane->ended)
			member(out, "ended_ns", lane->ended_ns);
		else
			text_puts(out, ",\"ended_ns\":null");
		member(out, "run_ns", lane->run_ns);
		member(out, "ready_ns", lane->ready_ns);
		member(out, "wait_ns", lane->wait_ns);
		timeline(out, d, lane);
	}
}

static void
path(struct text *out, const struct detail *d)
{
	uint64_t at_ns = 0;
	for (size_t i = 0; i < d->step_count; i++) {
		const struct detail_step *step = &d->steps[i];
		text_puts(out, i > 0 ? ",[" : "[");
		text_u64(out, at_ns);
		text_puts(out, ",");
		text_u64(out, at_ns += step->ns);
		text_printf(out, ",\"%s\",", profile_kind_name(step->kind));
		text_json_or_null(out, profile_cause_name(step->cause));
		text_puts(out, ",");
		stack_number(out, d, step->stack);
		text_puts(out, step->exact ? ",true]" : ",false]");
	}
}

/* Functions: those of Python by the stacks' order, then the built-in ones. */
static void
functions(struct text *out, const struct detail *d)
{
	for (size_t i = 0; i < d->stack_count; i++) {
		const struct stack *stack = d->stacks[i];
		text_puts(out, i > 0 ? "," : "");
		if (stack != NULL && stack->length > 0)
			text_add(out, stack->text, stack->length);
		else
			text_puts(out, "null");
	}
	for (size_t i = 0; i < d->builtin_count; i++) {
		const char *name = d->builtins[i], *dot = strrchr(name, '.');
		size_t before = dot != NULL ? (size_t)(dot - name) : 0;
		text_puts(out, i + d->stack_count > 0 ? ",{\"module\":" : "{\"module\":");
		text_json(out, name, before);
		text_puts(out, ",\"function\":");
		text_json_or_null(out, dot != NULL ? dot + 1 : name);
		text_puts(out, ",\"file\":\"\",\"line\":0,\"in_app\":false}");
	}
}

static void
deep(struct text *out, const struct detail *d)
{
	text_printf(out, "{\"state\":\"%s\",\"truncated\":%s,\"functions\":[",
	            detail_deep_state_name(d->deep_state), d->deep_truncated ? "true" : "false");
	functions(out, d);
	text_puts(out, "],\"lanes\":[");
	const char *comma = "";
	for (size_t i = 0; i < d->node_count; i++) {
		if (d->nodes[i].parent >= 0)
			continue;
		text_printf(out, "%s{\"lane\":%lld,\"root\":%zu}", comma,
		            (long long)d->nodes[i].function, i);
		comma = ",";
	}
	text_puts(out, "],\"nodes\":[");
	for (size_t i = 0; i < d->node_count; i++) {
		const struct detail_node *node = &d->nodes[i];
		int64_t function = -1;
		if (node->parent >= 0 && node->function >= 0)
			function = (int64_t)index_of(d, node->function);
		else if (node->parent >= 0 && node->function <= -2)
			function = (int64_t)d->stack_count - 2 - node->function;
		text_printf(out, "%s[%lld,%lld,", i > 0 ? "," : "", (long long)node->parent,
		            (long long)function);
		text_u64(out, node->calls);
		text_puts(out, ",");
		text_u64(out, node->self_ns);
		text_puts(out, ",");
		text_u64(out, node->await_ns);
		text_puts(out, ",");
		text_u64(out, node->cpu_ns);
		text_puts(out, "]");
	}
	text_puts(out, "]}");
}

void
detail_render(struct text *out, const struct detail *d)
{
	text_printf(out, "{\"detail_truncated\":%s,\"stacks\":[", d->truncated ? "true" : "false");
	for (size_t i = 0; i < d->stack_count; i++) {
		text_puts(out, i > 0 ? "," : "");
		stack_write(d->stacks[i], out);
	}
	text_puts(out, "],\"lanes\":[");
	lanes(out, d);
	text_puts(out, "],\"path\":[");
	path(out, d);
	text_puts(out, "],\"deep\":");
	if (d->has_deep)
		deep(out, d);
	else
		text_puts(out, "null");
	text_puts(out, "}");
}
