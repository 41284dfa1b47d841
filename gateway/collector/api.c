/* Endpoints that read: parameters to query jobs, what is pending beside them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include "base/xmem.h"
#include "collector/aggregate.h"
#include "collector/api.h"
#include "collector/api_tools.h"
#include "collector/query.h"
#include "collector/render.h"
#include "collector/reply.h"
#include "collector/watch_show.h"
#include "model/trace_context.h"

#define LIMIT_DEFAULT 50

void
api_answered(void *arg, struct query_job *job)
{
	(void)arg;
	reply_body(job->arg, job->status, job->type, &job->body);
	query_job_free(job);
}

/* --- what is pending -------------------------------------------------------------------- */

/* Exchanges that wait and fit the question. Borrowed from the correlator until the loop's turn
 * ends. */
struct pending {
	const struct service *service;
	const struct query_job *job;
	struct pending_entry {
		const struct exchange_record *record;
		size_t size;
	} * entries; /* owned */
	size_t count, room;
};

static bool
is_of_one(const struct query_job *job)
{
	return job->kind == QUERY_REQUEST || job->kind == QUERY_PROFILE;
}

static bool
pending_fits(const struct pending *p, const struct exchange_record *record, size_t size)
{
	char route[ROUTE_NAME_MAX + 1];
	if (is_of_one(p->job))
		return memcmp(record->trace_id, p->job->key.trace_id, TRACE_ID_SIZE) == 0;
	if (!p->job->has_route)
		return true;
	service_route_name(p->service, record, size, NULL, route);
	return strcmp(route, p->job->route) == 0;
}

static bool
on_waiting(void *arg, const struct exchange_record *record, size_t size)
{
	struct pending *p = arg;
	if (!pending_fits(p, record, size))
		return true;
	if (p->count == p->room) {
		p->room = p->room > 0 ? 2 * p->room : 64;
		p->entries = xrealloc(p->entries, p->room, sizeof(*p->entries));
	}
	p->entries[p->count++] = (struct pending_entry){record, size};
	return true;
}

static int
latest_first(const void *a, const void *b)
{
	const struct pending_entry *x = a, *y = b;
	uint64_t p = x->record->start_wall_ns, q = y->record->start_wall_ns;
	return (p < q) - (p > q);
}

static int
slowest_first(const void *a, const void *b)
{
	const struct pending_entry *x = a, *y = b;
	const uint64_t *p = x->record->marks_ns, *q = y->record->marks_ns;
	uint64_t m = p[MARK_END] - p[MARK_START], n = q[MARK_END] - q[MARK_START];
	return m == n ? latest_first(a, b) : (m < n) - (m > n);
}

static void
render_pending(const struct pending *p, size_t limit, struct text *out)
{
	char route[ROUTE_NAME_MAX + 1];
	text_puts(out, "[");
	for (size_t i = 0; i < p->count && i < limit; i++) {
		const struct pending_entry *entry = &p->entries[i];
		text_puts(out, i > 0 ? "," : "");
		service_route_name(p->service, entry->record, entry->size, NULL, route);
		if (is_of_one(p->job))
			render_exchange(out, service_config_of(p->service, entry->record),
			                entry->record, entry->size, route, NULL, NULL,
			                MISSING_PENDING);
		else
			render_summary(out, entry->record, route, false);
	}
	text_puts(out, "]");
}

/* Only as many are rendered as the answer can hold: thousands may wait. */
static void
add_pending(const struct service *service, struct query_job *job)
{
	struct pending pending = {.service = service, .job = job};
	size_t limit = is_of_one(job) ? QUERY_OTHERS_MAX : job->limit;
	correlator_each_waiting(service->correlator, on_waiting, &pending);
	if (pending.count > 1)
		qsort(pending.entries, pending.count, sizeof(*pending.entries),
		      job->slowest ? slowest_first : latest_first);
	render_pending(&pending, limit, &job->pending);
	free(pending.entries);
}

/* --- endpoints ---------------------------------------------------------------------------- */

void
api_request(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct evkeyvalq query;
	struct profile_key key;
	bool export =
	    strlen(rest) > 2 * TRACE_ID_SIZE && strcmp(rest + 2 * TRACE_ID_SIZE, "/profile") == 0;
	if ((strlen(rest) != 2 * TRACE_ID_SIZE && !export) ||
	    hex_parse(rest, key.trace_id, TRACE_ID_SIZE) != 0) {
		reply_error(request, 400, "bad_trace_id", "a trace ID is 32 lower-case hex digits",
		            NULL);
		return;
	}
	if (api_parameters(request, &query) != 0)
		return;
	const char *span = evhttp_find_header(&query, "span");
	bool bad = span != NULL && (strlen(span) != 2 * SPAN_ID_SIZE ||
	                            hex_parse(span, key.span_id, SPAN_ID_SIZE) != 0);
	bool has_span = span != NULL;
	enum export_format format = export_format(evhttp_find_header(&query, "format"));
	evhttp_clear_headers(&query);
	if (bad) {
		reply_error(request, 400, "bad_span_id", "a span ID is 16 lower-case hex digits",
		            NULL);
		return;
	}
	if (export && format == EXPORT_FORMATS) {
		reply_error(request, 400, "bad_query",
		            "format is json, speedscope, collapsed or chrome", NULL);
		return;
	}
	struct query_job *job = xcalloc(1, sizeof(*job));
	job->kind = export ? QUERY_PROFILE : QUERY_REQUEST;
	job->format = format;
	job->key = key;
	job->has_span = has_span;
	add_pending(service, job);
	api_submit(service, request, job);
}

/* Fills the job from the parameters. Returns null, or what is wrong. */
static const char *
requests_parameters(struct evkeyvalq *query, struct query_job *job)
{
	const char *route = evhttp_find_header(query, "route");
	const char *sort = evhttp_find_header(query, "sort");
	int64_t limit =
	    api_integer(evhttp_find_header(query, "limit"), LIMIT_DEFAULT, 1, QUERY_LIMIT_MAX);
	if (limit < 0)
		return "limit is a number of 1 to 1000";
	if (sort != NULL && strcmp(sort, "slowest") != 0 && strcmp(sort, "latest") != 0)
		return "sort is slowest or latest";
	if (route != NULL && strlen(route) > ROUTE_NAME_MAX)
		return "route is too long";
	job->limit = (uint32_t)limit;
	job->slowest = sort != NULL && strcmp(sort, "slowest") == 0;
	job->has_route = route != NULL && route[0] != '\0';
	if (job->has_route)
		snprintf(job->route, sizeof(job->route), "%s", route);
	return NULL;
}

void
api_requests(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct evkeyvalq query;
	(void)rest;
	if (api_parameters(request, &query) != 0)
		return;
	struct query_job *job = xcalloc(1, sizeof(*job));
	job->kind = QUERY_REQUESTS;
	const char *wrong = requests_parameters(&query, job);
	evhttp_clear_headers(&query);
	if (wrong != NULL) {
		query_job_free(job);
		reply_error(request, 400, "bad_query", wrong, NULL);
		return;
	}
	add_pending(service, job);
	api_submit(service, request, job);
}

void
api_routes(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct evkeyvalq query;
	(void)rest;
	if (api_parameters(request, &query) != 0)
		return;
	uint64_t window_s = api_window_s(evhttp_find_header(&query, "window"));
	evhttp_clear_headers(&query);
	if (window_s == 0) {
		reply_error(request, 400, "bad_query",
		            "window is like 90s, 15m, 6h or 2d, 31d at most", NULL);
		return;
	}
	aggregate_flush(service->aggregate);
	struct query_job *job = xcalloc(1, sizeof(*job));
	job->kind = QUERY_ROUTES;
	job->window_s = window_s;
	watch_show_routes(service, &job->pending);
	api_submit(service, request, job);
}

void
api_healthz(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct text body = {0};
	(void)service;
	(void)rest;
	text_puts(&body, "{\"status\":\"ok\"}");
	reply_json(request, 200, &body);
	text_free(&body);
}

static bool
worker_running(const struct board *board)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (atomic_load_explicit(&board->workers[i].state, memory_order_acquire) ==
		    BOARD_RUNNING)
			return true;
	return false;
}

void
api_readyz(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct text body = {0};
	(void)rest;
	if (service->stopping ||
	    atomic_load_explicit(&service->board->stopping, memory_order_acquire) != 0) {
		reply_error(request, 503, "stopping", "the gateway is stopping", NULL);
		return;
	}
	if (!worker_running(service->board)) {
		reply_error(request, 503, "no_worker", "no worker is running", NULL);
		return;
	}
	text_puts(&body, "{\"status\":\"ready\"}");
	reply_json(request, 200, &body);
	text_free(&body);
}
