/* Rollups of the file: putting, ageing. */
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "collector/store_rollups.h"
#include "model/flame.h"
#include "model/rollup.h"

#define AGE_MS 100        /* of one transaction's ageing */
#define PRESS_STEPS 64    /* spans made coarser at a time when the file is too large */
#define NAMES_MAX 4096    /* stacks remembered between foldings */
#define STACKS_AGE_S 3600 /* between two looks for stacks that are not used any more */

static const struct {
	uint64_t span_s; /* of the next level */
	size_t rows_max;
} next_level[] = {
    [STORE_FINE] = {60, ROLLUP_ROWS_MINUTE}, [STORE_MINUTE] = {3600, ROLLUP_ROWS_HOUR}};

/* --- stacks --------------- */

static int
stack_put(struct store_file *file, uint64_t id, const char *frames, size_t length, uint64_t now_s)
{
	sqlite3_stmt *s = file->statements[STORE_STACK_PUT];
	sqlite3_bind_int64(s, 1, (sqlite3_int64)id);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)now_s);
	sqlite3_bind_text(s, 3, frames, (int)length, SQLITE_STATIC);
	return store_file_run(s);
}

static struct flame *
names(struct store_file *file)
{
	if (file->names != NULL && flame_count(file->names) > NAMES_MAX) {
		flame_free(file->names);
		file->names = NULL;
	}
	if (file->names == NULL)
		file->names = flame_new(2 * NAMES_MAX, FLAME_FRAMES_MAX);
	return file->names;
}

int
store_rollups_stacks(struct store_file *file, const char *stacks, size_t size, uint64_t now_s)
{
	int result = SQLITE_OK;
	for (size_t at = 0; at < size && result == SQLITE_OK;) {
		const char *frames = stacks + at;
		size_t length = strlen(frames);
		uint64_t id = flame_learn(names(file), frames, length, now_s);
		if (id != 0)
			result = stack_put(file, id, frames, length, now_s);
		at += length + 1;
	}
	return result;
}

/* The parent of a stack that the file knows; it is put there too, for rows will name it. */
static uint64_t
parent_of(void *arg, uint64_t id)
{
	struct store_file *file = arg;
	struct text frames = {0};
	if (flame_depth(file->names, id) == 0) {
		sqlite3_stmt *s = file->statements[STORE_STACK_SELECT];
		sqlite3_bind_int64(s, 1, (sqlite3_int64)id);
		if (sqlite3_step(s) == SQLITE_ROW)
			flame_learn(file->names, (const char *)sqlite3_column_text(s, 0),
			            (size_t)sqlite3_column_bytes(s, 0), 1);
		sqlite3_reset(s);
	}
	uint64_t parent = flame_parent(file->names, id);
	if (parent == 0)
		return 0;
	flame_write(file->names, parent, &frames);
	if (!frames.failed)
		stack_put(file, parent, frames.data, frames.length, clock_wall_ns() / NS_PER_S);
	text_free(&frames);
	return parent;
}

/* --- putting --------------- */

static int
body_put(struct store_file *file, int64_t route, uint64_t start_s, enum store_level level,
         const struct text *body)
{
	sqlite3_stmt *s = file->statements[STORE_ROLLUP_REPLACE];
	sqlite3_bind_int64(s, 1, route);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)start_s);
	sqlite3_bind_int(s, 3, level);
	sqlite3_bind_blob(s, 4, body->data, (int)body->length, SQLITE_STATIC);
	int result = body->failed ? SQLITE_NOMEM : store_file_run(s);
	if (result == SQLITE_OK)
		file->rollup_bytes += body->length;
	return result;
}

/* What the row holds already goes behind the new windows: sums take both. */
static int
body_add_stored(struct store_file *file, int64_t route, uint64_t start_s, struct text *body)
{
	sqlite3_stmt *s = file->statements[STORE_ROLLUP_SELECT];
	sqlite3_bind_int64(s, 1, route);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)start_s);
	sqlite3_bind_int(s, 3, STORE_FINE);
	int result = sqlite3_step(s);
	if (result == SQLITE_ROW) {
		size_t length = (size_t)sqlite3_column_bytes(s, 0);
		text_add(body, sqlite3_column_blob(s, 0), length);
		file->rollup_bytes -= length < file->rollup_bytes ? length : file->rollup_bytes;
	}
	sqlite3_reset(s);
	return result == SQLITE_ROW || result == SQLITE_DONE ? SQLITE_OK : result;
}

int
store_rollups_put(struct store_file *file, const struct store_rollup *rollup)
{
	struct text body = {0};
	int64_t route;
	int result = store_file_route(file, rollup->route, rollup->route_name, &route);
	if (result != SQLITE_OK)
		return result;
	text_add(&body, rollup->body.data, rollup->body.length);
	result = body_add_stored(file, route, rollup->start_s, &body);
	if (result == SQLITE_OK)
		result = body_put(file, route, rollup->start_s, STORE_FINE, &body);
	text_free(&body);
	return result;
}

/* --- ageing --------------- */

struct aging {
	struct store_file *file;
	struct store_stats *stats;
	enum store_level from;
	int64_t route;
	uint64_t start_s, end_s; /* of the coarser span */
};

static void
bind_range(const struct aging *a, sqlite3_stmt *s)
{
	sqlite3_bind_int64(s, 1, a->route);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)a->start_s);
	sqlite3_bind_int64(s, 3, (sqlite3_int64)a->end_s);
	sqlite3_bind_int(s, 4, a->from);
	sqlite3_bind_int(s, 5, a->from + 1);
}

static void
sum_body(const struct aging *a, const void *body, size_t length, struct rollup *sum)
{
	struct rollup_parents parents = {a->file, parent_of};
	struct rollup_window window;
	size_t at = 0;
	int got;
	while ((got = rollup_chunk_next(body, length, &at, &window)) == 1)
		if (rollup_decode(window.bytes, window.length, sum) != 0)
			a->stats->rollups_damaged++;
	a->stats->rollups_damaged += got < 0;
	rollup_fold(sum, next_level[a->from].rows_max, &parents);
}

static int
sum_range(const struct aging *a, struct rollup *sum)
{
	int result;
	sqlite3_stmt *s = a->file->statements[STORE_ROLLUP_RANGE];
	bind_range(a, s);
	while ((result = sqlite3_step(s)) == SQLITE_ROW) {
		size_t length = (size_t)sqlite3_column_bytes(s, 0);
		uint64_t *bytes = &a->file->rollup_bytes;
		sum_body(a, sqlite3_column_blob(s, 0), length, sum);
		*bytes -= length < *bytes ? length : *bytes;
	}
	sqlite3_reset(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int
age_span(const struct aging *a)
{
	struct text body = {0};
	struct rollup *sum = rollup_new();
	names(a->file);
	int result = sum_range(a, sum);
	if (result == SQLITE_OK) {
		bind_range(a, a->file->statements[STORE_ROLLUP_DELETE]);
		result = store_file_run(a->file->statements[STORE_ROLLUP_DELETE]);
	}
	rollup_chunk_add(&body, a->start_s * 1000, (a->end_s - a->start_s) * 1000, sum);
	rollup_free(sum);
	if (result == SQLITE_OK)
		result = body_put(a->file, a->route, a->start_s, a->from + 1, &body);
	text_free(&body);
	if (result == SQLITE_OK && a->from == STORE_MINUTE)
		result = store_file_minutes_to_hour(a->file, a->route, a->start_s / 3600);
	return result;
}

/* Makes the oldest span of a level begun before `before_s` coarser. *ret_done: there was one. */
static int
age_oldest(struct store_file *file, enum store_level from, uint64_t before_s,
           struct store_stats *stats, bool *ret_done)
{
	struct aging aging = {.file = file, .stats = stats, .from = from};
	sqlite3_stmt *s = file->statements[STORE_ROLLUP_OLDEST];
	sqlite3_bind_int(s, 1, from);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)before_s);
	int result = sqlite3_step(s);
	*ret_done = result == SQLITE_ROW;
	if (*ret_done) {
		uint64_t start_s = (uint64_t)sqlite3_column_int64(s, 1);
		aging.route = sqlite3_column_int64(s, 0);
		aging.start_s = start_s - start_s % next_level[from].span_s;
		aging.end_s = aging.start_s + next_level[from].span_s;
	}
	sqlite3_reset(s);
	if (!*ret_done)
		return result == SQLITE_DONE ? SQLITE_OK : result;
	return age_span(&aging);
}

static int
forget_unused(struct store_file *file, uint64_t now_s, uint64_t before_s)
{
	static const enum store_statement which[] = {STORE_STACKS_AGE, STORE_PINS_AGE};
	int result = SQLITE_OK;
	if (now_s - file->stacks_aged_s < STACKS_AGE_S)
		return SQLITE_OK;
	file->stacks_aged_s = now_s;
	for (size_t i = 0; i < 2 && result == SQLITE_OK; i++) {
		sqlite3_stmt *s = file->statements[which[i]];
		/* A stack is told as seen once an hour while it is used. */
		uint64_t unused_s = before_s > 2 * STACKS_AGE_S ? before_s - 2 * STACKS_AGE_S : 0;
		sqlite3_bind_int64(s, 1, (sqlite3_int64)unused_s);
		result = store_file_run(s);
	}
	return result;
}

/* Deletes the oldest rows of a level. *ret_done: there were some. */
static int
rollups_delete(struct store_file *file, enum store_level level, uint64_t before_s,
               struct store_stats *stats, bool *ret_done)
{
	int64_t bytes = 0;
	sqlite3_stmt *s = file->statements[STORE_ROLLUP_EVICT];
	sqlite3_bind_int(s, 1, level);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)before_s);
	int result = store_file_run(s);
	int rows = result == SQLITE_OK ? sqlite3_changes(file->db) : 0;
	*ret_done = rows > 0;
	if (rows == 0)
		return result;
	stats->evicted_rollups += (uint64_t)rows;
	s = file->statements[STORE_ROLLUP_BYTES];
	if (sqlite3_step(s) == SQLITE_ROW)
		bytes = sqlite3_column_int64(s, 0);
	sqlite3_reset(s);
	file->rollup_bytes = (uint64_t)bytes;
	return SQLITE_OK;
}

static int
age_all(struct store_file *file, uint64_t now_s, uint64_t before_s, struct store_stats *stats,
        bool *ret_more)
{
	static const uint64_t ages_s[] = {STORE_FINE_S, STORE_MINUTE_S};
	uint64_t until_ns = clock_now_ns() + AGE_MS * NS_PER_MS;
	int result = SQLITE_OK;
	*ret_more = false;
	for (enum store_level from = STORE_FINE; from < STORE_HOUR; from++) {
		bool done = true;
		uint64_t old_s = now_s > ages_s[from] ? now_s - ages_s[from] : 0;
		/* Whole spans only: an hour begun is aged when its last minute is old. */
		old_s -= old_s % next_level[from].span_s;
		while (done && result == SQLITE_OK && clock_now_ns() < until_ns)
			result = age_oldest(file, from, old_s, stats, &done);
		*ret_more = *ret_more || done;
	}
	for (enum store_level level = STORE_FINE; level <= STORE_HOUR && result == SQLITE_OK;
	     level++) {
		bool done = false;
		if (before_s > 0)
			result = rollups_delete(file, level, before_s, stats, &done);
		*ret_more = *ret_more || done;
	}
	return result == SQLITE_OK ? forget_unused(file, now_s, before_s) : result;
}

int
store_rollups_age(struct store_file *file, uint64_t now_s, uint64_t before_s,
                  struct store_stats *stats, bool *ret_more)
{
	int result = store_file_begin(file);
	if (result == SQLITE_OK)
		result = age_all(file, now_s, before_s, stats, ret_more);
	return result == SQLITE_OK ? store_file_commit(file) : result;
}

int
store_rollups_press(struct store_file *file, struct store_stats *stats, bool *ret_more)
{
	bool done = false;
	int result = store_file_begin(file);
	*ret_more = false;
	for (enum store_level from = STORE_FINE; from < STORE_HOUR && !*ret_more; from++) {
		done = true;
		for (int i = 0; i < PRESS_STEPS && done && result == SQLITE_OK; i++) {
			result = age_oldest(file, from, INT64_MAX, stats, &done);
			stats->aged_early += done;
			*ret_more = *ret_more || done;
		}
	}
	if (!*ret_more && result == SQLITE_OK)
		result = rollups_delete(file, STORE_HOUR, INT64_MAX, stats, ret_more);
	return result == SQLITE_OK ? store_file_commit(file) : result;
}
