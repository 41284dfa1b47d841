/* Chrome's trace event format: the gateway's phases, the path and each lane as tracks, wakeups as
 * arrows. Query thread only. */
#ifndef TAILRACE_COLLECTOR_EXPORT_CHROME_H
#define TAILRACE_COLLECTOR_EXPORT_CHROME_H

#include <jansson.h>
#include "model/text.h"

void export_chrome(const json_t *exchange, struct text *out);

#endif
