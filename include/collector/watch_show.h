/* What the detector knows, as members of the API's answers. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_WATCH_SHOW_H
#define TAILRACE_COLLECTOR_WATCH_SHOW_H

#include "collector/service.h"
#include "model/text.h"

/* Appends the name of every route the detector knows and its members "state", "learning" and
 * "change", a NUL behind each. */
void watch_show_routes(const struct service *service, struct text *out);

/* Appends {"deploys": [...], "incidents": [...]} of a route and [from_s, to_s), unix seconds. */
void watch_show_events(const struct service *service, size_t route, int64_t from_s, int64_t to_s,
                       struct text *out);

#endif
