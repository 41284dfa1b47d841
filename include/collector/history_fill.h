/* What the loop gives along with a question about a route's past. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_HISTORY_FILL_H
#define TAILRACE_COLLECTOR_HISTORY_FILL_H

#include "collector/query.h"
#include "collector/service.h"

/* Sets the job's route, and puts in what memory has of its spans. */
void history_fill(const struct service *service, struct query_job *job, size_t route);

#endif
