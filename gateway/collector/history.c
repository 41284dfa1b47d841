/* Asking the query thread about a route's past. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/history.h"
#include "collector/history_fill.h"
#include "collector/query.h"
#include "collector/spans.h"

struct asked {
	void (*done)(void *arg, struct history_answer *answer);
	void *arg;
};

void
history_answer_free(struct history_answer *answer)
{
	if (answer == NULL)
		return;
	rollup_free(answer->before);
	rollup_free(answer->after);
	cause_free(answer->cause);
	free(answer);
}

static void
fill_span(const struct service *service, struct query_history *h, size_t route,
          const struct query_span *span)
{
	spans_pack(service->spans, route, span->from_s * 1000, span->to_s * 1000, &h->saved,
	           &h->unsaved);
}

void
history_fill(const struct service *service, struct query_job *job, size_t route)
{
	struct query_history *h = &job->history;
	snprintf(job->route, sizeof(job->route), "%s", routes_name(service->routes, route));
	/* What lies in both spans goes along once. */
	struct query_span all = h->span;
	if (h->has_before && h->before.from_s < all.to_s && h->before.to_s > all.from_s) {
		all.from_s = h->before.from_s < all.from_s ? h->before.from_s : all.from_s;
		all.to_s = h->before.to_s > all.to_s ? h->before.to_s : all.to_s;
		fill_span(service, h, route, &all);
	} else {
		fill_span(service, h, route, &all);
		if (h->has_before)
			fill_span(service, h, route, &h->before);
	}
	spans_names(service->spans, route, &h->names);
}

static void
on_compared(void *arg, struct query_job *job)
{
	struct asked *asked = arg;
	struct history_answer *answer = job->history.compared;
	job->history.compared = NULL;
	query_job_free(job);
	asked->done(asked->arg, answer);
	free(asked);
}

bool
history_compare(struct service *service, const struct history_ask *ask,
                void (*done)(void *arg, struct history_answer *answer), void *arg)
{
	struct asked *asked = xcalloc(1, sizeof(*asked));
	struct query_job *job = xcalloc(1, sizeof(*job));
	*asked = (struct asked){done, arg};
	job->kind = QUERY_COMPARE;
	job->done = on_compared;
	job->arg = asked;
	job->history.has_before = true;
	job->history.before = (struct query_span){ask->before_from_s, ask->before_to_s};
	job->history.span = (struct query_span){ask->after_from_s, ask->after_to_s};
	job->history.cause = ask->options;
	history_fill(service, job, ask->route);
	if (query_submit(service->query, job))
		return true;
	query_job_free(job);
	free(asked);
	return false;
}

void
history_recent(const struct service *service, size_t route, uint64_t from_s, uint64_t to_s,
               struct rollup *into)
{
	spans_sum(service->spans, route, from_s * 1000, to_s * 1000, into);
}
