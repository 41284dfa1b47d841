/* Rows of routes. */
#include "top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "client_tools.h"

#define RATE_OVER_S 5.0 /* rates are smoothed over so long */

struct top_track {
	json_int_t id;
	uint64_t count, at_ns; /* of the running minute, when it was looked at */
	double rate;           /* < 0: not known yet */
	uint64_t noted_ns;     /* 0: what it is made of is not known */
	char main[TOP_TEXT];
	UT_hash_handle hh;
};

static struct top_track *
track_of(struct top_model *model, json_int_t id)
{
	struct top_track *track;

	HASH_FIND(hh, model->tracks, &id, sizeof(id), track);
	if (track == NULL) {
		track = xcalloc(1, sizeof(*track));
		track->id = id;
		track->rate = -1;
		HASH_ADD(hh, model->tracks, id, sizeof(track->id), track);
	}
	return track;
}

/* A count below the one before belongs to the next minute, or to a gateway that was started anew:
 * what came in between is not known, so the rate stays. */
static void
track_count(struct top_track *track, uint64_t count, uint64_t now_ns)
{
	double seconds = (double)(now_ns - track->at_ns) / (double)NS_PER_S;

	if (track->at_ns != 0 && seconds > 0 && count >= track->count) {
		double rate = (double)(count - track->count) / seconds;
		double weight = seconds < RATE_OVER_S ? seconds / RATE_OVER_S : 1;

		track->rate = track->rate < 0 ? rate : track->rate + weight * (rate - track->rate);
	}
	track->count = count;
	track->at_ns = now_ns;
}

void
top_count(struct top_model *model, const json_t *minute, uint64_t now_ns)
{
	struct top_track *track, *next;
	const json_t *route;
	size_t i;

	json_array_foreach(json_object_get(minute, "routes"), i, route)
	    track_count(track_of(model, json_integer_value(json_object_get(route, "id"))),
	                client_number(route, "requests"), now_ns);
	HASH_ITER(hh, model->tracks, track, next)
	{
		if (track->at_ns != now_ns && track->at_ns != 0)
			track_count(track, 0, now_ns); /* nothing in this minute yet */
		if (track->at_ns == now_ns && track->count == 0 && track->rate > 0)
			track->rate *= 0.8; /* it fades */
	}
}

void
top_drop_character(char *text)
{
	size_t n = strlen(text);

	while (n > 0 && ((unsigned char)text[n - 1] & 0xc0) == 0x80)
		n--; /* the rest of one of several bytes */
	text[n > 0 ? n - 1 : 0] = '\0';
}

void
top_note(struct top_model *model, json_int_t id, const json_t *flame, uint64_t now_ns)
{
	struct top_track *track = track_of(model, id);
	const json_t *row = json_array_get(json_object_get(flame, "rows"), 0);
	const char *cause = json_string_value(json_object_get(row, "cause"));
	const char *frame = json_string_value(json_object_get(row, "frame"));
	double whole = client_real(json_object_get(flame, "tree"), "ns");
	int length;

	track->noted_ns = now_ns;
	if (row == NULL)
		return;
	length =
	    snprintf(track->main, sizeof(track->main), "%2.0f%% %s%s%s%s%s",
	             whole > 0 ? 100 * client_real(row, "ns") / whole : 0, client_text(row, "kind"),
	             cause != NULL ? " " : "", cause != NULL ? cause : "", frame != NULL ? " " : "",
	             frame != NULL ? frame : "");
	if (length >= (int)sizeof(track->main))
		top_drop_character(track->main); /* JSON takes whole ones only */
}

static void
row_fill(struct top_model *model, struct top_row *row, const json_t *route)
{
	const json_t *learning = json_object_get(route, "learning"), *phase;
	const struct top_track *track;
	const char *name;

	row->id = json_integer_value(json_object_get(route, "id"));
	track = track_of(model, row->id);
	snprintf(row->route, sizeof(row->route), "%s", client_text(route, "route"));
	snprintf(row->state, sizeof(row->state), "%s", client_text(route, "state"));
	snprintf(row->main, sizeof(row->main), "%s", track->main);
	row->requests = client_number(route, "requests");
	row->errors = client_number(route, "errors");
	row->p50_ns = client_number(route, "p50_ns");
	row->p95_ns = client_number(route, "p95_ns");
	row->p99_ns = client_number(route, "p99_ns");
	row->rate = track->rate;
	json_object_foreach(json_object_get(route, "phases_mean_ns"), name, phase) row->time_ns +=
	    json_number_value(phase) * (double)row->requests;
	row->learned = client_real(learning, "need") > 0
	                   ? client_real(learning, "have") / client_real(learning, "need")
	                   : -1;
}

/* --- order ------------------------------------------------------------------ */

static double
key_of(const struct top_row *row, enum top_sort sort)
{
	switch (sort) {
	case TOP_RATE:
		return row->rate;
	case TOP_P95:
		return (double)row->p95_ns;
	case TOP_ERRORS:
		return (double)row->errors;
	case TOP_TIME:
	case TOP_SORTS:
		break;
	}
	return row->time_ns;
}

struct order {
	enum top_sort sort;
	int sign;
};

static int
compare(const void *a, const void *b, void *arg)
{
	const struct top_row *x = a, *y = b;
	const struct order *order = arg;
	double p = key_of(x, order->sort), q = key_of(y, order->sort);

	if (p != q)
		return p < q ? order->sign : -order->sign;
	return strcmp(x->route, y->route);
}

void
top_fill(struct top_model *model, const json_t *routes, enum top_sort sort, bool reverse,
         const char *filter)
{
	const json_t *array = json_object_get(routes, "routes"), *route;
	struct order order = {sort, reverse ? -1 : 1};
	double time_ns = 0;
	size_t i;

	free(model->rows);
	model->all = json_array_size(array);
	model->rows = xcalloc(model->all + 1, sizeof(*model->rows));
	model->count = 0;
	model->errors = model->requests = 0;
	json_array_foreach(array, i, route)
	{
		struct top_row *row = &model->rows[model->count];

		*row = (struct top_row){0};
		row_fill(model, row, route);
		time_ns += row->time_ns;
		model->errors += (double)row->errors;
		model->requests += (double)row->requests;
		if (*filter == '\0' || strcasestr(row->route, filter) != NULL)
			model->count++;
	}
	for (i = 0; i < model->count; i++)
		model->rows[i].share = time_ns > 0 ? model->rows[i].time_ns / time_ns : 0;
	qsort_r(model->rows, model->count, sizeof(*model->rows), compare, &order);
}

json_int_t
top_oldest(const struct top_model *model, size_t first, size_t count)
{
	const struct top_track *oldest = NULL, *track;

	for (size_t i = first; i < model->count && i < first + count; i++) {
		HASH_FIND(hh, model->tracks, &model->rows[i].id, sizeof(track->id), track);
		if (track != NULL && (oldest == NULL || track->noted_ns < oldest->noted_ns))
			oldest = track;
	}
	return oldest != NULL ? oldest->id : 0;
}

void
top_free(struct top_model *model)
{
	struct top_track *track, *next;

	HASH_ITER(hh, model->tracks, track, next)
	{
		HASH_DEL(model->tracks, track);
		free(track);
	}
	free(model->rows);
	*model = (struct top_model){0};
}

/* --- names, JSON ------------------------------------------------------------------ */

static const char *const sort_names[TOP_SORTS] = {"time", "rate", "p95", "errors"};

const char *
top_sort_name(enum top_sort sort)
{
	return sort_names[sort];
}

enum top_sort
top_sort_of(const char *name)
{
	for (unsigned i = 0; i < TOP_SORTS; i++)
		if (strcmp(name, sort_names[i]) == 0)
			return (enum top_sort)i;
	return TOP_SORTS;
}

/* Processes of a role, and how long the first of them has been there. */
static json_int_t
processes(const json_t *status, const char *role, json_int_t *ret_uptime_s)
{
	const json_t *process;
	json_int_t count = 0;
	size_t i;

	json_array_foreach(json_object_get(status, "processes"), i, process)
	{
		if (strcmp(client_text(process, "role"), role) != 0)
			continue;
		if (count++ == 0)
			*ret_uptime_s = (json_int_t)client_number(process, "uptime_s");
	}
	return count;
}

void
top_sum_up(const json_t *status, struct top_status *ret)
{
	const json_t *lately = json_object_get(status, "lately");
	const json_t *ratio = json_object_get(lately, "joined_ratio"), *lost;
	json_int_t worker_s, most = 0;
	const char *name;

	*ret = (struct top_status){.version = client_text(status, "version")};
	processes(status, "supervisor", &ret->uptime_s);
	ret->workers = processes(status, "worker", &worker_s);
	ret->hooks = (json_int_t)json_array_size(json_object_get(status, "hooks"));
	ret->requests_per_s = client_real(lately, "requests_per_s");
	ret->joined_ratio = json_is_number(ratio) ? json_number_value(ratio) : -1;
	json_object_foreach(json_object_get(status, "drops"), name, lost)
	{
		ret->drops += json_integer_value(lost);
		if (json_integer_value(lost) > most) {
			most = json_integer_value(lost);
			ret->most_dropped = name;
		}
	}
}

static json_t *
status_json(const json_t *status)
{
	struct top_status sum;

	if (status == NULL)
		return json_null();
	top_sum_up(status, &sum);
	return json_pack("{s:s, s:I, s:f, s:o, s:I, s:I, s:I}", "version", sum.version, "uptime_s",
	                 sum.uptime_s, "requests_per_s", sum.requests_per_s, "joined_ratio",
	                 sum.joined_ratio < 0 ? json_null() : json_real(sum.joined_ratio), "drops",
	                 sum.drops, "workers", sum.workers, "hook_processes", sum.hooks);
}

json_t *
top_json(const struct top_model *model, uint64_t window_s, const json_t *status)
{
	json_t *array = json_array();

	for (size_t i = 0; i < model->count; i++) {
		const struct top_row *row = &model->rows[i];

		json_array_append_new(
		    array,
		    json_pack("{s:I, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:s}", "id",
		              row->id, "route", row->route, "requests_per_s",
		              row->rate < 0 ? json_null() : json_real(row->rate), "requests",
		              (json_int_t)row->requests, "errors", (json_int_t)row->errors,
		              "p50_ns", (json_int_t)row->p50_ns, "p95_ns", (json_int_t)row->p95_ns,
		              "p99_ns", (json_int_t)row->p99_ns, "time_share", row->share, "main",
		              row->main, "state", row->state));
	}
	return json_pack("{s:I, s:o, s:o}", "window_s", (json_int_t)window_s, "gateway",
	                 status_json(status), "routes", array);
}
