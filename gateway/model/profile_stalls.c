/* Stalls: those of a profile's own row, and those before its ASGI call. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/profile_stalls.h"

#define STALL_FIELDS 7
#define HOLD_FIELDS 8 /* and when it began */
#define HOLDS_FIELDS 2

static bool
read_stall(struct read_error *error, const struct place *at, size_t fields,
           struct profile_stall *ret)
{
	if (!read_row(error, at, fields))
		return false;
	struct place kind = place_element(at, 2), state = place_element(at, 3);
	ret->state = PROFILE_STALL_UNKNOWN;
	return profile_trace_read(error, at, 0, &ret->has_trace, ret->trace_id) &&
	       read_optional_string(error, at, 1, PROFILE_STRING_MAX, &ret->route) &&
	       read_word(error, &kind, profile_stall_kind_name, PROFILE_STALL_IO_CALLBACK + 1,
	                 &ret->kind) &&
	       (json_is_null(state.value) || read_word(error, &state, profile_stall_state_name,
	                                               PROFILE_STALL_UNKNOWN, &ret->state)) &&
	       read_u64(error, at, 4, INT64_MAX, &ret->ns) &&
	       read_flag(error, at, 5, &ret->exact) &&
	       profile_stack_id_read(error, at, 6, &ret->stack_id);
}

bool
profile_stalls_read(struct read_error *error, const struct place *row, size_t rows_left,
                    struct profile *profile)
{
	struct place at = place_element(row, 15);
	if (!read_array(error, &at, rows_left, &profile->stall_count))
		return false;
	profile->stalls = xcalloc(profile->stall_count + 1, sizeof(*profile->stalls));
	for (size_t i = 0; i < profile->stall_count; i++) {
		struct place stall = place_element(&at, i);
		if (!read_stall(error, &stall, STALL_FIELDS, &profile->stalls[i]))
			return false;
	}
	return true;
}

/* Takes the route; the stack is not resolved yet, or is what the caller has a reference of. */
static void
add(struct profile *into, const struct profile_stall *stall)
{
	into->stalls = xrealloc(into->stalls, into->stall_count + 1, sizeof(*into->stalls));
	into->stalls[into->stall_count++] = *stall;
	into->bytes += sizeof(*stall) + PROFILE_STRING_MAX / 8;
}

/* --- before the ASGI call ----------------------------------------------------- */

static bool
read_holds(struct read_error *error, const struct place *at, struct profile *profile)
{
	size_t count;
	if (!read_array(error, at, PROFILE_HOLDS_MAX, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(at, i);
		struct profile_stall hold = {.queued = true};
		bool good = read_stall(error, &row, HOLD_FIELDS, &hold) &&
		            read_u64(error, &row, 7, INT64_MAX, &hold.begin_ns);
		if (good && profile != NULL)
			add(profile, &hold);
		else
			free(hold.route);
		if (!good)
			return false;
	}
	return true;
}

static bool
has_holds(const struct profile *profile)
{
	return profile->stall_count > 0 && profile->stalls[profile->stall_count - 1].queued;
}

bool
profile_holds_read(struct read_error *error, const struct place *top, struct profile_batch *batch)
{
	struct place at = place_member(top, "holds");
	size_t count, found_at = 0;
	if (at.value == NULL)
		return true;
	if (!read_array(error, &at, PROFILE_BATCH_MAX, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		struct place row = place_element(&at, i);
		struct profile_key key;
		if (!read_row(error, &row, HOLDS_FIELDS))
			return false;
		struct place key_at = place_element(&row, 0), holds = place_element(&row, 1);
		if (!profile_key_read(error, &key_at, &key))
			return false;
		struct profile *profile = profile_batch_find(batch, &key, 0, &found_at);
		if (profile != NULL && has_holds(profile))
			profile = NULL; /* told already */
		if (!read_holds(error, &holds, profile))
			return false;
	}
	return true;
}

static void
stall_clear(struct profile_stall *stall)
{
	stack_unref(stall->stack);
	free(stall->route);
}

void
profile_stalls_cut(struct profile *profile, uint64_t from_ns, uint64_t to_ns, bool exact)
{
	size_t kept = 0;
	for (size_t i = 0; i < profile->stall_count; i++) {
		struct profile_stall *stall = &profile->stalls[i];
		uint64_t begin_ns = stall->begin_ns > from_ns ? stall->begin_ns : from_ns;
		uint64_t end_ns = stall->begin_ns + stall->ns;
		end_ns = end_ns < to_ns ? end_ns : to_ns;
		if (stall->queued && end_ns <= begin_ns) {
			stall_clear(stall);
			continue;
		}
		if (stall->queued) {
			stall->ns = end_ns - begin_ns;
			stall->exact = stall->exact && exact;
		}
		profile->stalls[kept++] = *stall;
	}
	profile->stall_count = kept;
}

/* --- parts -------------------------------------------------------------------- */

void
profile_stalls_append(struct profile *into, const struct profile *part)
{
	for (size_t i = 0; i < part->stall_count; i++) {
		struct profile_stall stall = part->stalls[i];
		if (into->breakdown.count + into->stream.count + into->stall_count >=
		    PROFILE_ROWS_MAX) {
			into->truncated = true;
			return;
		}
		stack_ref(stall.stack);
		stall.route = stall.route != NULL ? xstrdup(stall.route) : NULL;
		add(into, &stall);
	}
}

void
profile_stalls_free(struct profile *profile)
{
	for (size_t i = 0; i < profile->stall_count; i++)
		stall_clear(&profile->stalls[i]);
	free(profile->stalls);
}
