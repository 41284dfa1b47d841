/* Batches of profiles: JSON to structs, row by row; the first error is named by its pointer. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/json_arena.h"
#include "model/json_place.h"
#include "model/json_read.h"
#include "model/flame.h"
#include "model/profile_batch.h"
#include "model/profile_stalls.h"
#include "model/profile_threads.h"
#include "model/text.h"
#include "model/trace_context.h"

#define KEY_LENGTH (2 * TRACE_ID_SIZE + 1 + 2 * SPAN_ID_SIZE)
#define PROFILE_FIELDS 17
#define ROW_FIELDS 9
#define FRAME_FIELDS 5

struct reader {
	struct read_error *error;
	struct profile_batch *batch;
};

static bool
all_zero(const uint8_t *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

bool
profile_key_read(struct read_error *error, const struct place *at, struct profile_key *ret)
{
	if (!read_string(error, at, KEY_LENGTH))
		return false;
	const char *text = json_string_value(at->value);
	if (json_string_length(at->value) != KEY_LENGTH || text[2 * TRACE_ID_SIZE] != '-' ||
	    hex_parse(text, ret->trace_id, TRACE_ID_SIZE) != 0 ||
	    hex_parse(text + 2 * TRACE_ID_SIZE + 1, ret->span_id, SPAN_ID_SIZE) != 0)
		return read_fail(error, at, "not <32 hex digits>-<16 hex digits>");
	if (all_zero(ret->trace_id, TRACE_ID_SIZE) || all_zero(ret->span_id, SPAN_ID_SIZE))
		return read_fail(error, at, "an ID of zeros");
	return true;
}

static bool
read_key(struct reader *r, const struct place *up, size_t index, struct profile_key *ret)
{
	struct place at = place_element(up, index);
	return profile_key_read(r->error, &at, ret);
}

bool
profile_trace_read(struct read_error *error, const struct place *row, size_t index, bool *ret_has,
                   uint8_t ret[TRACE_ID_SIZE])
{
	struct place at = place_element(row, index);
	*ret_has = !json_is_null(at.value);
	if (!*ret_has)
		return true;
	if (!read_string(error, &at, 2 * TRACE_ID_SIZE))
		return false;
	if (json_string_length(at.value) != 2 * TRACE_ID_SIZE ||
	    hex_parse(json_string_value(at.value), ret, TRACE_ID_SIZE) != 0)
		return read_fail(error, &at, "not 32 hex digits");
	return true;
}

bool
profile_stack_id_read(struct read_error *error, const struct place *row, size_t index, int64_t *ret)
{
	struct place at = place_element(row, index);
	if (!json_is_integer(at.value) || json_integer_value(at.value) < -1)
		return read_fail(error, &at, "not a stack ID or -1");
	*ret = json_integer_value(at.value);
	return true;
}

/* They come in the order of the profiles. */
struct profile *
profile_batch_find(const struct profile_batch *batch, const struct profile_key *key, uint64_t part,
                   size_t *at)
{
	for (size_t i = 0; i < batch->profile_count; i++) {
		size_t index = (*at + i) % batch->profile_count;
		struct profile *p = batch->profiles[index];
		if (p->parts != part + 1 || memcmp(&p->key, key, sizeof(*key)) != 0)
			continue;
		*at = index;
		return p;
	}
	return NULL;
}

/* --- process ---------------------------------------------------------------- */

static bool
read_text_member(struct reader *r, const struct place *up, const char *key, char **ret)
{
	struct place at = place_member(up, key);
	if (!read_string(r->error, &at, PROFILE_STRING_MAX))
		return false;
	*ret = xstrdup(json_string_value(at.value));
	return true;
}

/* The app's version: may be missing, and is no empty text. */
static bool
read_version(struct reader *r, const struct place *up, char **ret)
{
	struct place at = place_member(up, "version");
	if (at.value == NULL || json_is_null(at.value))
		return true;
	if (!read_string(r->error, &at, PROFILE_VERSION_MAX))
		return false;
	if (json_string_length(at.value) == 0)
		return read_fail(r->error, &at, "empty");
	*ret = xstrdup(json_string_value(at.value));
	return true;
}

static bool
read_number_member(struct reader *r, const struct place *up, const char *key, uint64_t max,
                   bool optional, uint64_t *ret)
{
	struct place at = place_member(up, key);
	if (optional && (at.value == NULL || json_is_null(at.value)))
		return true;
	return read_number(r->error, &at, max, ret);
}

static bool
read_instance(struct reader *r, const struct place *up, uint8_t ret[PROFILE_INSTANCE_SIZE])
{
	struct place at = place_member(up, "instance");
	if (!read_string(r->error, &at, PROFILE_STRING_MAX))
		return false;
	if (json_string_length(at.value) != 2 * PROFILE_INSTANCE_SIZE ||
	    hex_parse(json_string_value(at.value), ret, PROFILE_INSTANCE_SIZE) != 0)
		return read_fail(r->error, &at, "not 32 hex digits");
	return true;
}

static bool
read_boot_id(struct reader *r, const struct place *up, char ret[CLOCK_BOOT_ID_SIZE])
{
	struct place at = place_member(up, "boot_id");
	if (at.value == NULL || json_is_null(at.value))
		return true;
	if (!read_string(r->error, &at, CLOCK_BOOT_ID_SIZE - 1))
		return false;
	snprintf(ret, CLOCK_BOOT_ID_SIZE, "%s", json_string_value(at.value));
	return true;
}

static bool
read_process(struct reader *r, const struct place *top)
{
	static const char *const engines[] = {"steps", "drive", "totals"};
	struct profile_process *p = r->batch->process;
	struct place at = place_member(top, "process");
	uint64_t pid = 0;
	if (!json_is_object(at.value))
		return read_fail(r->error, &at, "not an object");
	if (!read_instance(r, &at, p->instance) ||
	    !read_number_member(r, &at, "pid", INT32_MAX, false, &pid) ||
	    !read_text_member(r, &at, "python", &p->python) ||
	    !read_text_member(r, &at, "loop", &p->loop) ||
	    !read_text_member(r, &at, "engine", &p->engine) ||
	    !read_text_member(r, &at, "hook_version", &p->hook_version) ||
	    !read_version(r, &at, &p->version) || !read_boot_id(r, &at, p->boot_id) ||
	    !read_number_member(r, &at, "time_namespace", INT64_MAX, true, &p->time_namespace) ||
	    !read_number_member(r, &at, "dropped", INT64_MAX, false, &p->dropped))
		return false;
	p->pid = (uint32_t)pid;
	for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++)
		if (strcmp(engines[i], p->engine) == 0)
			return true;
	struct place engine = place_member(&at, "engine");
	return read_fail(r->error, &engine, "not a word of this field");
}

/* --- stacks ------------------------------------------------------------------ */

/* *stack becomes the one that has this frame more. */
static bool
read_frame(struct reader *r, const struct place *at, struct text *out, struct stack **stack)
{
	static const char *const keys[] = {"module", "function", "file"};
	uint64_t line, key = *stack != NULL ? (*stack)->key : 0;
	bool in_app;
	if (!read_row(r->error, at, FRAME_FIELDS))
		return false;
	text_reset(out);
	for (size_t i = 0; i < 3; i++) {
		struct place field = place_element(at, i);
		if (!read_string(r->error, &field, i == 2 ? PROFILE_FILE_MAX : PROFILE_STRING_MAX))
			return false;
		text_printf(out, "%s\"%s\":", i == 0 ? "{" : ",", keys[i]);
		text_json(out, json_string_value(field.value), json_string_length(field.value));
	}
	if (!read_u64(r->error, at, 3, INT32_MAX, &line) || !read_flag(r->error, at, 4, &in_app))
		return false;
	text_printf(out, ",\"line\":%llu,\"in_app\":%s}", (unsigned long long)line,
	            in_app ? "true" : "false");
	key = flame_key(key, json_string_value(json_array_get(at->value, 0)),
	                json_string_value(json_array_get(at->value, 1)));
	struct stack *longer = out->failed ? NULL : stack_new(*stack, out->data, out->length, key);
	if (longer == NULL)
		return read_fail(r->error, at, "no memory");
	stack_unref(*stack);
	*stack = longer;
	return true;
}

static bool
read_stack(struct reader *r, const struct place *at, struct text *out)
{
	struct profile_batch_stack *stack = &r->batch->stacks[r->batch->stack_count];
	uint64_t id;
	size_t frames;
	if (!read_row(r->error, at, 2) || !read_u64(r->error, at, 0, INT64_MAX, &id))
		return false;
	struct place list = place_element(at, 1);
	if (!read_array(r->error, &list, PROFILE_FRAMES_MAX, &frames))
		return false;
	stack->id = (int64_t)id;
	r->batch->stack_count++; /* from here on the batch owns it */
	for (size_t i = 0; i < frames; i++) {
		struct place frame = place_element(&list, i);
		if (!read_frame(r, &frame, out, &stack->stack))
			return false;
	}
	if (frames == 0)
		stack->stack = stack_new(NULL, "", 0, 0);
	return stack->stack != NULL || read_fail(r->error, at, "no memory");
}

static bool
read_stacks(struct reader *r, const struct place *top)
{
	struct place at = place_member(top, "stacks");
	struct text text = {0};
	size_t count;
	bool good = true;
	if (at.value == NULL)
		return true;
	if (!read_array(r->error, &at, PROFILE_BATCH_MAX, &count))
		return false;
	r->batch->stacks = xcalloc(count + 1, sizeof(*r->batch->stacks));
	for (size_t i = 0; i < count && good; i++) {
		struct place row = place_element(&at, i);
		good = read_stack(r, &row, &text);
	}
	text_free(&text);
	return good;
}

/* --- profiles ---------------------------------------------------------------- */

static bool
read_cause(struct reader *r, const struct place *up, struct profile_row *row)
{
	static const bool has_cause[] = {
#define PROFILE_KIND(ID, name, has) has,
#include "model/profile_words.def"
#undef PROFILE_KIND
	};
	struct place at = place_element(up, 1);
	row->cause = PROFILE_CAUSE_COUNT;
	if (has_cause[row->kind])
		return read_word(r->error, &at, profile_cause_name, PROFILE_CAUSE_COUNT,
		                 &row->cause);
	return json_is_null(at.value) || read_fail(r->error, &at, "not null, which this kind has");
}

static bool
read_breakdown_row(struct reader *r, const struct place *at, struct profile_row *row)
{
	if (!read_row(r->error, at, ROW_FIELDS))
		return false;
	struct place kind = place_element(at, 0);
	return read_word(r->error, &kind, profile_kind_name, PROFILE_KIND_COUNT, &row->kind) &&
	       read_cause(r, at, row) && profile_stack_id_read(r->error, at, 2, &row->stack_id) &&
	       read_u64(r->error, at, 3, INT64_MAX, &row->ns) &&
	       read_u64(r->error, at, 4, INT64_MAX, &row->count) &&
	       read_flag(r->error, at, 5, &row->exact) &&
	       read_u64(r->error, at, 6, INT64_MAX, &row->samples) &&
	       profile_trace_read(r->error, at, 7, &row->has_by_trace, row->by_trace) &&
	       read_optional_string(r->error, at, 8, PROFILE_STRING_MAX, &row->by_route);
}

static bool
read_breakdown(struct reader *r, const struct place *up, size_t index, size_t *rows_left,
               struct profile_rows *ret)
{
	struct place at = place_element(up, index);
	size_t count;
	if (!read_array(r->error, &at, *rows_left, &count))
		return false;
	*rows_left -= count;
	ret->rows = xcalloc(count + 1, sizeof(*ret->rows));
	ret->count = count;
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(&at, i);
		if (!read_breakdown_row(r, &row, &ret->rows[i]))
			return false;
	}
	return true;
}

static bool
read_profile(struct reader *r, const struct place *at, struct profile *p)
{
	size_t rows_left = PROFILE_ROWS_MAX;
	uint64_t part = 0;
	if (!read_row(r->error, at, PROFILE_FIELDS))
		return false;
	struct place ended = place_element(at, 9);
	bool good =
	    read_key(r, at, 0, &p->key) && read_u64(r->error, at, 1, INT32_MAX - 1, &part) &&
	    read_flag(r->error, at, 2, &p->final) &&
	    read_optional_string(r->error, at, 3, PROFILE_STRING_MAX, &p->route) &&
	    read_optional_u64(r->error, at, 4, &p->has_task_queue, &p->task_queue_ns) &&
	    read_u64(r->error, at, 5, INT64_MAX, &p->enter_ns) &&
	    read_optional_u64(r->error, at, 6, &p->has_start, &p->start_ns) &&
	    read_u64(r->error, at, 7, INT64_MAX, &p->end_ns) &&
	    read_optional_u64(r->error, at, 8, &p->has_tail, &p->tail_ns) &&
	    read_word(r->error, &ended, profile_ended_name, PROFILE_ENDED_COUNT, &p->ended) &&
	    read_flag(r->error, at, 10, &p->truncated) &&
	    read_breakdown(r, at, 11, &rows_left, &p->breakdown) &&
	    read_u64(r->error, at, 12, INT64_MAX, &p->unattributed_ns) &&
	    read_breakdown(r, at, 13, &rows_left, &p->stream) &&
	    read_u64(r->error, at, 14, INT64_MAX, &p->stream_unattributed_ns) &&
	    profile_stalls_read(r->error, at, rows_left, p) &&
	    read_optional_u64(r->error, at, 16, &p->has_cpu, &p->cpu_ns);
	p->parts = (uint32_t)part + 1;
	return good;
}

/* Whether the profile can be true on its own: order of times, sums, and what `part` and `final`
 * say. */
static bool
profile_possible(const struct profile *p)
{
	uint64_t app_end_ns = p->has_start ? p->start_ns : p->end_ns;
	if (app_end_ns < p->enter_ns || p->end_ns < app_end_ns ||
	    p->end_ns - p->enter_ns > PROFILE_LIFE_MAX_NS)
		return false;
	if (p->final == (p->ended == PROFILE_ENDED_OPEN))
		return false;
	if (p->parts > 1) /* its stream rows are checked against the part before */
		return p->breakdown.count == 0 && p->unattributed_ns == 0;
	return profile_rows_sum(&p->breakdown, p->unattributed_ns) == app_end_ns - p->enter_ns &&
	       profile_rows_sum(&p->stream, p->stream_unattributed_ns) == p->end_ns - app_end_ns;
}

static size_t
profile_bytes(const struct profile *p)
{
	return sizeof(*p) +
	       (p->breakdown.count + p->stream.count) * (sizeof(struct profile_row) + 16) +
	       p->stall_count * (sizeof(struct profile_stall) + 16) + PROFILE_STRING_MAX;
}

static bool
read_profiles(struct reader *r, const struct place *top)
{
	struct place at = place_member(top, "profiles");
	struct profile_batch *batch = r->batch;
	size_t count;
	if (!read_array(r->error, &at, PROFILE_BATCH_MAX, &count))
		return false;
	batch->profiles = xcalloc(count + 1, sizeof(*batch->profiles));
	batch->refused = xcalloc(count + 1, sizeof(*batch->refused));
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(&at, i);
		struct profile *p = xcalloc(1, sizeof(*p));
		p->process = batch->process;
		p->process->references++;
		batch->profiles[batch->profile_count++] = p;
		if (!read_profile(r, &row, p))
			return false;
		p->bytes = profile_bytes(p);
		if (profile_possible(p))
			continue;
		batch->refused[batch->refused_count++] = p->key;
		batch->profiles[--batch->profile_count] = NULL;
		profile_free(p);
	}
	return true;
}

static bool
read_tails(struct reader *r, const struct place *top)
{
	struct place at = place_member(top, "tails");
	struct profile_batch *batch = r->batch;
	size_t count;
	if (at.value == NULL)
		return true;
	if (!read_array(r->error, &at, PROFILE_BATCH_MAX, &count))
		return false;
	batch->tails = xcalloc(count + 1, sizeof(*batch->tails));
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(&at, i);
		struct profile_tail *tail = &batch->tails[i];
		if (!read_row(r->error, &row, 2) || !read_key(r, &row, 0, &tail->key) ||
		    !read_u64(r->error, &row, 1, INT64_MAX, &tail->tail_ns))
			return false;
		batch->tail_count++;
	}
	return true;
}

/* --- details ------------------------------------------------------------------ */

static bool
read_details(struct reader *r, const struct place *top)
{
	struct place at = place_member(top, "details");
	struct profile_batch *batch = r->batch;
	struct profile_key key;
	size_t count;
	if (at.value == NULL)
		return true;
	if (!read_array(r->error, &at, PROFILE_DETAILS_MAX, &count))
		return false;
	batch->details = xcalloc(count + 1, sizeof(struct detail *));
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(&at, i);
		if (detail_read(r->error, &row, &batch->details[batch->detail_count], &key) != 0)
			return false;
		if (batch->details[batch->detail_count] != NULL)
			batch->detail_count++;
		else
			batch->details_refused++;
	}
	return true;
}

static bool
read_gone(struct reader *r, const struct place *top)
{
	struct place at = place_member(top, "gone");
	size_t count;
	if (at.value == NULL)
		return true;
	if (!read_array(r->error, &at, PROFILE_BATCH_MAX, &count))
		return false;
	r->batch->gone = xcalloc(count + 1, sizeof(*r->batch->gone));
	for (size_t i = 0; i < count; i++)
		if (!read_key(r, &at, i, &r->batch->gone[r->batch->gone_count++]))
			return false;
	return true;
}

/* --- the batch ---------------------------------------------------------------- */

static bool
read_batch(struct reader *r, json_t *root)
{
	struct place top = {.value = root};
	struct place version = place_member(&top, "v");
	if (!json_is_object(root))
		return read_fail(r->error, &top, "not an object");
	if (!json_is_integer(version.value) || json_integer_value(version.value) != 1)
		return read_fail(r->error, &version, "not version 1");
	return read_process(r, &top) && read_stacks(r, &top) && read_profiles(r, &top) &&
	       profile_threads_read(r->error, &top, r->batch) &&
	       profile_holds_read(r->error, &top, r->batch) && read_tails(r, &top) &&
	       read_details(r, &top) && read_gone(r, &top);
}

static json_t *
load(const char *bytes, size_t length, struct read_error *error)
{
	json_error_t why;
	char *pointer = error->pointer;
	size_t size = sizeof(error->pointer);
	if (json_place(bytes, length, length, PROFILE_NESTING_MAX, pointer, size) >
	    PROFILE_NESTING_MAX) {
		snprintf(error->message, sizeof(error->message), "nested deeper than %d",
		         PROFILE_NESTING_MAX);
		return NULL;
	}
	json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &why);
	if (root == NULL) { /* the position is behind the token that was not expected */
		json_place(bytes, length, why.position > 0 ? (size_t)why.position - 1 : 0,
		           PROFILE_NESTING_MAX, pointer, size);
		snprintf(error->message, sizeof(error->message), "%.120s (line %d, column %d)",
		         why.text, why.line, why.column);
	}
	return root;
}

int
profile_batch_parse(const char *bytes, size_t length, struct profile_batch **ret,
                    struct read_error *reterr)
{
	*reterr = (struct read_error){0};
	if (length > PROFILE_BODY_MAX) {
		snprintf(reterr->message, sizeof(reterr->message), "over %u bytes",
		         PROFILE_BODY_MAX);
		return -1;
	}
	json_arena_begin();
	json_t *root = load(bytes, length, reterr);
	if (root == NULL) {
		json_arena_end(NULL);
		return -1;
	}
	struct profile_batch *batch = xcalloc(1, sizeof(*batch));
	batch->process = xcalloc(1, sizeof(*batch->process));
	batch->process->references = 1;
	struct reader reader = {.error = reterr, .batch = batch};
	bool good = read_batch(&reader, root);
	json_arena_end(root);
	if (!good) {
		profile_batch_free(batch);
		return -1;
	}
	*ret = batch;
	return 0;
}

void
profile_batch_free(struct profile_batch *batch)
{
	if (batch == NULL)
		return;
	for (size_t i = 0; i < batch->stack_count; i++)
		stack_unref(batch->stacks[i].stack);
	for (size_t i = 0; i < batch->profile_count; i++)
		profile_free(batch->profiles[i]);
	free(batch->stacks);
	free(batch->profiles);
	free(batch->refused);
	free(batch->tails);
	for (size_t i = 0; i < batch->detail_count; i++)
		detail_free(batch->details[i]);
	free(batch->details);
	free(batch->gone);
	profile_process_unref(batch->process);
	free(batch);
}
