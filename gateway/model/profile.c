/* Profiles: words, ownership, sums, parts. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/profile.h"
#include "model/profile_stalls.h"
#include "model/profile_threads.h"

void
profile_process_unref(struct profile_process *process)
{
	if (process == NULL || --process->references > 0)
		return;
	free(process->python);
	free(process->loop);
	free(process->engine);
	free(process->hook_version);
	free(process->version);
	free(process);
}

static void
rows_free(struct profile_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++) {
		stack_unref(rows->rows[i].stack);
		free(rows->rows[i].by_route);
	}
	free(rows->rows);
}

void
profile_free(struct profile *profile)
{
	if (profile == NULL)
		return;
	rows_free(&profile->breakdown);
	rows_free(&profile->stream);
	profile_stalls_free(profile);
	profile_threads_free(profile);
	free(profile->route);
	profile_process_unref(profile->process);
	free(profile);
}

const char *
profile_kind_name(unsigned kind)
{
	static const char *const names[] = {
#define PROFILE_KIND(ID, name, has_cause) name,
#include "model/profile_words.def"
#undef PROFILE_KIND
	};
	return kind < PROFILE_KIND_COUNT ? names[kind] : "unknown";
}

const char *
profile_cause_name(unsigned cause)
{
	static const char *const names[] = {
#define PROFILE_CAUSE(ID, name) name,
#include "model/profile_words.def"
#undef PROFILE_CAUSE
	};
	return cause < PROFILE_CAUSE_COUNT ? names[cause] : NULL;
}

const char *
profile_ended_name(unsigned ended)
{
	static const char *const names[] = {
#define PROFILE_ENDED(ID, name) name,
#include "model/profile_words.def"
#undef PROFILE_ENDED
	};
	return ended < PROFILE_ENDED_COUNT ? names[ended] : "unknown";
}

const char *
profile_stall_kind_name(unsigned kind)
{
	return kind == PROFILE_STALL_STEP       ? "step"
	       : kind == PROFILE_STALL_CALLBACK ? "callback"
	                                        : "io_callback";
}

const char *
profile_stall_state_name(unsigned state)
{
	return state == PROFILE_STALL_BLOCKED ? "blocked"
	       : state == PROFILE_STALL_BUSY  ? "busy"
	                                      : NULL;
}

uint64_t
profile_rows_sum(const struct profile_rows *rows, uint64_t more)
{
	for (size_t i = 0; i < rows->count; i++)
		if (__builtin_add_overflow(more, rows->rows[i].ns, &more))
			return UINT64_MAX;
	return more;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
row_same(const struct profile_row *a, const struct profile_row *b)
{
	return a->kind == b->kind && a->cause == b->cause && a->stack == b->stack &&
	       a->exact == b->exact && a->has_by_trace == b->has_by_trace &&
	       memcmp(a->by_trace, b->by_trace, TRACE_ID_SIZE) == 0 &&
	       same_text(a->by_route, b->by_route);
}

static bool
part_follows(const struct profile *into, const struct profile *part)
{
	return !into->final && part->parts == into->parts + 1 && part->enter_ns == into->enter_ns &&
	       part->has_start == into->has_start && part->start_ns == into->start_ns &&
	       part->end_ns >= into->end_ns && part->breakdown.count == 0 &&
	       part->unattributed_ns == 0 &&
	       profile_rows_sum(&part->stream, part->stream_unattributed_ns) ==
	           part->end_ns - (into->has_start ? into->end_ns : part->end_ns);
}

/* Adds a row to the equal one, or behind the last where there is room; else its time is
 * unattributed. */
static void
stream_add(struct profile *into, const struct profile_row *row)
{
	struct profile_rows *rows = &into->stream;
	for (size_t i = 0; i < rows->count; i++) {
		if (row_same(&rows->rows[i], row)) {
			rows->rows[i].ns += row->ns;
			rows->rows[i].count += row->count;
			rows->rows[i].samples += row->samples;
			return;
		}
	}
	if (into->breakdown.count + rows->count + into->stall_count >= PROFILE_ROWS_MAX) {
		into->stream_unattributed_ns += row->ns;
		into->truncated = true;
		return;
	}
	rows->rows = xrealloc(rows->rows, rows->count + 1, sizeof(*rows->rows));
	struct profile_row *added = &rows->rows[rows->count++];
	*added = *row;
	stack_ref(added->stack);
	added->by_route = row->by_route != NULL ? xstrdup(row->by_route) : NULL;
	into->bytes += sizeof(*row) + PROFILE_STRING_MAX / 8;
}

int
profile_append(struct profile *into, const struct profile *part)
{
	if (!part_follows(into, part))
		return -1;
	for (size_t i = 0; i < part->stream.count; i++)
		stream_add(into, &part->stream.rows[i]);
	profile_stalls_append(into, part);
	profile_threads_append(into, part);
	into->stream_unattributed_ns += part->stream_unattributed_ns;
	into->parts = part->parts;
	into->final = part->final;
	into->ended = part->ended;
	into->end_ns = part->end_ns;
	into->truncated = into->truncated || part->truncated;
	if (part->has_tail) {
		into->has_tail = true;
		into->tail_ns = part->tail_ns;
	}
	if (part->has_cpu) {
		into->has_cpu = true;
		into->cpu_ns = part->cpu_ns;
	}
	return 0;
}
