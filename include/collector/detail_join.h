/* What is kept beside an exchange into its JSON. Query thread only. */
#ifndef TAILRACE_COLLECTOR_DETAIL_JOIN_H
#define TAILRACE_COLLECTOR_DETAIL_JOIN_H

#include <jansson.h>

/* Puts stacks, lanes, path and deep of `detail` (JSON as detail_render() wrote it; null: the hook does
 * not have it any more) into exchange.profile, their times moved from the ASGI call to t0. */
void detail_add(json_t *exchange, const char *detail);

#endif
