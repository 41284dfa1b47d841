/* What a route did in a span of time, for whoever judges it: the sums of two spans and what makes
 * them differ. Windows in memory and those of the store are one; the work is done on the query
 * thread. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_HISTORY_H
#define TAILRACE_COLLECTOR_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include "collector/service.h"
#include "model/cause.h"
#include "model/rollup.h"

#define HISTORY_EXEMPLARS 3

/* Spans are unix seconds, [from, to); windows count where their start lies in it. */
struct history_ask {
	size_t route; /* index of service->routes */
	uint64_t before_from_s, before_to_s;
	uint64_t after_from_s, after_to_s;
	struct cause_options options;
};

struct history_answer {
	struct rollup *before, *after; /* sums; never null */
	struct cause *cause;           /* never null */
	/* Exchanges that are kept and have a profile, slowest of the slower half first. Pin them
	 * (store_put_pin()) to keep them. */
	struct profile_key before_exemplars[HISTORY_EXEMPLARS], after_exemplars[HISTORY_EXEMPLARS];
	size_t before_exemplar_count, after_exemplar_count;
};
void history_answer_free(struct history_answer *answer); /* null-safe */

/* Asks. `done` is called once on the loop's thread, later, with an answer it then owns; with null
 * where the query could not be answered (too busy, the gateway ends). Returns false, and `done` is
 * not called, where too many queries wait. */
bool history_compare(struct service *service, const struct history_ask *ask,
                     void (*done)(void *arg, struct history_answer *answer), void *arg);

/* Adds what memory holds of a span (the last 15 minutes at most, the running window too) to `into`.
 * At once, on the loop's thread. */
void history_recent(const struct service *service, size_t route, uint64_t from_s, uint64_t to_s,
                    struct rollup *into);

#endif
