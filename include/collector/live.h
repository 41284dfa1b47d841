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
#define LIVE_INPUT_MAX 4096 /* bytes that a reader may send while it reads; beyond: closed */
#define LIVE_STALL_S 30 /* without taking anything a reader is cut off; kernels tell by 36 KiB */
#define LIVE_CHECK_NS NS_PER_S /* between two looks at who may still read */
#define LIVE_PER_S_MAX 10000
#define LIVE_MIN_MS_MAX 86400000
#define LIVE_PATH_MAX 256 /* bytes of a path that are told */

struct evhttp_request;
struct live;
struct service;

/* Why a stream is closed by us. */
enum live_end { LIVE_LOGGED_OUT, LIVE_READER_SENT, LIVE_STALLED, LIVE_STOPPING, LIVE_ENDS };

struct live *live_new(uint64_t *counters); /* owned; counters: the service's, borrowed */
void live_free(struct live *live);         /* after live_close(); null-safe */

/* Streams end once their requests are no longer `admitted`. */
void live_watch(struct live *live, bool (*admitted)(void *arg, struct evhttp_request *request),
                void *arg);

void live_request(struct service *service, struct evhttp_request *request, const char *rest);

/* A final exchange. `route` is its name. */
void live_add(struct live *live, const struct exchange_record *record, size_t size,
              const char *route, bool has_profile);

/* At every turn of the intake: pings, what was skipped, who is gone or has to go. */
void live_tick(struct live *live, uint64_t now_ns);

size_t live_subscribers(const struct live *live);

/* Ends all streams. No more are taken. */
void live_close(struct live *live);

#endif
