/* An exchange as rows, and the bounded set of rows that a route has. The inside of
 * collector/spans. One thread. */
#ifndef TAILRACE_COLLECTOR_SPANS_ROWS_H
#define TAILRACE_COLLECTOR_SPANS_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include "model/correlator.h"
#include "model/flame.h"
#include "model/rollup.h"
#include "model/text.h"

#define SPAN_PARTS_MAX (PROFILE_ROWS_MAX + PROFILE_HOLDS_MAX + ROLLUP_PHASE_COUNT + 1)

/* Fills *ret of a final record; its parts lie in `parts`, which has SPAN_PARTS_MAX places. They
 * sum to the exchange's total time. */
void span_exchange(const struct exchange_record *record, const struct profile *profile,
                   const struct join *join, enum profile_missing missing, struct flame *flame,
                   uint64_t now_s, struct rollup_part *parts, struct rollup_exchange *ret);

struct span_rows;
struct span_rows *span_rows_new(size_t max);
void span_rows_free(struct span_rows *rows); /* null-safe */

/* Notes that the row is in use. A new one for which there is no room becomes the row of the nearest
 * parent frame that has a place (or of no stack). Returns 1 where that was so, else 0. */
size_t span_rows_admit(struct span_rows *rows, struct rollup_part *part, struct flame *flame,
                       uint64_t now_ms);

/* Forgets rows not used since `before_ms`. */
void span_rows_forget(struct span_rows *rows, uint64_t before_ms);

/* Appends the stacks of all rows, each a JSON array and a NUL. */
void span_rows_write(const struct span_rows *rows, const struct flame *flame, struct text *out);

#endif
