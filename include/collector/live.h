/* GET /api/v1/live: exchanges as they end, as server-sent events (WHATWG HTML, 9.2). Nobody listens:
 * an exchange costs one comparison. A reader that lags loses events, told and counted; nobody
 * waits for it. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_LIVE_H
#define TAILRACE_COLLECTOR_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/record.h"

#define LIVE_SUBSCRIBERS_MAX 32        /* beyond: 503 */
#define LIVE_BUFFER_MAX (256u << 10)   /* bytes not yet taken by one reader; beyond: dropped */
#define LIVE_BUFFER_AGAIN (128u << 10) /* events go on when no more than this waits */
#define LIVE_PING_NS (2 * NS_PER_S)    /* a comment after so much silence: tells who is gone */
#define LIVE_PER_S_MAX 10000
#define LIVE_PATH_MAX 256 /* bytes of a path that are told */

struct evhttp_request;
struct live;
struct service;

struct live *live_new(uint64_t *dropped, uint64_t *refused); /* owned; counters borrowed */
void live_free(struct live *live);                           /* after live_close(); null-safe */

void live_request(struct service *service, struct evhttp_request *request, const char *rest);

/* A final exchange. `route` is its name. */
void live_add(struct live *live, const struct exchange_record *record, size_t size,
              const char *route, bool has_profile);

/* At every turn of the intake: pings, what was skipped, who is gone. */
void live_tick(struct live *live, uint64_t now_ns);

size_t live_subscribers(const struct live *live);

/* Ends all streams. No more are taken. */
void live_close(struct live *live);

#endif
