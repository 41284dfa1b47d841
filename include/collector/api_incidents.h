/* The control API of incidents and deploys. Answered from memory, at once. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_API_INCIDENTS_H
#define TAILRACE_COLLECTOR_API_INCIDENTS_H

#include "collector/service.h"

struct evhttp_request;

/* As those of collector/api.h. */
void api_incidents(struct service *service, struct evhttp_request *request, const char *rest);
void api_incident(struct service *service, struct evhttp_request *request, const char *rest);
void api_deploys(struct service *service, struct evhttp_request *request, const char *rest);

#endif
