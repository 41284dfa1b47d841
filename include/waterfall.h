/* Draws one exchange of the control API (docs/api.md) for people: phases on a time axis, then the app's
 * part unfolded down to the awaiting lines. One thread. */
#ifndef TAILRACE_WATERFALL_H
#define TAILRACE_WATERFALL_H

#include <jansson.h>
#include "term.h"

/* `exchange` is the object of GET /api/v1/requests/{trace_id}; missing parts are left out. */
void waterfall_print(const struct term *term, const json_t *exchange);

#endif
