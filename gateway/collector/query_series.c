/* GET /api/v1/routes/{id}/series: one route in steps of time. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/query_answer.h"
#include "collector/query_history.h"

struct point {
	uint64_t requests, errors, joined, bytes_in, bytes_out;
	uint64_t phases_ns[PHASE_COUNT], kinds_ns[ROLLUP_KIND_COUNT];
	struct histogram total;
};

struct series {
	struct query_span span;
	uint64_t step_s;
	struct point *points; /* owned */
	size_t count;
	struct rollup *window; /* scratch */
};

/* The shortest step that the answer can hold and the store still has. */
static uint64_t
step_for(const struct query_span *span, uint64_t now_s)
{
	static const uint64_t steps_s[] = {10,   20,   30,   60,    120,   300,   600,
	                                   1800, 3600, 7200, 21600, 43200, 86400, 604800};
	uint64_t age_s = now_s > span->from_s ? now_s - span->from_s : 0;
	uint64_t least_s = age_s > STORE_MINUTE_S ? 3600 : age_s > STORE_FINE_S ? 60 : 10;
	size_t last = sizeof(steps_s) / sizeof(steps_s[0]) - 1;
	for (size_t i = 0; i < last; i++)
		if (steps_s[i] >= least_s &&
		    (span->to_s - span->from_s) / steps_s[i] < QUERY_POINTS_MAX)
			return steps_s[i];
	return steps_s[last];
}

static void
window_add(void *arg, const struct rollup_window *window)
{
	struct series *s = arg;
	size_t at = (size_t)((window->start_ms / 1000 - s->span.from_s) / s->step_s);
	struct rollup *r = s->window;
	rollup_reset(r);
	if (at >= s->count || rollup_decode(window->bytes, window->length, r) != 0)
		return;
	struct point *p = &s->points[at];
	p->requests += r->requests;
	p->errors += r->errors;
	p->joined += r->joined;
	p->bytes_in += r->bytes_in;
	p->bytes_out += r->bytes_out;
	for (size_t i = 0; i < PHASE_COUNT; i++)
		p->phases_ns[i] += r->phases_ns[i];
	for (size_t i = 0; i < r->row_count; i++)
		p->kinds_ns[r->rows[i].key.kind] += r->rows[i].ns;
	histogram_merge(&p->total, &r->total);
}

static json_t *
number(uint64_t value)
{
	return json_integer((json_int_t)value);
}

static json_t *
bands(const struct histogram *h)
{
	json_t *array = json_array();
	for (unsigned band = 0; band < ROLLUP_BANDS; band++) {
		uint64_t low, high, count = 0;
		for (unsigned i = 0; i < ROLLUP_BAND_BUCKETS; i++)
			count += h->buckets[band * ROLLUP_BAND_BUCKETS + i];
		if (count == 0)
			continue;
		rollup_band_edges(band, &low, &high);
		high = high < h->max_ns || high != UINT64_MAX ? high : h->max_ns;
		json_array_append_new(array, json_pack("[III]", (json_int_t)low, (json_int_t)high,
		                                       (json_int_t)count));
	}
	return array;
}

static json_t *
phases(const struct point *p)
{
	json_t *object = json_object();
	for (unsigned i = 0; i < PHASE_COUNT; i++)
		json_object_set_new(object, phase_name(i), number(p->phases_ns[i]));
	return object;
}

static json_t *
kinds(const struct point *p)
{
	json_t *object = json_object();
	for (unsigned i = 0; i <= ROLLUP_NO_PROFILE; i++)
		json_object_set_new(object, rollup_kind_name(i), number(p->kinds_ns[i]));
	return object;
}

static json_t *
point_object(const struct series *s, size_t at)
{
	static const struct {
		const char *name;
		double q;
	} quantiles[] = {{"p50_ns", 0.5}, {"p95_ns", 0.95}, {"p99_ns", 0.99}, {"max_ns", 1}};
	const struct point *p = &s->points[at];
	json_t *object =
	    json_pack("{s:I, s:I, s:I, s:I}", "t", (json_int_t)(s->span.from_s + at * s->step_s),
	              "requests", (json_int_t)p->requests, "errors", (json_int_t)p->errors,
	              "joined", (json_int_t)p->joined);
	for (size_t i = 0; i < 4; i++)
		json_object_set_new(object, quantiles[i].name,
		                    p->requests > 0
		                        ? number(histogram_quantile(&p->total, quantiles[i].q))
		                        : json_null());
	json_object_set_new(object, "bytes_in", number(p->bytes_in));
	json_object_set_new(object, "bytes_out", number(p->bytes_out));
	json_object_set_new(object, "phases_ns", phases(p));
	json_object_set_new(object, "kinds_ns", kinds(p));
	json_object_set_new(object, "bands", bands(&p->total));
	return object;
}

/* Deploys and incidents are the loop's: it gave their members along. */
static void
add_events(json_t *root, const struct text *events)
{
	json_t *members =
	    events->length > 0 ? json_loadb(events->data, events->length, 0, NULL) : NULL;
	json_object_set_new(root, "deploys", json_array());
	json_object_set_new(root, "incidents", json_array());
	if (members != NULL)
		json_object_update(root, members);
	json_decref(members);
}

static void
answer(struct query_job *job, const struct query_reader *reader, const struct series *s)
{
	json_t *points = json_array();
	for (size_t i = 0; i < s->count; i++)
		json_array_append_new(points, point_object(s, i));
	json_t *root =
	    json_pack("{s:I, s:s, s:I, s:I, s:I, s:o}", "id", (json_int_t)job->history.route_id,
	              "route", reader->route, "from", (json_int_t)s->span.from_s, "to",
	              (json_int_t)s->span.to_s, "step_s", (json_int_t)s->step_s, "points", points);
	add_events(root, &job->history.events);
	query_answer_json(job, 200, root);
}

int
query_answer_series(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns)
{
	struct query_reader reader;
	uint64_t now_s = now_wall_ns / NS_PER_S;
	bool found;
	int result = query_reader_open(&reader, db, job, now_s, &found);
	struct series s = {.span = job->history.span, .step_s = job->history.step_s};
	if (s.step_s == 0)
		s.step_s = step_for(&s.span, now_s);
	s.span.from_s -= s.span.from_s % s.step_s;
	s.count = (size_t)((s.span.to_s - s.span.from_s + s.step_s - 1) / s.step_s);
	if (result == SQLITE_OK && found) {
		s.points = xcalloc(s.count + 1, sizeof(*s.points));
		s.window = rollup_new();
		result = query_reader_windows(&reader, &s.span, window_add, &s);
		rollup_free(s.window);
		if (result == SQLITE_OK)
			answer(job, &reader, &s);
		free(s.points);
	} else if (result == SQLITE_OK) {
		query_answer_error(job, 404, "not_found", "no route has this id");
	}
	query_reader_close(&reader);
	return result;
}
