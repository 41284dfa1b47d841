/* Detail: rows of numbers to structs, each checked. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/detail.h"
#include "model/profile_batch.h"

#define ROW_FIELDS 5
#define LANE_FIELDS 10
#define SEGMENT_FIELDS 4
#define STEP_FIELDS 5
#define DEEP_FIELDS 4
#define NODE_FIELDS 6

struct reader {
	struct read_error *error;
	struct detail *detail;
	bool possible; /* false: well-formed, but it cannot be true */
	size_t stack_room;
};

const char *
detail_lane_kind_name(unsigned kind)
{
	static const char *const names[] = {"task", "thread", "callback"};
	return kind < DETAIL_LANE_KINDS ? names[kind] : "unknown";
}

const char *
detail_deep_state_name(unsigned state)
{
	static const char *const names[] = {"ok", "busy", "limited", "cut"};
	return state < DETAIL_DEEP_STATES ? names[state] : "unknown";
}

void
detail_free(struct detail *detail)
{
	if (detail == NULL)
		return;
	for (size_t i = 0; i < detail->stack_count && detail->stacks != NULL; i++)
		stack_unref(detail->stacks[i]);
	for (size_t i = 0; i < detail->builtin_count; i++)
		free(detail->builtins[i]);
	free(detail->lanes);
	free(detail->segments);
	free(detail->steps);
	free(detail->nodes);
	free(detail->builtins);
	free(detail->stack_ids);
	free(detail->stacks);
	free(detail);
}

static void
name_stack(struct reader *r, int64_t id)
{
	struct detail *d = r->detail;
	if (id < 0 || (d->stack_count > 0 && d->stack_ids[d->stack_count - 1] == id))
		return;
	if (d->stack_count == r->stack_room) {
		r->stack_room = r->stack_room > 0 ? 2 * r->stack_room : 16;
		d->stack_ids = xrealloc(d->stack_ids, r->stack_room, sizeof(*d->stack_ids));
	}
	d->stack_ids[d->stack_count++] = id;
}

static int
ascending(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static void
sort_stacks(struct detail *d)
{
	size_t count = 0;
	if (d->stack_count > 1)
		qsort(d->stack_ids, d->stack_count, sizeof(*d->stack_ids), ascending);
	for (size_t i = 0; i < d->stack_count; i++)
		if (i == 0 || d->stack_ids[i] != d->stack_ids[count - 1])
			d->stack_ids[count++] = d->stack_ids[i];
	d->stack_count = count;
	d->stacks = xcalloc(count + 1, sizeof(*d->stacks));
}

/* An integer of `min` or more. */
static bool
read_signed(struct reader *r, const struct place *up, size_t index, int64_t min, int64_t *ret)
{
	struct place at = place_element(up, index);
	if (!json_is_integer(at.value) || json_integer_value(at.value) < min)
		return read_fail(r->error, &at, "not an integer of %lld or more", (long long)min);
	*ret = json_integer_value(at.value);
	return true;
}

static bool
read_stack(struct reader *r, const struct place *up, size_t index, int64_t *ret)
{
	if (!read_signed(r, up, index, -1, ret))
		return false;
	name_stack(r, *ret);
	return true;
}

/* A list of numbers, `fields` to an item. */
static bool
read_flat(struct reader *r, const struct place *at, size_t fields, size_t max, size_t *ret_count)
{
	if (!read_array(r->error, at, max * fields, ret_count))
		return false;
	if (*ret_count % fields != 0)
		return read_fail(r->error, at, "not a multiple of %zu numbers", fields);
	*ret_count /= fields;
	return true;
}

/* --- lanes --------------------------------------------------------------------------- */

static bool
read_timeline(struct reader *r, const struct place *lane_at, struct detail_lane *lane)
{
	struct detail *d = r->detail;
	struct place at = place_element(lane_at, 9);
	uint64_t sum_ns = 0, kind = 0, waker = 0;
	if (!read_flat(r, &at, SEGMENT_FIELDS, DETAIL_SEGMENTS_MAX - d->segment_count,
	               &lane->count))
		return false;
	lane->first = d->segment_count;
	for (size_t i = 0; i < lane->count; i++) {
		struct detail_segment *segment = &d->segments[d->segment_count];
		size_t field = i * SEGMENT_FIELDS;
		if (!read_u64(r->error, &at, field, PROFILE_LIFE_MAX_NS, &segment->ns) ||
		    !read_u64(r->error, &at, field + 1, PROFILE_KIND_COUNT - 1, &kind) ||
		    !read_stack(r, &at, field + 2, &segment->stack) ||
		    !read_u64(r->error, &at, field + 3, DETAIL_LANES_MAX, &waker))
			return false;
		segment->kind = (uint8_t)kind;
		segment->waker = (uint32_t)waker;
		sum_ns += segment->ns;
		d->segment_count++;
	}
	uint64_t life_ns = lane->run_ns + lane->ready_ns + lane->wait_ns;
	r->possible &= d->truncated ? sum_ns <= life_ns : sum_ns == life_ns;
	return true;
}

static bool
read_lane(struct reader *r, const struct place *at, size_t index)
{
	struct detail_lane *lane = &r->detail->lanes[index];
	struct place kind = place_element(at, 2);
	uint64_t number = 0, parent = 0;
	const uint64_t max_ns = PROFILE_LIFE_MAX_NS;
	if (!read_row(r->error, at, LANE_FIELDS) ||
	    !read_u64(r->error, at, 0, DETAIL_LANES_MAX, &number) ||
	    !read_u64(r->error, at, 1, DETAIL_LANES_MAX, &parent) ||
	    !read_word(r->error, &kind, detail_lane_kind_name, DETAIL_LANE_KINDS, &lane->kind) ||
	    !read_stack(r, at, 3, &lane->name) ||
	    !read_u64(r->error, at, 4, max_ns, &lane->created_ns) ||
	    !read_optional_u64(r->error, at, 5, &lane->ended, &lane->ended_ns) ||
	    !read_u64(r->error, at, 6, max_ns, &lane->run_ns) ||
	    !read_u64(r->error, at, 7, max_ns, &lane->ready_ns) ||
	    !read_u64(r->error, at, 8, max_ns, &lane->wait_ns) || !read_timeline(r, at, lane))
		return false;
	lane->parent = (uint32_t)parent;
	uint64_t life_ns = lane->run_ns + lane->ready_ns + lane->wait_ns;
	r->possible &= number == index + 1 && parent < number;
	r->possible &= !lane->ended || lane->ended_ns == lane->created_ns + life_ns;
	r->detail->lane_count++;
	return true;
}

static bool
read_lanes(struct reader *r, const struct place *row)
{
	struct place at = place_element(row, 2);
	size_t count;
	if (!read_array(r->error, &at, DETAIL_LANES_MAX, &count))
		return false;
	r->detail->lanes = xcalloc(count + 1, sizeof(*r->detail->lanes));
	r->detail->segments = xcalloc(DETAIL_SEGMENTS_MAX, sizeof(*r->detail->segments));
	for (size_t i = 0; i < count; i++) {
		struct place lane = place_element(&at, i);
		if (!read_lane(r, &lane, i))
			return false;
	}
	r->detail->segments = xrealloc(r->detail->segments, r->detail->segment_count + 1,
	                               sizeof(*r->detail->segments));
	return true;
}

/* --- the path -------------------------------------------------------------------------- */

static bool
read_step(struct reader *r, const struct place *at, struct detail_step *step)
{
	struct place kind = place_element(at, 0), cause = place_element(at, 1);
	step->cause = PROFILE_CAUSE_COUNT;
	return read_row(r->error, at, STEP_FIELDS) &&
	       read_word(r->error, &kind, profile_kind_name, PROFILE_KIND_COUNT, &step->kind) &&
	       (json_is_null(cause.value) || read_word(r->error, &cause, profile_cause_name,
	                                               PROFILE_CAUSE_COUNT, &step->cause)) &&
	       read_stack(r, at, 2, &step->stack) &&
	       read_u64(r->error, at, 3, PROFILE_LIFE_MAX_NS, &step->ns) &&
	       read_flag(r->error, at, 4, &step->exact);
}

static bool
read_path(struct reader *r, const struct place *row)
{
	struct place at = place_element(row, 3);
	size_t count;
	if (!read_array(r->error, &at, DETAIL_STEPS_MAX, &count))
		return false;
	r->detail->steps = xcalloc(count + 1, sizeof(*r->detail->steps));
	r->detail->step_count = count;
	for (size_t i = 0; i < count; i++) {
		struct place step = place_element(&at, i);
		if (!read_step(r, &step, &r->detail->steps[i]))
			return false;
	}
	return true;
}

/* --- the call tree ----------------------------------------------------------------------- */

static bool
read_builtins(struct reader *r, const struct place *deep)
{
	struct place at = place_element(deep, 2);
	struct detail *d = r->detail;
	size_t count;
	if (!read_array(r->error, &at, DETAIL_BUILTINS_MAX, &count))
		return false;
	d->builtins = xcalloc(count + 1, sizeof(*d->builtins));
	for (size_t i = 0; i < count; i++) {
		struct place name = place_element(&at, i);
		if (!read_string(r->error, &name, PROFILE_STRING_MAX))
			return false;
		d->builtins[d->builtin_count++] = xstrdup(json_string_value(name.value));
	}
	return true;
}

static bool
node_possible(const struct detail *d, size_t index)
{
	const struct detail_node *node = &d->nodes[index];
	if (node->parent == -1)
		return node->function >= 1 && node->function <= DETAIL_LANES_MAX;
	return node->parent < (int64_t)index &&
	       (node->function >= -1 || -2 - node->function < (int64_t)d->builtin_count);
}

static bool
read_nodes(struct reader *r, const struct place *deep)
{
	struct place at = place_element(deep, 3);
	struct detail *d = r->detail;
	if (!read_flat(r, &at, NODE_FIELDS, DETAIL_NODES_MAX, &d->node_count))
		return false;
	d->nodes = xcalloc(d->node_count + 1, sizeof(*d->nodes));
	for (size_t i = 0; i < d->node_count; i++) {
		struct detail_node *node = &d->nodes[i];
		size_t field = i * NODE_FIELDS;
		if (!read_signed(r, &at, field, -1, &node->parent) ||
		    !read_signed(r, &at, field + 1, -1 - DETAIL_BUILTINS_MAX, &node->function) ||
		    !read_u64(r->error, &at, field + 2, UINT32_MAX, &node->calls) ||
		    !read_u64(r->error, &at, field + 3, PROFILE_LIFE_MAX_NS, &node->self_ns) ||
		    !read_u64(r->error, &at, field + 4, PROFILE_LIFE_MAX_NS, &node->await_ns) ||
		    !read_u64(r->error, &at, field + 5, PROFILE_LIFE_MAX_NS, &node->cpu_ns))
			return false;
		r->possible &= node_possible(d, i);
		if (node->parent >= 0)
			name_stack(r, node->function);
	}
	return true;
}

static bool
read_deep(struct reader *r, const struct place *row)
{
	struct place at = place_element(row, 4), state = place_element(&at, 0);
	r->detail->has_deep = !json_is_null(at.value);
	return !r->detail->has_deep || (read_row(r->error, &at, DEEP_FIELDS) &&
	                                read_word(r->error, &state, detail_deep_state_name,
	                                          DETAIL_DEEP_STATES, &r->detail->deep_state) &&
	                                read_flag(r->error, &at, 1, &r->detail->deep_truncated) &&
	                                read_builtins(r, &at) && read_nodes(r, &at));
}

int
detail_read(struct read_error *error, const struct place *at, struct detail **ret,
            struct profile_key *ret_key)
{
	struct detail *detail = xcalloc(1, sizeof(*detail));
	struct reader r = {.error = error, .detail = detail, .possible = true};
	struct place key = place_element(at, 0);
	*ret = NULL;
	if (!read_row(error, at, ROW_FIELDS) || !profile_key_read(error, &key, &detail->key) ||
	    !read_flag(error, at, 1, &detail->truncated) || !read_lanes(&r, at) ||
	    !read_path(&r, at) || !read_deep(&r, at)) {
		detail_free(detail);
		return -1;
	}
	*ret_key = detail->key;
	if (!r.possible) {
		detail_free(detail);
		return 0;
	}
	sort_stacks(detail);
	*ret = detail;
	return 0;
}
