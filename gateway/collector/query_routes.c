/* GET /api/v1/routes: what every route did in a window. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/query_answer.h"
#include "model/histogram.h"
#include "model/phase.h"

/* One route's minutes, added up while the rows of one route follow each other. */
struct route_sum {
	int64_t id; /* 0 = none yet */
	char name[ROUTE_NAME_MAX + 1];
	int64_t requests, errors, sent, joined;
	uint64_t phases_ns[PHASE_COUNT];
	struct histogram total;
	struct histogram *parts; /* QUERY_P95_PARTS of equal length; owned by load_routes() */
};

/* What all rows are put into. */
struct sums {
	struct route_sum sum;
	struct histogram parts[QUERY_P95_PARTS];
	int64_t from_minute, minutes;
};

static json_t *
p95_series(const struct route_sum *sum)
{
	json_t *array = json_array();
	for (size_t i = 0; i < QUERY_P95_PARTS; i++)
		json_array_append_new(array, sum->parts[i].count == 0
		                                 ? json_null()
		                                 : json_integer((json_int_t)histogram_quantile(
		                                       &sum->parts[i], 0.95)));
	return array;
}

static json_t *
route_object(const struct route_sum *sum)
{
	json_t *phases = json_object();
	for (unsigned i = 0; i < PHASE_COUNT; i++)
		json_object_set_new(
		    phases, phase_name(i),
		    json_integer((json_int_t)(sum->phases_ns[i] / (uint64_t)sum->requests)));
	json_t *ratio =
	    sum->sent > 0 ? json_real((double)sum->joined / (double)sum->sent) : json_null();
	return json_pack("{s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "id",
	                 (json_int_t)sum->id, "route", sum->name, "requests",
	                 (json_int_t)sum->requests, "errors", (json_int_t)sum->errors, "p50_ns",
	                 (json_int_t)histogram_quantile(&sum->total, 0.50), "p95_ns",
	                 (json_int_t)histogram_quantile(&sum->total, 0.95), "p99_ns",
	                 (json_int_t)histogram_quantile(&sum->total, 0.99), "max_ns",
	                 (json_int_t)sum->total.max_ns, "phases_mean_ns", phases, "joined_ratio",
	                 ratio, "p95_series", p95_series(sum));
}

static void
route_close(json_t *array, struct sums *s)
{
	if (s->sum.id != 0 && s->sum.requests > 0)
		json_array_append_new(array, route_object(&s->sum));
	memset(s->parts, 0, sizeof(s->parts));
	s->sum = (struct route_sum){.parts = s->parts};
}

/* The parts that a minute lies in: several of a window under an hour. */
static void
parts_add(struct sums *s, int64_t minute, const struct histogram *histogram)
{
	int64_t at = minute - s->from_minute;
	int64_t first = at * QUERY_P95_PARTS / s->minutes;
	int64_t end = (at + 1) * QUERY_P95_PARTS / s->minutes;
	for (int64_t i = first; i < QUERY_P95_PARTS && (i == first || i < end); i++)
		histogram_merge(&s->parts[i], histogram);
}

static void
route_add_row(struct sums *all, sqlite3_stmt *s)
{
	struct route_sum *sum = &all->sum;
	struct histogram histogram;
	uint64_t phases_ns[PHASE_COUNT];
	if (sqlite3_column_bytes(s, 6) != (int)sizeof(phases_ns) ||
	    histogram_decode(sqlite3_column_blob(s, 7), (size_t)sqlite3_column_bytes(s, 7),
	                     &histogram) != 0)
		return;
	memcpy(phases_ns, sqlite3_column_blob(s, 6), sizeof(phases_ns));
	sum->requests += sqlite3_column_int64(s, 2);
	sum->errors += sqlite3_column_int64(s, 3);
	sum->sent += sqlite3_column_int64(s, 4);
	sum->joined += sqlite3_column_int64(s, 5);
	for (size_t i = 0; i < PHASE_COUNT; i++)
		sum->phases_ns[i] += phases_ns[i];
	histogram_merge(&sum->total, &histogram);
	parts_add(all, sqlite3_column_int64(s, 8), &histogram);
}

static int
load_routes(sqlite3 *db, struct sums *sums, json_t *array)
{
	sqlite3_stmt *s = NULL;
	route_close(array, sums);
	int result =
	    sqlite3_prepare_v2(db,
	                       "SELECT m.route, r.name, m.requests, m.errors, m.sent,"
	                       " m.joined, m.phases_ns, m.histogram, m.minute FROM route_minutes m"
	                       " JOIN routes r ON r.id = m.route WHERE m.minute >= ?"
	                       " ORDER BY m.route",
	                       -1, &s, NULL);
	if (result == SQLITE_OK) {
		sqlite3_bind_int64(s, 1, sums->from_minute);
		while ((result = sqlite3_step(s)) == SQLITE_ROW) {
			if (sqlite3_column_int64(s, 0) != sums->sum.id) {
				route_close(array, sums);
				sums->sum.id = sqlite3_column_int64(s, 0);
				snprintf(sums->sum.name, sizeof(sums->sum.name), "%s",
				         (const char *)sqlite3_column_text(s, 1));
			}
			route_add_row(sums, s);
		}
		route_close(array, sums);
	}
	sqlite3_finalize(s);
	return result == SQLITE_DONE ? SQLITE_OK : result;
}

static int
busiest_first(const void *a, const void *b)
{
	const json_t *const *x = a, *const *y = b;
	json_int_t p = json_integer_value(json_object_get(*x, "requests"));
	json_int_t q = json_integer_value(json_object_get(*y, "requests"));
	return p == q  ? strcmp(json_string_value(json_object_get(*x, "route")),
	                        json_string_value(json_object_get(*y, "route")))
	       : p < q ? 1
	               : -1;
}

/* What the loop knows of routes: their state, what the detector is learning. */
static void
add_members(json_t *array, const struct text *pending)
{
	json_t *members =
	    pending->length > 0 ? json_loadb(pending->data, pending->length, 0, NULL) : NULL;
	json_t *route;
	size_t i;
	json_array_foreach(array, i, route)
	{
		const char *name = json_string_value(json_object_get(route, "route"));
		json_t *more = json_object_get(members, name);
		/* Of routes without a window since the start the detector knows nothing. */
		json_object_set_new(route, "state", json_string("learning"));
		json_object_set_new(route, "learning", json_null());
		json_object_set_new(route, "change", json_null());
		if (more != NULL)
			json_object_update(route, more);
	}
	json_decref(members);
}

/* Windows are whole minutes that end now: the running minute counts as one. */
int
query_answer_routes(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns)
{
	json_t *array = json_array();
	int64_t minutes = (int64_t)((job->window_s + 59) / 60);
	struct sums *sums = xcalloc(1, sizeof(*sums));
	sums->minutes = minutes;
	sums->from_minute = (int64_t)(now_wall_ns / (60 * NS_PER_S)) - minutes + 1;
	int result = db != NULL ? load_routes(db, sums, array) : SQLITE_OK;
	free(sums);
	if (result != SQLITE_OK) {
		json_decref(array);
		return result;
	}
	query_sort_and_cut(array, busiest_first, ROUTES_MAX + 1);
	add_members(array, &job->pending);
	query_answer_json(
	    job, 200,
	    json_pack("{s:o, s:I}", "routes", array, "window_s", (json_int_t)minutes * 60));
	return SQLITE_OK;
}
