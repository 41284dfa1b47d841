/* Exchanges to rows. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/spans_rows.h"
#include <uthash.h>

/* --- an exchange --------------- */

static void
part_add(struct rollup_part *parts, struct rollup_exchange *x, unsigned kind, unsigned cause,
         uint64_t stack, uint64_t ns, uint64_t count)
{
	if (ns == 0 && stack == 0)
		return;
	parts[x->part_count++] = (struct rollup_part){
	    .key = {.stack = stack, .kind = (uint8_t)kind, .cause = (uint8_t)cause},
	    .ns = ns,
	    .count = count,
	};
}

/* What held the loop meanwhile is a row of its own, by its stack; what nobody is known for, one
 * without. Two that seem to overlap (io callbacks are estimates) take it one after the other. */
static void
queue_parts(const struct profile *profile, uint64_t queue_ns, struct flame *flame, uint64_t now_s,
            struct rollup_part *parts, struct rollup_exchange *x)
{
	uint64_t left_ns = queue_ns;
	for (size_t i = 0; i < profile->stall_count; i++) {
		const struct profile_stall *stall = &profile->stalls[i];
		uint64_t ns = stall->ns < left_ns ? stall->ns : left_ns;
		uint64_t stack = !stall->queued || stall->stack == NULL || ns == 0
		                     ? 0
		                     : flame_intern(flame, stall->stack, now_s);
		if (stack == 0)
			continue;
		part_add(parts, x, ROLLUP_PHASE, ROLLUP_PHASE_APP_QUEUE, stack, ns, 1);
		left_ns -= ns;
	}
	part_add(parts, x, ROLLUP_PHASE, ROLLUP_PHASE_APP_QUEUE, 0, left_ns, 1);
}

static void
profile_parts(const struct profile *profile, const struct join *join, struct flame *flame,
              uint64_t now_s, struct rollup_part *parts, struct rollup_exchange *x)
{
	queue_parts(profile, join->app_queue_ns, flame, now_s, parts, x);
	part_add(parts, x, ROLLUP_PHASE, ROLLUP_PHASE_APP_OUT, 0, join->app_out_ns, 1);
	for (size_t i = 0; i < profile->breakdown.count; i++) {
		const struct profile_row *row = &profile->breakdown.rows[i];
		uint64_t stack = row->stack != NULL ? flame_intern(flame, row->stack, now_s) : 0;
		part_add(parts, x, row->kind, row->cause, stack, row->ns, row->count);
		if (row->stack != NULL && row->stack->key != 0 && stack == 0 && row->ns > 0)
			parts[x->part_count - 1].folded = true;
		x->estimated_ns += row->exact ? 0 : row->ns;
	}
	part_add(parts, x, ROLLUP_UNATTRIBUTED, PROFILE_CAUSE_COUNT, 0, profile->unattributed_ns,
	         1);
}

void
span_exchange(const struct exchange_record *record, const struct profile *profile,
              const struct join *join, enum profile_missing missing, struct flame *flame,
              uint64_t now_s, struct rollup_part *parts, struct rollup_exchange *ret)
{
	struct marks marks;
	struct rollup_exchange x = {
	    .total_ns = record->marks_ns[MARK_END] - record->marks_ns[MARK_START],
	    .error = record_is_error(record),
	    .sent = record_was_sent(record),
	    .joined = profile != NULL,
	    .dropped = missing == MISSING_DROPPED,
	    .bytes_in = record->request_body_bytes,
	    .bytes_out = record->response_body_bytes,
	    .parts = parts,
	};
	unsigned kind = profile != NULL ? ROLLUP_PHASE : ROLLUP_PHASE_ALONE;
	memcpy(marks.at_ns, record->marks_ns, sizeof(marks.at_ns));
	marks_phases(&marks, x.phases_ns);
	for (unsigned i = 0; i < PHASE_COUNT; i++)
		if (i != PHASE_SEND && i != PHASE_WAIT)
			part_add(parts, &x, kind, i, 0, x.phases_ns[i], 1);
	if (profile != NULL)
		profile_parts(profile, join, flame, now_s, parts, &x);
	else
		part_add(parts, &x, ROLLUP_NO_PROFILE, PROFILE_CAUSE_COUNT, 0,
		         x.phases_ns[PHASE_SEND] + x.phases_ns[PHASE_WAIT], 1);
	*ret = x;
}

/* --- rows of a route --------------- */

struct used {
	UT_hash_handle hh;
	uint64_t stack;
	uint16_t words; /* kind and cause */
	uint64_t used_ms;
};
#define USED_KEY_SIZE \
	(offsetof(struct used, words) + sizeof(uint16_t) - offsetof(struct used, stack))

struct span_rows {
	struct used *by_key; /* uthash head; owns */
	size_t max;
};

struct span_rows *
span_rows_new(size_t max)
{
	struct span_rows *rows = xcalloc(1, sizeof(*rows));
	rows->max = max;
	return rows;
}

void
span_rows_forget(struct span_rows *rows, uint64_t before_ms)
{
	struct used *used, *next;
	HASH_ITER(hh, rows->by_key, used, next)
	{
		if (used->used_ms >= before_ms)
			continue;
		HASH_DEL(rows->by_key, used);
		free(used);
	}
}

void
span_rows_free(struct span_rows *rows)
{
	if (rows == NULL)
		return;
	span_rows_forget(rows, UINT64_MAX);
	free(rows);
}

static bool
admit(struct span_rows *rows, const struct rollup_key *key, uint64_t now_ms)
{
	struct used probe, *used;
	memset(&probe, 0, sizeof(probe));
	probe.stack = key->stack;
	probe.words = (uint16_t)(key->kind << 8 | key->cause);
	HASH_FIND(hh, rows->by_key, &probe.stack, USED_KEY_SIZE, used);
	if (used == NULL) {
		if (HASH_COUNT(rows->by_key) >= rows->max)
			return false;
		used = xcalloc(1, sizeof(*used));
		*used = probe;
		HASH_ADD(hh, rows->by_key, stack, USED_KEY_SIZE, used);
	}
	used->used_ms = now_ms;
	return true;
}

size_t
span_rows_admit(struct span_rows *rows, struct rollup_part *part, struct flame *flame,
                uint64_t now_ms)
{
	size_t folded = 0;
	while (part->key.stack != 0 && !admit(rows, &part->key, now_ms)) {
		part->key.stack = flame_parent(flame, part->key.stack);
		part->folded = true;
		folded = 1;
	}
	return folded;
}

void
span_rows_write(const struct span_rows *rows, const struct flame *flame, struct text *out)
{
	for (const struct used *used = rows->by_key; used != NULL; used = used->hh.next) {
		flame_write(flame, used->stack, out);
		text_add(out, "", 1);
	}
}
