/* GET /api/v1/routes/{id}/series and /flame. */
#include <stdlib.h>
#include <string.h>
#include <event2/http.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/api.h"
#include "collector/api_tools.h"
#include "collector/history_fill.h"
#include "collector/reply.h"
#include "collector/watch_show.h"
#include "collector/store.h"

#define SPAN_DEFAULT_S 3600
#define SPAN_MAX_S (400ll * 86400)
#define TIME_MAX_S (1ll << 40)

struct wrong {
	const char *message, *pointer; /* message null = nothing */
};

static uint64_t
time_of(struct evkeyvalq *query, const char *key, uint64_t missing, const char *pointer,
        struct wrong *wrong)
{
	int64_t value =
	    api_integer(evhttp_find_header(query, key), (int64_t)missing, 0, TIME_MAX_S);
	if (value < 0)
		*wrong = (struct wrong){"a time is in whole unix seconds", pointer};
	return value < 0 ? 0 : (uint64_t)value;
}

static void
check_span(const struct query_span *span, const char *pointer, struct wrong *wrong)
{
	if (wrong->message != NULL)
		return;
	if (span->from_s >= span->to_s)
		*wrong = (struct wrong){"a span begins before it ends", pointer};
	else if (span->to_s - span->from_s > SPAN_MAX_S)
		*wrong = (struct wrong){"a span is 400 days at most", pointer};
}

static void
read_span(struct evkeyvalq *query, struct query_history *h, struct wrong *wrong)
{
	uint64_t now_s = clock_wall_ns() / NS_PER_S + 1;
	h->span.to_s = time_of(query, "to", now_s, "/to", wrong);
	uint64_t hour_ago_s = h->span.to_s > SPAN_DEFAULT_S ? h->span.to_s - SPAN_DEFAULT_S : 0;
	h->span.from_s = time_of(query, "from", hour_ago_s, "/from", wrong);
	check_span(&h->span, "/from", wrong);
}

static void
read_baseline(struct evkeyvalq *query, struct query_history *h, struct wrong *wrong)
{
	bool from = evhttp_find_header(query, "baseline_from") != NULL;
	bool to = evhttp_find_header(query, "baseline_to") != NULL;
	if (!from && !to)
		return;
	h->has_before = true;
	h->before.from_s = time_of(query, "baseline_from", 0, "/baseline_from", wrong);
	h->before.to_s = time_of(query, "baseline_to", 0, "/baseline_to", wrong);
	if (wrong->message == NULL && from != to)
		*wrong = (struct wrong){"a baseline has baseline_from and baseline_to",
		                        from ? "/baseline_to" : "/baseline_from"};
	check_span(&h->before, "/baseline_from", wrong);
}

static void
read_step(struct evkeyvalq *query, struct query_history *h, struct wrong *wrong)
{
	int64_t step_s =
	    api_integer(evhttp_find_header(query, "step"), 0, 10, QUERY_POINTS_MAX * 86400ll);
	if (wrong->message != NULL)
		return;
	if (step_s < 0 || step_s % 10 != 0)
		*wrong = (struct wrong){"step is in seconds, a multiple of 10", "/step"};
	else if (step_s > 0 &&
	         (h->span.to_s - h->span.from_s) / (uint64_t)step_s >= QUERY_POINTS_MAX)
		*wrong =
		    (struct wrong){"at most 720 points: a longer step or a shorter span", "/step"};
	h->step_s = step_s > 0 ? (uint64_t)step_s : 0;
}

/* "12/series": the kind of question, and the route's ID. Returns false where it is neither. */
static bool
read_path(const char *rest, struct query_job *job)
{
	char *end;
	if (*rest < '1' || *rest > '9' || strlen(rest) > 32)
		return false;
	job->history.route_id = strtoll(rest, &end, 10);
	if (strcmp(end, "/series") == 0)
		job->kind = QUERY_SERIES;
	else if (strcmp(end, "/flame") == 0)
		job->kind = QUERY_FLAME;
	else
		return false;
	return true;
}

static void
fill(struct service *service, struct query_job *job, size_t route)
{
	const struct query_history *h = &job->history;
	history_fill(service, job, route);
	if (job->kind == QUERY_SERIES)
		watch_show_events(service, route, (int64_t)h->span.from_s, (int64_t)h->span.to_s,
		                  &job->history.events);
}

void
api_route(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct evkeyvalq query;
	struct wrong wrong = {NULL, NULL};
	struct query_job *job = xcalloc(1, sizeof(*job));
	if (!read_path(rest, job)) {
		query_job_free(job);
		reply_error(request, 404, "not_found",
		            "routes have /api/v1/routes/{id}/series and /flame", NULL);
		return;
	}
	if (api_parameters(request, &query) != 0) {
		query_job_free(job);
		return;
	}
	read_span(&query, &job->history, &wrong);
	if (job->kind == QUERY_FLAME)
		read_baseline(&query, &job->history, &wrong);
	else
		read_step(&query, &job->history, &wrong);
	evhttp_clear_headers(&query);
	if (wrong.message != NULL) {
		query_job_free(job);
		reply_error(request, 400, "bad_query", wrong.message, wrong.pointer);
		return;
	}
	size_t route = store_route_index(service->store, job->history.route_id);
	if (route < routes_count(service->routes))
		fill(service, job, route);
	api_submit(service, request, job);
}
