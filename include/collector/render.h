/* Exchanges as the API shows them (docs/api.md): JSON text from record, profile and join. One
 * thread. */
#ifndef TAILRACE_COLLECTOR_RENDER_H
#define TAILRACE_COLLECTOR_RENDER_H

#include "base/config.h"
#include "model/correlator.h"
#include "model/text.h"

/* Appends the object of GET /api/v1/requests/{trace_id}, with an empty `others`, and in place of each
 * row's stack the number of its innermost frame in `frames`, a list of [number of the frame before
 * it or -1, frame] (stack_join.h puts the stacks back): thirty stacks of twenty frames are 60 kB
 * written out and have fifty frames. `profile` and `join` are null without a profile. */
void render_exchange(struct text *out, const struct config *config,
                     const struct exchange_record *record, size_t size, const char *route,
                     const struct profile *profile, const struct join *join,
                     enum profile_missing missing);

/* Appends one entry of GET /api/v1/requests. */
void render_summary(struct text *out, const struct exchange_record *record, const char *route,
                    bool has_profile);

/* Appends the same with method, path (`path_max` bytes of it at most) and phases: an event of GET
 * /api/v1/live. `size` counts the text behind the record. */
void render_live(struct text *out, const struct exchange_record *record, size_t size,
                 const char *route, bool has_profile, size_t path_max);

#endif
