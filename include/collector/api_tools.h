/* What endpoints that ask the query thread share. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_API_TOOLS_H
#define TAILRACE_COLLECTOR_API_TOOLS_H

#include <stdint.h>
#include <sys/queue.h>
#include <event2/keyvalq_struct.h>
#include "collector/query.h"
#include "collector/service.h"

struct evhttp_request;

/* Query parameters of a request. Returns 0, or -1 where they cannot be read (answered). Free with
 * evhttp_clear_headers(). */
int api_parameters(struct evhttp_request *request, struct evkeyvalq *ret);

/* An integer of `min` to `max`, or `missing` where the parameter is not there. -1 where it is
 * wrong. */
int64_t api_integer(const char *text, int64_t missing, int64_t min, int64_t max);

/* "90", "90s", "15m", "6h", "2d" in seconds, an hour where it is not there, 31 d at most; 0 where it
 * is wrong. */
uint64_t api_window_s(const char *text);

/* Hands the job to the query thread; 503 where too many wait. Takes it over. */
void api_submit(struct service *service, struct evhttp_request *request, struct query_job *job);

#endif
