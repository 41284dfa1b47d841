/* GET /api/v1/routes: what every route did in a window. Written as text: there may be a thousand
 * routes with sixty parts each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/query_answer.h"
#include "collector/route_windows.h"
#include "model/phase.h"
#include "model/route.h"

/* What the loop gave along of one route. Borrowed from the job. */
struct told {
	const char *name, *members;
};

/* One route's object in `objects`. */
struct shown {
	uint64_t requests;
	size_t name, offset, length; /* name: in `names` */
};

struct answer {
	sqlite3_stmt *routes; /* names by ID; null = no store */
	int64_t id;           /* of the row it is at; INT64_MAX = the end */
	struct text names, objects;
	struct told *told;   /* owned */
	struct shown *shown; /* owned */
	size_t told_count, shown_count, room;
};

/* --- what the loop gave ----------------------------------------------------------------- */

static int
by_name(const void *a, const void *b)
{
	const struct told *x = a, *y = b;
	return strcmp(x->name, y->name);
}

static void
told_read(struct answer *a, const struct text *pending)
{
	size_t count = 0;
	for (size_t i = 0; i < pending->length; i++)
		count += pending->data[i] == '\0';
	a->told = xcalloc(count / 2 + 1, sizeof(*a->told));
	for (size_t at = 0; a->told_count < count / 2; a->told_count++) {
		struct told *told = &a->told[a->told_count];
		told->name = pending->data + at;
		at += strlen(told->name) + 1;
		told->members = pending->data + at;
		at += strlen(told->members) + 1;
	}
	qsort(a->told, a->told_count, sizeof(*a->told), by_name);
}

/* Of routes without a window since the start the detector knows nothing. */
static const char *
told_of(const struct answer *a, const char *name)
{
	struct told key = {.name = name};
	const struct told *told = bsearch(&key, a->told, a->told_count, sizeof(*a->told), by_name);
	return told != NULL ? told->members
	                    : "\"state\":\"learning\",\"learning\":null,\"change\":null";
}

/* --- names -------------------------------------------------------------------------------- */

static void
next_name(struct answer *a)
{
	bool row = a->routes != NULL && sqlite3_step(a->routes) == SQLITE_ROW;
	a->id = row ? sqlite3_column_int64(a->routes, 0) : INT64_MAX;
}

/* Routes come in the order of their IDs, like the names. Null: it has none (any more). */
static const char *
name_of(struct answer *a, int64_t id)
{
	while (a->id < id)
		next_name(a);
	return a->id == id ? (const char *)sqlite3_column_text(a->routes, 1) : NULL;
}

/* --- objects ------------------------------------------------------------------------------- */

static void
put_number(struct text *out, const char *key, uint64_t value)
{
	text_puts(out, ",\"");
	text_puts(out, key);
	text_puts(out, "\":");
	text_u64(out, value);
}

/* As a JSON real, also where it is whole. */
static void
put_ratio(struct text *out, uint64_t part, uint64_t whole)
{
	text_puts(out, ",\"joined_ratio\":");
	if (whole == 0)
		text_puts(out, "null");
	else if (part == whole)
		text_puts(out, "1.0");
	else if (part == 0)
		text_puts(out, "0.0");
	else
		text_printf(out, "%.17g", (double)part / (double)whole);
}

static void
put_phases(struct text *out, const struct route_window *route)
{
	text_puts(out, ",\"phases_mean_ns\":{");
	for (unsigned i = 0; i < PHASE_COUNT; i++) {
		text_puts(out, i > 0 ? ",\"" : "\"");
		text_puts(out, phase_name(i));
		text_puts(out, "\":");
		text_u64(out, route->phases_ns[i] / route->requests);
	}
	text_puts(out, "}");
}

static void
put_series(struct text *out, const struct route_window *route)
{
	text_puts(out, ",\"p95_series\":[");
	for (size_t i = 0; i < route->parts; i++) {
		text_puts(out, i > 0 ? "," : "");
		if (route->p95_ns[i] == UINT64_MAX)
			text_puts(out, "null");
		else
			text_u64(out, route->p95_ns[i]);
	}
	text_puts(out, "]");
}

static void
put_object(struct text *out, const struct route_window *route, const char *name)
{
	text_puts(out, "{\"id\":");
	text_u64(out, (uint64_t)route->id);
	text_puts(out, ",\"route\":");
	text_json(out, name, strlen(name));
	put_number(out, "requests", route->requests);
	put_number(out, "errors", route->errors);
	put_number(out, "p50_ns", histogram_quantile(route->total, 0.50));
	put_number(out, "p95_ns", histogram_quantile(route->total, 0.95));
	put_number(out, "p99_ns", histogram_quantile(route->total, 0.99));
	put_number(out, "max_ns", route->total->max_ns);
	put_phases(out, route);
	put_ratio(out, route->joined, route->sent);
	put_series(out, route);
}

static void
on_route(void *arg, const struct route_window *route)
{
	struct answer *a = arg;
	const char *name = name_of(a, route->id);
	if (name == NULL)
		return;
	if (a->shown_count == a->room) {
		a->room = a->room > 0 ? 2 * a->room : 256;
		a->shown = xrealloc(a->shown, a->room, sizeof(*a->shown));
	}
	struct shown *shown = &a->shown[a->shown_count++];
	*shown = (struct shown){route->requests, a->names.length, a->objects.length, 0};
	text_add(&a->names, name, strlen(name) + 1);
	put_object(&a->objects, route, name);
	text_puts(&a->objects, ",");
	text_puts(&a->objects, told_of(a, name));
	text_puts(&a->objects, "}");
	shown->length = a->objects.length - shown->offset;
}

static int
busiest_first(const void *a, const void *b, void *arg)
{
	const struct shown *x = a, *y = b;
	const struct text *names = arg;
	return x->requests == y->requests
	           ? strcmp(names->data + x->name, names->data + y->name)
	           : (x->requests < y->requests) - (x->requests > y->requests);
}

static void
write_answer(struct answer *a, struct query_job *job, uint64_t minutes)
{
	struct text *out = &job->body;
	if (a->shown_count > 1)
		qsort_r(a->shown, a->shown_count, sizeof(*a->shown), busiest_first, &a->names);
	text_puts(out, "{\"routes\":[");
	for (size_t i = 0; i < a->shown_count; i++) {
		text_puts(out, i > 0 ? "," : "");
		text_add(out, a->objects.data + a->shown[i].offset, a->shown[i].length);
	}
	text_printf(out, "],\"window_s\":%llu}", (unsigned long long)minutes * 60);
	job->status = 200;
	job->type = NULL;
	if (!out->failed && !a->objects.failed && !a->names.failed)
		return;
	text_free(out);
	query_answer_error(job, 500, "internal", "the answer cannot be written");
}

int
query_answer_routes(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns)
{
	struct route_windows *windows = job->windows != NULL ? job->windows : route_windows_new();
	uint64_t minutes = route_windows_minutes(job->window_s / 60 + (job->window_s % 60 > 0));
	struct answer a = {0};
	int result = SQLITE_OK;
	told_read(&a, &job->pending);
	if (db != NULL)
		result = sqlite3_prepare_v2(db, "SELECT id, name FROM routes ORDER BY id", -1,
		                            &a.routes, NULL);
	if (result == SQLITE_OK)
		result = route_windows_read(windows, db, minutes, now_wall_ns / (60 * NS_PER_S),
		                            &job->unwritten, on_route, &a);
	if (result == SQLITE_OK)
		write_answer(&a, job, minutes);
	sqlite3_finalize(a.routes);
	text_free(&a.names);
	text_free(&a.objects);
	free(a.told);
	free(a.shown);
	if (windows != job->windows)
		route_windows_free(windows);
	return result;
}
