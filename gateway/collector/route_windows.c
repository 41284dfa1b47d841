/* Sums of routes over sliding windows. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/route_windows.h"

#define NONE UINT64_MAX
#define OPEN_PARTS 3 /* that unsettled minutes lie in, at most */
#define CHUNK_MIN 10 /* minutes read by one statement: a few megabytes */

/* What is kept of a part that is over. */
struct part {
	uint64_t count, min_ns, max_ns, p95_ns;
};

struct entry {
	int64_t id;
	uint64_t counts[4]; /* requests, errors, sent, joined */
	uint64_t phases_ns[PHASE_COUNT];
	struct histogram total; /* min_ns and max_ns are the parts' */
	struct histogram *open; /* of the part that is not over, as far as it is settled; owned;
	                         * null = nothing came */
	struct part parts[ROUTE_WINDOW_PARTS]; /* by the part's number, modulo */
};

struct window {
	uint64_t minutes, part_minutes, parts;
	uint64_t begin, settled; /* the minutes whose sums these are */
	uint64_t begun; /* `begin` before the last question: what that subtracted may have been
	                 * gone already, for the store tells of ageing only afterwards */
	uint64_t open;  /* the part that is not over; those before are made */
	uint64_t used;  /* the windows' turn of the last question */
	struct entry **entries; /* by ID; owned */
	size_t count, room;
};

struct route_windows {
	struct window windows[ROUTE_WINDOWS_MAX];
	uint64_t turn;
};

/* A row of route_minutes, of the store or of its queue. */
struct row {
	int64_t id;
	uint64_t minute;
	uint64_t counts[4]; /* requests, errors, sent, joined */
	uint64_t phases_ns[PHASE_COUNT];
	size_t offset, length; /* of its histogram */
};

struct rows {
	struct row *rows; /* owned */
	size_t count, room;
	struct text bytes; /* their histograms */
};

/* --- the windows ----------------------------------------------------------------------- */

static void
window_clear(struct window *w)
{
	for (size_t i = 0; i < w->count; i++) {
		free(w->entries[i]->open);
		free(w->entries[i]);
	}
	free(w->entries);
	*w = (struct window){0};
}

static uint64_t
part_length(uint64_t minutes)
{
	return (minutes + ROUTE_WINDOW_PARTS - 1) / ROUTE_WINDOW_PARTS;
}

uint64_t
route_windows_minutes(uint64_t minutes)
{
	uint64_t length = part_length(minutes > 0 ? minutes : 1);
	return minutes > 0 ? (minutes + length - 1) / length * length : 1;
}

struct route_windows *
route_windows_new(void)
{
	return xcalloc(1, sizeof(struct route_windows));
}

void
route_windows_clear(struct route_windows *windows)
{
	for (size_t i = 0; i < ROUTE_WINDOWS_MAX; i++)
		window_clear(&windows->windows[i]);
}

void
route_windows_free(struct route_windows *windows)
{
	if (windows == NULL)
		return;
	route_windows_clear(windows);
	free(windows);
}

void
route_windows_changed(struct route_windows *windows, const struct store_changes *changes)
{
	for (size_t i = 0; i < ROUTE_WINDOWS_MAX; i++) {
		struct window *w = &windows->windows[i];
		if (w->settled > changes->written_from || w->begun < changes->aged_to)
			window_clear(w);
	}
}

/* The window of that length, as it was left or empty. */
static struct window *
window_of(struct route_windows *windows, uint64_t minutes)
{
	struct window *oldest = &windows->windows[0];
	windows->turn++;
	for (size_t i = 0; i < ROUTE_WINDOWS_MAX; i++) {
		struct window *w = &windows->windows[i];
		if (w->minutes == minutes) {
			w->used = windows->turn;
			return w;
		}
		if (w->used < oldest->used)
			oldest = w;
	}
	window_clear(oldest);
	oldest->minutes = minutes;
	oldest->part_minutes = part_length(minutes);
	oldest->parts = minutes / oldest->part_minutes;
	oldest->used = windows->turn;
	return oldest;
}

/* Where the entry of this ID is, or would be. */
static size_t
entry_place(const struct window *w, int64_t id)
{
	size_t low = 0, high = w->count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (w->entries[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct entry *
entry_of(struct window *w, int64_t id)
{
	size_t at = entry_place(w, id);
	if (at < w->count && w->entries[at]->id == id)
		return w->entries[at];
	if (w->count == w->room) {
		w->room = w->room > 0 ? 2 * w->room : 64;
		w->entries = xrealloc(w->entries, w->room, sizeof(struct entry *));
	}
	memmove(&w->entries[at + 1], &w->entries[at], (w->count - at) * sizeof(struct entry *));
	w->count++;
	w->entries[at] = xcalloc(1, sizeof(struct entry));
	w->entries[at]->id = id;
	return w->entries[at];
}

/* --- rows ------------------------------------------------------------------------------- */

static struct row *
rows_add(struct rows *rows, const void *histogram, size_t length)
{
	if (rows->count == rows->room) {
		rows->room = rows->room > 0 ? 2 * rows->room : 1024;
		rows->rows = xrealloc(rows->rows, rows->room, sizeof(*rows->rows));
	}
	struct row *row = &rows->rows[rows->count++];
	*row = (struct row){.offset = rows->bytes.length, .length = length};
	text_add(&rows->bytes, histogram, length);
	return row;
}

static const uint8_t *
histogram_of(const struct rows *rows, const struct row *row)
{
	return (const uint8_t *)rows->bytes.data + row->offset;
}

static void
rows_clear(struct rows *rows)
{
	free(rows->rows);
	text_free(&rows->bytes);
	*rows = (struct rows){0};
}

static void
read_row(sqlite3_stmt *s, struct rows *rows)
{
	struct row *row;
	if (sqlite3_column_bytes(s, 6) != (int)sizeof(row->phases_ns))
		return;
	row = rows_add(rows, sqlite3_column_blob(s, 7), (size_t)sqlite3_column_bytes(s, 7));
	row->minute = (uint64_t)sqlite3_column_int64(s, 0);
	row->id = sqlite3_column_int64(s, 1);
	for (int i = 0; i < 4; i++)
		row->counts[i] = (uint64_t)sqlite3_column_int64(s, 2 + i);
	memcpy(row->phases_ns, sqlite3_column_blob(s, 6), sizeof(row->phases_ns));
}

/* Minutes of [from, to) in their order, which is the table's own. */
static int
rows_read(struct rows *rows, sqlite3 *db, uint64_t from, uint64_t to)
{
	sqlite3_stmt *s = NULL;
	int result = sqlite3_prepare_v2(db,
	                                "SELECT minute, route, requests, errors, sent, joined,"
	                                " phases_ns, histogram FROM route_minutes"
	                                " WHERE minute >= ? AND minute < ? ORDER BY minute",
	                                -1, &s, NULL);
	if (result == SQLITE_OK) {
		sqlite3_bind_int64(s, 1, (sqlite3_int64)from);
		sqlite3_bind_int64(s, 2, (sqlite3_int64)to);
		while ((result = sqlite3_step(s)) == SQLITE_ROW)
			read_row(s, rows);
	}
	sqlite3_finalize(s);
	if (result == SQLITE_DONE && !rows->bytes.failed)
		return SQLITE_OK;
	return result == SQLITE_DONE ? SQLITE_NOMEM : result;
}

static void
rows_add_unwritten(struct rows *rows, const struct unwritten *unwritten, uint64_t from)
{
	for (size_t i = 0; i < unwritten->minute_count; i++) {
		const struct unwritten_minute *m = &unwritten->minutes[i];
		if (m->route_id == 0 || m->sums.minute < from)
			continue;
		struct row *row = rows_add(rows, unwritten->histograms.data + m->offset, m->length);
		row->id = m->route_id;
		row->minute = m->sums.minute;
		row->counts[0] = m->sums.requests;
		row->counts[1] = m->sums.errors;
		row->counts[2] = m->sums.sent;
		row->counts[3] = m->sums.joined;
		memcpy(row->phases_ns, m->sums.phases_ns, sizeof(row->phases_ns));
	}
}

static void
counts_add(uint64_t counts[4], uint64_t phases_ns[PHASE_COUNT], const struct row *row)
{
	for (size_t i = 0; i < 4; i++)
		counts[i] += row->counts[i];
	for (size_t i = 0; i < PHASE_COUNT; i++)
		phases_ns[i] += row->phases_ns[i];
}

static void
counts_subtract(uint64_t counts[4], uint64_t phases_ns[PHASE_COUNT], const struct row *row)
{
	for (size_t i = 0; i < 4; i++)
		counts[i] -= row->counts[i];
	for (size_t i = 0; i < PHASE_COUNT; i++)
		phases_ns[i] -= row->phases_ns[i];
}

/* --- settled minutes --------------------------------------------------------------------- */

static void
part_make(struct part *part, const struct histogram *h)
{
	*part = (struct part){0};
	if (h != NULL && h->count > 0)
		*part = (struct part){h->count, h->min_ns, h->max_ns, histogram_quantile(h, 0.95)};
}

static void
parts_close(struct window *w, uint64_t until)
{
	for (; w->open < until; w->open++) {
		for (size_t i = 0; i < w->count; i++) {
			struct entry *e = w->entries[i];
			part_make(&e->parts[w->open % ROUTE_WINDOW_PARTS], e->open);
			free(e->open);
			e->open = NULL;
		}
	}
}

static void
settle_rows(struct window *w, const struct rows *rows)
{
	for (size_t i = 0; i < rows->count; i++) {
		const struct row *row = &rows->rows[i];
		const uint8_t *histogram = histogram_of(rows, row);
		parts_close(w, row->minute / w->part_minutes);
		struct entry *e = entry_of(w, row->id);
		if (histogram_merge_encoded(&e->total, histogram, row->length) != 0)
			continue;
		if (e->open == NULL)
			e->open = xcalloc(1, sizeof(*e->open));
		histogram_merge_encoded(e->open, histogram, row->length);
		counts_add(e->counts, e->phases_ns, row);
	}
}

static void
forget_rows(struct window *w, const struct rows *rows)
{
	for (size_t i = 0; i < rows->count; i++) {
		const struct row *row = &rows->rows[i];
		struct entry *e = entry_of(w, row->id);
		if (histogram_subtract_encoded(&e->total, histogram_of(rows, row), row->length) ==
		    0)
			counts_subtract(e->counts, e->phases_ns, row);
	}
}

static uint64_t
chunk_end(uint64_t from, uint64_t until)
{
	return from + CHUNK_MIN < until ? from + CHUNK_MIN : until;
}

static void
restart(struct window *w, uint64_t begin)
{
	struct window empty = {.minutes = w->minutes,
	                       .part_minutes = w->part_minutes,
	                       .parts = w->parts,
	                       .begin = begin,
	                       .begun = begin,
	                       .settled = begin,
	                       .open = begin / w->part_minutes,
	                       .used = w->used};
	window_clear(w);
	*w = empty;
}

/* Brings the sums to those of [begin, until), in steps that are done wholly or not at all. */
static int
slide(struct window *w, sqlite3 *db, uint64_t begin, uint64_t until)
{
	struct rows rows = {0};
	int result = SQLITE_OK;
	if (w->begin > begin || w->settled < begin || w->settled > until)
		restart(w, begin);
	w->begun = w->begin;
	while (result == SQLITE_OK && w->begin < begin) {
		uint64_t to = chunk_end(w->begin, begin);
		result = rows_read(&rows, db, w->begin, to);
		if (result == SQLITE_OK) {
			forget_rows(w, &rows);
			w->begin = to;
		}
		rows_clear(&rows);
	}
	while (result == SQLITE_OK && w->settled < until) {
		uint64_t to = chunk_end(w->settled, until);
		result = rows_read(&rows, db, w->settled, to);
		if (result == SQLITE_OK) {
			settle_rows(w, &rows);
			parts_close(w, to / w->part_minutes);
			w->settled = to;
		}
		rows_clear(&rows);
	}
	return result;
}

/* --- the answer ---------------------------------------------------------------------------- */

/* An entry, and what of it is not settled. */
struct sum {
	uint64_t counts[4], phases_ns[PHASE_COUNT];
	struct histogram total;
	struct histogram open[OPEN_PARTS];
	uint64_t p95_ns[ROUTE_WINDOW_PARTS];
};

static int
by_id(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	return (x->id > y->id) - (x->id < y->id);
}

static void
extremes_add(struct histogram *total, bool *any, uint64_t count, uint64_t min_ns, uint64_t max_ns)
{
	if (count == 0)
		return;
	total->min_ns = !*any || min_ns < total->min_ns ? min_ns : total->min_ns;
	total->max_ns = !*any || max_ns > total->max_ns ? max_ns : total->max_ns;
	*any = true;
}

static void
sum_begin(struct sum *sum, const struct entry *e)
{
	memset(sum->open, 0, sizeof(sum->open));
	memcpy(sum->counts, e->counts, sizeof(sum->counts));
	memcpy(sum->phases_ns, e->phases_ns, sizeof(sum->phases_ns));
	sum->total = e->total;
	if (e->open != NULL)
		sum->open[0] = *e->open;
}

/* Of settled minutes only the sums change: those are read anew once these are written. */
static void
sum_add(struct sum *sum, const struct window *w, const struct rows *rows, const struct row *row)
{
	uint64_t part = row->minute / w->part_minutes;
	size_t at = part > w->open ? (size_t)(part - w->open) : 0;
	const uint8_t *histogram = histogram_of(rows, row);
	if (histogram_merge_encoded(&sum->total, histogram, row->length) != 0)
		return;
	counts_add(sum->counts, sum->phases_ns, row);
	if (part >= w->open)
		histogram_merge_encoded(&sum->open[at < OPEN_PARTS ? at : OPEN_PARTS - 1],
		                        histogram, row->length);
}

static void
sum_end(struct sum *sum, const struct window *w, const struct entry *e, uint64_t first)
{
	bool any = false;
	for (size_t i = 0; i < w->parts; i++) {
		uint64_t part = first + i;
		struct part made = {0};
		if (part < w->open)
			made = e->parts[part % ROUTE_WINDOW_PARTS];
		else if (part - w->open < OPEN_PARTS)
			part_make(&made, &sum->open[part - w->open]);
		sum->p95_ns[i] = made.count > 0 ? made.p95_ns : NONE;
		extremes_add(&sum->total, &any, made.count, made.min_ns, made.max_ns);
	}
}

static void
each_entry(struct window *w, const struct rows *rows, uint64_t first,
           void (*each)(void *arg, const struct route_window *route), void *arg)
{
	struct sum *sum = xcalloc(1, sizeof(*sum));
	size_t at = 0;
	for (size_t i = 0; i < w->count; i++) {
		const struct entry *e = w->entries[i];
		sum_begin(sum, e);
		for (; at < rows->count && rows->rows[at].id == e->id; at++)
			sum_add(sum, w, rows, &rows->rows[at]);
		if (sum->counts[0] == 0)
			continue;
		sum_end(sum, w, e, first);
		struct route_window route = {.id = e->id,
		                             .requests = sum->counts[0],
		                             .errors = sum->counts[1],
		                             .sent = sum->counts[2],
		                             .joined = sum->counts[3],
		                             .phases_ns = sum->phases_ns,
		                             .total = &sum->total,
		                             .p95_ns = sum->p95_ns,
		                             .parts = (size_t)w->parts};
		each(arg, &route);
	}
	free(sum);
}

int
route_windows_read(struct route_windows *windows, sqlite3 *db, uint64_t minutes,
                   uint64_t now_minute, const struct unwritten *unwritten,
                   void (*each)(void *arg, const struct route_window *route), void *arg)
{
	struct rows rows = {0};
	struct window *w = window_of(windows, route_windows_minutes(minutes));
	uint64_t now_part = now_minute / w->part_minutes;
	uint64_t first = now_part + 1 > w->parts ? now_part + 1 - w->parts : 0;
	uint64_t begin = first * w->part_minutes;
	uint64_t until =
	    now_minute + 1 > ROUTE_SETTLED_MIN ? now_minute + 1 - ROUTE_SETTLED_MIN : 0;
	until = until > begin ? until : begin;
	int result = SQLITE_OK;
	if (db != NULL)
		result = slide(w, db, begin, until);
	else
		restart(w, until);
	if (result == SQLITE_OK && db != NULL)
		result = rows_read(&rows, db, w->settled, INT64_MAX);
	if (result == SQLITE_OK) {
		rows_add_unwritten(&rows, unwritten, begin);
		for (size_t i = 0; i < rows.count; i++)
			entry_of(w, rows.rows[i].id);
		if (rows.count > 1)
			qsort(rows.rows, rows.count, sizeof(*rows.rows), by_id);
		each_entry(w, &rows, first, each, arg);
	}
	rows_clear(&rows);
	return result;
}
