/* SQL to the API's JSON: one request, lists of requests, routes. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/detail_join.h"
#include "collector/export.h"
#include "collector/query_answer.h"
#include "collector/stack_join.h"
#include "collector/query_history.h"
#include "model/trace_context.h"

void
query_answer_json(struct query_job *job, int status, json_t *root)
{
	char *text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	if (text == NULL) {
		query_answer_error(job, 500, "internal", "the answer cannot be written");
		return;
	}
	job->status = status;
	job->type = NULL;
	text_puts(&job->body, text);
	free(text);
}

void
query_answer_error(struct query_job *job, int status, const char *code, const char *message)
{
	json_t *error =
	    json_pack("{s:{s:s, s:s, s:n}}", "error", "code", code, "message", message, "pointer");
	query_answer_json(job, status, error);
}

static json_t *
pending_array(const struct query_job *job)
{
	json_t *array = job->pending.length > 0
	                    ? json_loadb(job->pending.data, job->pending.length, 0, NULL)
	                    : NULL;
	return array != NULL ? array : json_array();
}

static json_t *
hex(const void *bytes, int count)
{
	struct text text = {0};
	text_hex(&text, bytes, count > 0 ? (size_t)count : 0);
	json_t *string = json_string(text.data != NULL ? text.data : "");
	text_free(&text);
	return string;
}

/* Newest first; times are written with fixed width, so text order is time order. */
static int
newest_first(const void *a, const void *b)
{
	const json_t *const *x = a, *const *y = b;
	return strcmp(json_string_value(json_object_get(*y, "start")),
	              json_string_value(json_object_get(*x, "start")));
}

static int
slowest_first(const void *a, const void *b)
{
	const json_t *const *x = a, *const *y = b;
	json_int_t p = json_integer_value(json_object_get(*x, "total_ns"));
	json_int_t q = json_integer_value(json_object_get(*y, "total_ns"));
	return p == q ? newest_first(a, b) : p < q ? 1 : -1;
}

void
query_sort_and_cut(json_t *array, int (*order)(const void *, const void *), size_t limit)
{
	size_t count = json_array_size(array);
	json_t **items = xcalloc(count + 1, sizeof(*items));
	for (size_t i = 0; i < count; i++)
		items[i] = json_incref(json_array_get(array, i));
	qsort(items, count, sizeof(*items), order);
	json_array_clear(array);
	for (size_t i = 0; i < count; i++) {
		if (i < limit)
			json_array_append(array, items[i]);
		json_decref(items[i]);
	}
	free(items);
}

static bool
same_attempt(const json_t *a, const json_t *b)
{
	static const char *const keys[] = {"trace_id", "span_id", "start"};
	for (size_t i = 0; i < 3; i++)
		if (!json_equal(json_object_get(a, keys[i]), json_object_get(b, keys[i])))
			return false;
	return true;
}

/* Adds a stored exchange. One that was pending when the loop looked may have reached the store
 * since: the stored form is the newer, unless it is the provisional one. Takes `object` over. */
static void
add_stored(json_t *array, json_t *object, bool provisional)
{
	size_t i;
	json_t *pending;
	json_array_foreach(array, i, pending)
	{
		if (!same_attempt(pending, object))
			continue;
		if (!provisional)
			json_array_set(array, i, object);
		json_decref(object);
		return;
	}
	json_array_append_new(array, object);
}

/* Takes the exchange over. */
static void
answer_profile(struct query_job *job, json_t *exchange)
{
	const char *why = export_profile(exchange, job->format, &job->body);
	json_decref(exchange);
	job->status = 200;
	job->type = export_type(job->format);
	if (why == NULL && !job->body.failed)
		return;
	text_free(&job->body);
	if (why != NULL)
		query_answer_error(job, 404, "no_profile", why);
	else
		query_answer_error(job, 500, "internal", "the answer cannot be written");
}

/* --- one request --------------------------------------------------------------------- */

static json_t *
stored_request(sqlite3_stmt *s)
{
	json_t *object = json_loads((const char *)sqlite3_column_text(s, 0), 0, NULL);
	if (object == NULL)
		return NULL;
	json_t *profile = json_object_get(object, "profile");
	if (json_is_object(profile) && sqlite3_column_type(s, 2) != SQLITE_NULL)
		json_object_set_new(profile, "app_tail_ns",
		                    json_integer(sqlite3_column_int64(s, 2)));
	if (!json_is_object(profile) && sqlite3_column_type(s, 1) != SQLITE_NULL)
		json_object_set_new(object, "profile_missing",
		                    json_string((const char *)sqlite3_column_text(s, 1)));
	return object;
}

/* An exchange that the store has not committed yet, as stored_request() makes it. */
static json_t *
unwritten_request(const struct store_exchange *x)
{
	json_t *object = x->body.data != NULL ? json_loads(x->body.data, 0, NULL) : NULL;
	json_t *profile = json_object_get(object, "profile");
	const char *missing = profile_missing_name(x->missing);
	if (json_is_object(profile) && x->has_tail)
		json_object_set_new(profile, "app_tail_ns", json_integer((json_int_t)x->tail_ns));
	if (object != NULL && !json_is_object(profile) && missing != NULL)
		json_object_set_new(object, "profile_missing", json_string(missing));
	return object;
}

static void
apply_note(json_t *exchange, const struct unwritten_note *note)
{
	json_t *profile = json_object_get(exchange, "profile");
	if (json_is_object(profile) && note->has_tail)
		json_object_set_new(profile, "app_tail_ns",
		                    json_integer((json_int_t)note->tail_ns));
	if (!json_is_object(profile) && note->late)
		json_object_set_new(exchange, "profile_missing", json_string("late"));
}

static bool
is_of_key(const json_t *exchange, const struct profile_key *key)
{
	struct profile_key of;
	return hex_parse(json_string_value(json_object_get(exchange, "trace_id")), of.trace_id,
	                 TRACE_ID_SIZE) == 0 &&
	       hex_parse(json_string_value(json_object_get(exchange, "span_id")), of.span_id,
	                 SPAN_ID_SIZE) == 0 &&
	       memcmp(&of, key, sizeof(of)) == 0;
}

static void
add_unwritten(json_t *array, const struct unwritten *unwritten)
{
	for (size_t i = 0; i < unwritten->exchange_count; i++) {
		json_t *object = unwritten_request(&unwritten->exchanges[i]);
		if (object != NULL)
			add_stored(array, object, unwritten->exchanges[i].provisional);
	}
	for (size_t i = 0; i < unwritten->note_count; i++) {
		size_t k;
		json_t *exchange;
		json_array_foreach(array, k, exchange)
		{
			if (is_of_key(exchange, &unwritten->notes[i].key))
				apply_note(exchange, &unwritten->notes[i]);
		}
	}
}

static int
load_requests(sqlite3 *db, const struct query_job *job, json_t *array)
{
	sqlite3_stmt *s = NULL;
	int result = sqlite3_prepare_v2(db,
	                                "SELECT body, missing, app_tail_ns, provisional"
	                                " FROM exchanges WHERE trace = ?"
	                                " ORDER BY start_wall_ns DESC LIMIT ?",
	                                -1, &s, NULL);
	if (result == SQLITE_OK) {
		sqlite3_bind_blob(s, 1, job->key.trace_id, TRACE_ID_SIZE, SQLITE_STATIC);
		sqlite3_bind_int(s, 2, QUERY_OTHERS_MAX);
		while ((result = sqlite3_step(s)) == SQLITE_ROW) {
			json_t *object = stored_request(s);
			if (object != NULL)
				add_stored(array, object, sqlite3_column_int(s, 3) != 0);
		}
	}
	sqlite3_finalize(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

static json_t *
summary(const json_t *object)
{
	static const char *const keys[] = {"trace_id", "span_id",  "route",
	                                   "status",   "total_ns", "start"};
	json_t *short_form = json_object();
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		json_object_set(short_form, keys[i], json_object_get(object, keys[i]));
	json_object_set_new(short_form, "has_profile",
	                    json_boolean(json_is_object(json_object_get(object, "profile"))));
	return short_form;
}

/* The place of the exchange asked for: the newest, or the one of the span. */
static size_t
picked(const struct query_job *job, const json_t *array)
{
	if (!job->has_span)
		return 0;
	json_t *span = hex(job->key.span_id, SPAN_ID_SIZE), *object;
	size_t i, at = json_array_size(array);
	json_array_foreach(array, i, object)
	{
		if (at == json_array_size(array) &&
		    json_equal(json_object_get(object, "span_id"), span))
			at = i;
	}
	json_decref(span);
	return at;
}

static int
stored_detail(sqlite3 *db, const struct profile_key *key, json_t *exchange)
{
	sqlite3_stmt *s = NULL;
	int result = sqlite3_prepare_v2(db, "SELECT body FROM details WHERE trace = ? AND span = ?",
	                                -1, &s, NULL);
	if (result == SQLITE_OK) {
		sqlite3_bind_blob(s, 1, key->trace_id, TRACE_ID_SIZE, SQLITE_STATIC);
		sqlite3_bind_blob(s, 2, key->span_id, SPAN_ID_SIZE, SQLITE_STATIC);
		result = sqlite3_step(s);
		if (result == SQLITE_ROW)
			detail_add(exchange, (const char *)sqlite3_column_text(s, 0));
	}
	sqlite3_finalize(s);
	return result;
}

/* Puts the detail into the profile of the exchange that was picked. */
static int
add_detail(sqlite3 *db, const struct query_job *job, json_t *exchange)
{
	const struct unwritten_note *note = NULL;
	struct profile_key key = job->key;
	const char *span = json_string_value(json_object_get(exchange, "span_id"));
	if (!json_is_object(json_object_get(exchange, "profile")) ||
	    hex_parse(span, key.span_id, SPAN_ID_SIZE) != 0)
		return SQLITE_OK;
	for (size_t i = 0; i < job->unwritten.note_count; i++)
		if (memcmp(&job->unwritten.notes[i].key, &key, sizeof(key)) == 0)
			note = &job->unwritten.notes[i];
	if (note != NULL && note->detail.data != NULL) {
		detail_add(exchange, note->detail.data);
		return SQLITE_OK;
	}
	int result = db != NULL ? stored_detail(db, &key, exchange) : SQLITE_DONE;
	if (result == SQLITE_DONE && note != NULL && note->gone)
		detail_add(exchange, NULL);
	return result == SQLITE_ROW || result == SQLITE_DONE ? SQLITE_OK : result;
}

static int
answer_request(sqlite3 *db, struct query_job *job)
{
	json_t *array = pending_array(job);
	int result = db != NULL ? load_requests(db, job, array) : SQLITE_OK;
	if (result != SQLITE_OK) {
		json_decref(array);
		return result;
	}
	add_unwritten(array, &job->unwritten);
	query_sort_and_cut(array, newest_first, QUERY_OTHERS_MAX);
	size_t at = picked(job, array), i;
	json_t *chosen = json_incref(json_array_get(array, at)), *object;
	json_t *others = json_array();
	json_array_foreach(array, i, object)
	{
		if (i != at)
			json_array_append_new(others, summary(object));
	}
	json_decref(array);
	if (chosen == NULL) {
		json_decref(others);
		query_answer_error(job, 404, "not_found", "no exchange of this trace is kept");
		return SQLITE_OK;
	}
	json_object_set_new(chosen, "others", others);
	stack_join(chosen);
	result = add_detail(db, job, chosen);
	if (result != SQLITE_OK) {
		json_decref(chosen);
		return result;
	}
	if (job->kind == QUERY_PROFILE)
		answer_profile(job, chosen);
	else
		query_answer_json(job, 200, chosen);
	return SQLITE_OK;
}

/* --- lists of requests ------------------------------------------------------------------ */

static json_t *
summary_of(const struct store_exchange *x)
{
	char start[32];
	clock_format(x->start_wall_ns, start, sizeof(start));
	return json_pack(
	    "{s:o, s:o, s:s, s:o, s:I, s:s, s:b}", "trace_id", hex(x->key.trace_id, TRACE_ID_SIZE),
	    "span_id", hex(x->key.span_id, SPAN_ID_SIZE), "route", x->route_name, "status",
	    x->status != 0 ? json_integer(x->status) : json_null(), "total_ns",
	    (json_int_t)x->total_ns, "start", start, "has_profile", x->missing == MISSING_NOT);
}

static json_t *
stored_summary(sqlite3_stmt *s)
{
	struct store_exchange x = {.route_name = (const char *)sqlite3_column_text(s, 2),
	                           .status = (uint16_t)sqlite3_column_int(s, 3),
	                           .total_ns = (uint64_t)sqlite3_column_int64(s, 4),
	                           .start_wall_ns = (uint64_t)sqlite3_column_int64(s, 5),
	                           .missing =
	                               sqlite3_column_int(s, 6) ? MISSING_NOT : MISSING_PENDING};
	if (sqlite3_column_bytes(s, 0) != TRACE_ID_SIZE ||
	    sqlite3_column_bytes(s, 1) != SPAN_ID_SIZE)
		return NULL;
	memcpy(x.key.trace_id, sqlite3_column_blob(s, 0), TRACE_ID_SIZE);
	memcpy(x.key.span_id, sqlite3_column_blob(s, 1), SPAN_ID_SIZE);
	return summary_of(&x);
}

static int
latest_exchange_first(const void *a, const void *b)
{
	const struct store_exchange *x = a, *y = b;
	return (x->start_wall_ns < y->start_wall_ns) - (x->start_wall_ns > y->start_wall_ns);
}

static int
slowest_exchange_first(const void *a, const void *b)
{
	const struct store_exchange *x = a, *y = b;
	return x->total_ns == y->total_ns
	           ? latest_exchange_first(a, b)
	           : (x->total_ns < y->total_ns) - (x->total_ns > y->total_ns);
}

/* Thousands may wait to be written: only as many as the answer can hold. */
static void
add_unwritten_summaries(json_t *array, const struct query_job *job)
{
	const struct unwritten *u = &job->unwritten;
	if (u->exchange_count > 1)
		qsort(u->exchanges, u->exchange_count, sizeof(*u->exchanges),
		      job->slowest ? slowest_exchange_first : latest_exchange_first);
	for (size_t i = 0; i < u->exchange_count && i < job->limit; i++)
		add_stored(array, summary_of(&u->exchanges[i]), u->exchanges[i].provisional);
}

static int
load_summaries(sqlite3 *db, const struct query_job *job, json_t *array)
{
	char query[512];
	sqlite3_stmt *s = NULL;
	snprintf(
	    query, sizeof(query),
	    "SELECT x.trace, x.span, r.name, x.status, x.total_ns, x.start_wall_ns,"
	    " x.missing IS NULL, x.provisional FROM exchanges x JOIN routes r ON r.id = x.route"
	    "%s ORDER BY %s DESC LIMIT ?1",
	    job->has_route ? " WHERE x.route = (SELECT id FROM routes WHERE name = ?2)" : "",
	    job->slowest ? "x.total_ns" : "x.start_wall_ns");
	int result = sqlite3_prepare_v2(db, query, -1, &s, NULL);
	if (result == SQLITE_OK) {
		sqlite3_bind_int64(s, 1, job->limit);
		if (job->has_route)
			sqlite3_bind_text(s, 2, job->route, -1, SQLITE_STATIC);
		while ((result = sqlite3_step(s)) == SQLITE_ROW) {
			json_t *object = stored_summary(s);
			if (object != NULL)
				add_stored(array, object, sqlite3_column_int(s, 7) != 0);
		}
	}
	sqlite3_finalize(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int
answer_requests(sqlite3 *db, struct query_job *job)
{
	json_t *array = pending_array(job);
	int result = db != NULL ? load_summaries(db, job, array) : SQLITE_OK;
	if (result != SQLITE_OK) {
		json_decref(array);
		return result;
	}
	add_unwritten_summaries(array, job);
	query_sort_and_cut(array, job->slowest ? slowest_first : newest_first, job->limit);
	query_answer_json(job, 200, json_pack("{s:o}", "requests", array));
	return SQLITE_OK;
}

int
query_answer(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns)
{
	switch (job->kind) {
	case QUERY_REQUEST:
	case QUERY_PROFILE:
		return answer_request(db, job);
	case QUERY_REQUESTS:
		return answer_requests(db, job);
	case QUERY_ROUTES:
		return query_answer_routes(db, job, now_wall_ns);
	case QUERY_SERIES:
		return query_answer_series(db, job, now_wall_ns);
	case QUERY_FLAME:
		return query_answer_flame(db, job, now_wall_ns);
	case QUERY_COMPARE:
		return query_answer_compare(db, job, now_wall_ns);
	}
	return SQLITE_MISUSE;
}
