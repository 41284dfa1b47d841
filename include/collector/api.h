/* The control API's reading side: requests, routes, health. What needs SQL goes to the query thread
 * and is answered when it comes back. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_API_H
#define TAILRACE_COLLECTOR_API_H

#include "collector/service.h"

struct evhttp_request;
struct query_job;

/* `rest` is the path behind the endpoint's prefix. */
void api_request(struct service *service, struct evhttp_request *request, const char *rest);
void api_requests(struct service *service, struct evhttp_request *request, const char *rest);
void api_routes(struct service *service, struct evhttp_request *request, const char *rest);
void api_route(struct service *service, struct evhttp_request *request, const char *rest);
void api_healthz(struct service *service, struct evhttp_request *request, const char *rest);
void api_readyz(struct service *service, struct evhttp_request *request, const char *rest);

/* The query thread's answers: `arg` is unused, job->arg the request. Owns the job. */
void api_answered(void *arg, struct query_job *job);

#endif
