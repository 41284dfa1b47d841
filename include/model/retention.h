/* Which exchanges are worth their room: per route and window the slowest and a random sample of the
 * others, and all errors. Decided at once, exchange by exchange: one that is kept may lose its place
 * to a later one of the same window. As long as a window has no more than keep_slowest + keep_random
 * exchanges, all of it is kept (behind a busy window of them at least the slowest). Pure; one thread. */
#ifndef TAILRACE_MODEL_RETENTION_H
#define TAILRACE_MODEL_RETENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/profile.h"

#define RETENTION_KEEP_MAX 1000 /* of keep_slowest, of keep_random */
#define RETENTION_WINDOWS \
	3 /* of a route at a time; exchanges come out of order by the join's wait */

struct retention;

/* `routes` = number of indices. `seed` makes the sample. */
struct retention *retention_new(size_t routes, unsigned keep_slowest, unsigned keep_random,
                                uint64_t seed);
void retention_free(struct retention *retention); /* null-safe */

struct retention_verdict {
	bool keep;
	bool drops; /* `dropped` lost its place: take it away */
	struct profile_key dropped;
};

/* One exchange of the window that begins at `window`. Errors are kept beside the others and take no
 * place. */
struct retention_verdict retention_add(struct retention *retention, size_t route, uint64_t window,
                                       const struct profile_key *key, uint64_t total_ns,
                                       bool error);

/* What is likely to be kept of a route, by its last whole window or the newest where that is busier:
 * exchanges over *ret_over_ns, and of the others the share *ret_rate. Everything (0 and 1) where
 * little happens. Nothing (UINT64_MAX and 0) as long as no exchange of it was seen: profiles alone
 * are not kept, and what is kept of the first exchanges can be asked for by its key. */
void retention_forecast(const struct retention *retention, size_t route, uint64_t *ret_over_ns,
                        double *ret_rate);

#endif
