/* The query threads: answers that need SQL, on connections of their own that can only read. One
 * answers what is quick, one what may take long, so that no list waits behind a comparison. The
 * loop hands jobs in and gets them back through its event base; it never runs SQL itself. No answer
 * waits for the store to write: what it has not committed yet is taken from its queue.
 *
 * THREADS: query_submit() and the answers on the loop's thread, query_answer() on a query thread.
 * A job belongs to one of them at a time. */
#ifndef TAILRACE_COLLECTOR_QUERY_H
#define TAILRACE_COLLECTOR_QUERY_H

#include <stdbool.h>
#include <stdint.h>
#include "collector/export.h"
#include "collector/store.h"
#include "collector/unwritten.h"
#include "model/cause.h"
#include "model/route.h"
#include "model/text.h"

#define QUERY_QUEUE_MAX 64     /* jobs waiting for one thread; beyond: 503 */
#define QUERY_TIME_MAX_MS 5000 /* of one statement; beyond: 503 */
#define QUERY_LIMIT_MAX 1000   /* rows of an answer */
#define QUERY_OTHERS_MAX 100   /* exchanges of one trace */

#define QUERY_POINTS_MAX 720 /* of a series; also the parts of a span that are compared */

enum query_kind {
	QUERY_REQUEST,
	QUERY_PROFILE,
	QUERY_REQUESTS,
	QUERY_ROUTES,
	QUERY_SERIES,
	QUERY_FLAME,
	QUERY_COMPARE,
};

/* [from_s, to_s) in unix seconds. */
struct query_span {
	uint64_t from_s, to_s;
};

/* Of QUERY_SERIES, QUERY_FLAME and QUERY_COMPARE: one route in time. */
struct query_history {
	int64_t route_id; /* the store's; 0 = of the name */
	bool has_before;
	struct query_span span, before;
	uint64_t step_s;            /* QUERY_SERIES */
	struct cause_options cause; /* QUERY_COMPARE */
	/* What memory has of both spans: chunks of model/rollup.h that the store may have too, and
	 * that it has not; the stacks they name, a NUL behind each. Owned. */
	struct text saved, unsaved, names;
	struct text events; /* QUERY_SERIES: members of the answer, owned: what the loop
	                                 * knows of deploys and incidents */
	struct history_answer *compared; /* QUERY_COMPARE's answer; owned */
};

struct query_job {
	struct query_job *next;
	enum query_kind kind;
	struct profile_key key;    /* QUERY_REQUEST, QUERY_PROFILE */
	enum export_format format; /* QUERY_PROFILE */
	bool has_span;
	bool has_route, slowest; /* QUERY_REQUESTS */
	char route[ROUTE_NAME_MAX + 1];
	uint32_t limit;
	uint64_t window_s; /* QUERY_ROUTES */
	/* What the loop knows and the store does not; owned. JSON: an array of requests;
	 * QUERY_ROUTES: names of routes, each with the members to add to it, a NUL behind each. */
	struct text pending;
	struct query_history history;
	struct unwritten unwritten;    /* query thread; owned */
	struct route_windows *windows; /* QUERY_ROUTES: the thread's; null = none are kept */
	void *arg;                     /* the asker's */
	void (*done)(void *arg, struct query_job *job); /* takes it over; null = query_start()'s */
	int status;                                     /* the answer */
	const char *type;                               /* its media type, static; null = JSON */
	struct text body;                               /* the answer; owned */
};
void query_job_free(struct query_job *job); /* null-safe */

struct event_base;
struct query;

/* `answered` is called on the base's thread with a job that it then owns. `path` and `store` are
 * borrowed. */
struct query *query_start(struct event_base *base, const char *path, struct store *store,
                          void (*answered)(void *arg, struct query_job *job), void *arg);

/* Takes the job over. Returns false, and the job stays the caller's, where too many wait. */
bool query_submit(struct query *query, struct query_job *job);

uint64_t query_refused(const struct query *query); /* jobs turned away; loop's thread */

/* Ends the threads. Jobs not answered are answered 503 first. */
void query_stop(struct query *query);

#endif
