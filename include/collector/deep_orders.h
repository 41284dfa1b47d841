/* Deep profiles: operators' orders on the board, and what became of the last requests that were asked.
 * Loop's thread. */
#ifndef TAILRACE_COLLECTOR_DEEP_ORDERS_H
#define TAILRACE_COLLECTOR_DEEP_ORDERS_H

#include "collector/service.h"
#include "model/detail.h"

#define DEEP_COUNT_MAX 1000
#define DEEP_ORDER_S 600 /* an order ends then */
#define DEEP_RECENT_MAX 64

struct deep_log; /* the last requests that were asked */

struct deep_log *deep_log_new(void); /* owned */
void deep_log_free(struct deep_log *log);

/* An exchange that was asked is joined or given up; a deep profile has come (null: the hook does not have
 * it any more), in either order. */
void deep_log_exchange(struct deep_log *log, const struct exchange_record *record,
                       const char *route, bool has_profile);
void deep_log_detail(struct deep_log *log, const struct profile_key *key,
                     const struct detail *detail);

struct evhttp_request;
/* POST and GET /api/v1/deep */
void deep_request(struct service *service, struct evhttp_request *request, const char *rest);

#endif
