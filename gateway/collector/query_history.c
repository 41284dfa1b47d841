/* Windows of store and memory as one; two spans compared. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/history.h"
#include "collector/query_answer.h"
#include "collector/query_history.h"

#define NAMES_MAX 16384 /* stacks of one answer */
#define CHUNK_S 3600    /* the longest span of one row of `rollups` */

/* --- opening --------------- */

/* The store has windows of a minute beyond two hours, of an hour beyond two days: a span begins
 * where one of these does. */
static void
align(struct query_span *span, uint64_t now_s)
{
	uint64_t age_s = now_s > span->from_s ? now_s - span->from_s : 0;
	uint64_t step_s = age_s > STORE_MINUTE_S ? 3600 : age_s > STORE_FINE_S ? 60 : 1;
	span->from_s -= span->from_s % step_s;
}

static int
find_route(struct query_reader *r, bool *ret_found)
{
	struct query_history *h = &r->job->history;
	sqlite3_stmt *s = NULL;
	*ret_found = h->saved.length > 0 || h->unsaved.length > 0;
	if (r->db == NULL)
		return SQLITE_OK;
	int result = sqlite3_prepare_v2(
	    r->db, "SELECT id, name FROM routes WHERE id = ?1 OR (?1 = 0 AND name = ?2)", -1, &s,
	    NULL);
	if (result == SQLITE_OK) {
		sqlite3_bind_int64(s, 1, h->route_id);
		sqlite3_bind_text(s, 2, r->job->route, -1, SQLITE_STATIC);
		result = sqlite3_step(s);
	}
	if (result == SQLITE_ROW) {
		h->route_id = sqlite3_column_int64(s, 0);
		snprintf(r->route, sizeof(r->route), "%s", (const char *)sqlite3_column_text(s, 1));
		*ret_found = true;
		result = SQLITE_DONE;
	}
	sqlite3_finalize(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

int
query_reader_open(struct query_reader *r, sqlite3 *db, struct query_job *job, uint64_t now_s,
                  bool *ret_found)
{
	const struct text *names = &job->history.names;
	*r = (struct query_reader){.db = db, .job = job};
	r->names = flame_new(NAMES_MAX, FLAME_FRAMES_MAX);
	snprintf(r->route, sizeof(r->route), "%s", job->route);
	for (size_t at = 0; at < names->length; at += strlen(names->data + at) + 1)
		flame_learn(r->names, names->data + at, strlen(names->data + at), 1);
	align(&job->history.span, now_s);
	align(&job->history.before, now_s);
	return find_route(r, ret_found);
}

void
query_reader_close(struct query_reader *r)
{
	flame_free(r->names);
}

/* --- stacks --------------- */

static void
learn(struct query_reader *r, uint64_t stack)
{
	sqlite3_stmt *s = NULL;
	if (stack == 0 || r->db == NULL || flame_depth(r->names, stack) > 0)
		return;
	if (sqlite3_prepare_v2(r->db, "SELECT frames FROM stacks WHERE id = ?", -1, &s, NULL) ==
	    SQLITE_OK) {
		sqlite3_bind_int64(s, 1, (sqlite3_int64)stack);
		if (sqlite3_step(s) == SQLITE_ROW)
			flame_learn(r->names, (const char *)sqlite3_column_text(s, 0),
			            (size_t)sqlite3_column_bytes(s, 0), 1);
	}
	sqlite3_finalize(s);
}

void
query_reader_learn(struct query_reader *r, const struct rollup *rollup)
{
	for (size_t i = 0; i < rollup->row_count; i++)
		learn(r, rollup->rows[i].key.stack);
}

static uint64_t
parent_of(void *arg, uint64_t stack)
{
	struct query_reader *r = arg;
	learn(r, stack);
	return flame_parent(r->names, stack);
}

struct rollup_parents
query_reader_parents(struct query_reader *reader)
{
	return (struct rollup_parents){reader, parent_of};
}

/* --- windows --------------- */

/* Windows in memory that the store may have too. */
struct recent {
	struct rollup_window window;
	bool seen;
};

struct walk {
	const struct query_span *span;
	struct recent *recent; /* owned */
	size_t recent_count;
	void (*each)(void *arg, const struct rollup_window *window);
	void *arg;
};

static bool
in_span(const struct walk *w, const struct rollup_window *window)
{
	return window->start_ms >= w->span->from_s * 1000 &&
	       window->start_ms < w->span->to_s * 1000;
}

static void
walk_chunk(struct walk *w, const void *bytes, size_t length)
{
	struct rollup_window window;
	for (size_t at = 0; rollup_chunk_next(bytes, length, &at, &window) == 1;) {
		for (size_t i = 0; i < w->recent_count; i++)
			if (w->recent[i].window.start_ms >= window.start_ms &&
			    w->recent[i].window.start_ms < window.start_ms + window.span_ms)
				w->recent[i].seen = true;
		if (in_span(w, &window))
			w->each(w->arg, &window);
	}
}

static void
recent_take(struct walk *w, const struct text *saved)
{
	struct rollup_window window;
	size_t room = 0;
	for (size_t at = 0; rollup_chunk_next(saved->data, saved->length, &at, &window) == 1;) {
		if (w->recent_count == room) {
			room = room > 0 ? 2 * room : 64;
			w->recent = xrealloc(w->recent, room, sizeof(*w->recent));
		}
		w->recent[w->recent_count++] = (struct recent){window, false};
	}
}

static int
walk_store(struct walk *w, const struct query_reader *r)
{
	sqlite3_stmt *s = NULL;
	int result = sqlite3_prepare_v2(r->db,
	                                "SELECT body FROM rollups WHERE route = ?"
	                                " AND start_s > ? AND start_s < ? ORDER BY start_s",
	                                -1, &s, NULL);
	if (result == SQLITE_OK) {
		uint64_t from_s = w->span->from_s > CHUNK_S ? w->span->from_s - CHUNK_S : 0;
		sqlite3_bind_int64(s, 1, r->job->history.route_id);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)from_s - 1);
		sqlite3_bind_int64(s, 3, (sqlite3_int64)w->span->to_s);
		while ((result = sqlite3_step(s)) == SQLITE_ROW)
			walk_chunk(w, sqlite3_column_blob(s, 0),
			           (size_t)sqlite3_column_bytes(s, 0));
	}
	sqlite3_finalize(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

int
query_reader_windows(struct query_reader *r, const struct query_span *span,
                     void (*each)(void *arg, const struct rollup_window *window), void *arg)
{
	struct walk w = {.span = span, .each = each, .arg = arg};
	walk_chunk(&w, r->job->history.unsaved.data, r->job->history.unsaved.length);
	recent_take(&w, &r->job->history.saved);
	int result = r->db != NULL ? walk_store(&w, r) : SQLITE_OK;
	for (size_t i = 0; i < w.recent_count; i++)
		if (!w.recent[i].seen && in_span(&w, &w.recent[i].window))
			each(arg, &w.recent[i].window);
	free(w.recent);
	return result;
}

/* --- blocks --------------- */

static void
block_add(void *arg, const struct rollup_window *window)
{
	struct query_blocks *b = arg;
	size_t at = (size_t)((window->start_ms / 1000 - b->span.from_s) / b->block_s);
	struct rollup *block = b->blocks[at < b->count ? at : b->count - 1];
	struct rollup_parents parents = query_reader_parents(b->reader);
	rollup_decode(window->bytes, window->length, block);
	if (block->row_count > 2 * ROLLUP_ROWS_MAX)
		rollup_fold(block, ROLLUP_ROWS_MAX, &parents);
}

int
query_blocks_load(struct query_reader *reader, const struct query_span *span,
                  struct query_blocks *ret)
{
	uint64_t length_s = span->to_s > span->from_s ? span->to_s - span->from_s : 1;
	uint64_t least_s = (length_s + QUERY_POINTS_MAX - 1) / QUERY_POINTS_MAX;
	*ret = (struct query_blocks){.reader = reader, .span = *span};
	ret->block_s = (least_s + CAUSE_BLOCK_S - 1) / CAUSE_BLOCK_S * CAUSE_BLOCK_S;
	ret->count = (size_t)((length_s + ret->block_s - 1) / ret->block_s);
	ret->blocks = xcalloc(ret->count, sizeof(*ret->blocks));
	for (size_t i = 0; i < ret->count; i++)
		ret->blocks[i] = rollup_new();
	int result = query_reader_windows(reader, span, block_add, ret);
	for (size_t i = 0; i < ret->count; i++)
		query_reader_learn(reader, ret->blocks[i]);
	return result;
}

void
query_blocks_free(struct query_blocks *blocks)
{
	for (size_t i = 0; i < blocks->count; i++)
		rollup_free(blocks->blocks[i]);
	free(blocks->blocks);
	*blocks = (struct query_blocks){0};
}

/* --- comparing --------------- */

/* The slowest kept exchanges with a profile that began in the span. */
static size_t
exemplars(sqlite3 *db, int64_t route, const struct query_span *span, struct profile_key *ret)
{
	sqlite3_stmt *s = NULL;
	size_t count = 0;
	if (db == NULL)
		return 0;
	if (sqlite3_prepare_v2(db,
	                       "SELECT trace, span FROM exchanges WHERE route = ? AND missing IS"
	                       " NULL AND provisional = 0 AND status BETWEEN 200 AND 499"
	                       " AND start_wall_ns >= ? AND start_wall_ns < ?"
	                       " ORDER BY total_ns DESC LIMIT ?",
	                       -1, &s, NULL) == SQLITE_OK) {
		sqlite3_bind_int64(s, 1, route);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)(span->from_s * NS_PER_S));
		sqlite3_bind_int64(s, 3, (sqlite3_int64)(span->to_s * NS_PER_S));
		sqlite3_bind_int(s, 4, HISTORY_EXEMPLARS);
		while (count < HISTORY_EXEMPLARS && sqlite3_step(s) == SQLITE_ROW) {
			if (sqlite3_column_bytes(s, 0) != TRACE_ID_SIZE ||
			    sqlite3_column_bytes(s, 1) != SPAN_ID_SIZE)
				continue;
			memcpy(ret[count].trace_id, sqlite3_column_blob(s, 0), TRACE_ID_SIZE);
			memcpy(ret[count++].span_id, sqlite3_column_blob(s, 1), SPAN_ID_SIZE);
		}
	}
	sqlite3_finalize(s);
	return count;
}

static struct rollup *
sum_of(struct query_reader *reader, const struct query_blocks *blocks)
{
	struct rollup *sum = rollup_new();
	struct rollup_parents parents = query_reader_parents(reader);
	for (size_t i = 0; i < blocks->count; i++)
		rollup_merge(sum, blocks->blocks[i]);
	rollup_fold(sum, ROLLUP_ROWS_MAX, &parents);
	return sum;
}

static void
compare(struct query_reader *reader, const struct query_blocks *before,
        const struct query_blocks *after)
{
	const struct query_history *h = &reader->job->history;
	struct history_answer *answer = xcalloc(1, sizeof(*answer));
	struct cause_side sides[2] = {{before->blocks, before->count},
	                              {after->blocks, after->count}};
	answer->before = sum_of(reader, before);
	answer->after = sum_of(reader, after);
	answer->cause = cause_compute(&sides[0], &sides[1], &h->cause, reader->names);
	answer->before_exemplar_count =
	    exemplars(reader->db, h->route_id, &h->before, answer->before_exemplars);
	answer->after_exemplar_count =
	    exemplars(reader->db, h->route_id, &h->span, answer->after_exemplars);
	reader->job->history.compared = answer;
}

int
query_answer_compare(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns)
{
	struct query_reader reader;
	struct query_blocks before = {0}, after = {0};
	bool found;
	int result = query_reader_open(&reader, db, job, now_wall_ns / NS_PER_S, &found);
	if (result == SQLITE_OK)
		result = query_blocks_load(&reader, &job->history.before, &before);
	if (result == SQLITE_OK)
		result = query_blocks_load(&reader, &job->history.span, &after);
	if (result == SQLITE_OK)
		compare(&reader, &before, &after);
	query_blocks_free(&before);
	query_blocks_free(&after);
	query_reader_close(&reader);
	job->status = 200;
	return result;
}
