/* GET /api/v1/status: what tailrace says of itself, and what it costs. GET /api/v1/config: the
 * configuration in force. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_STATUS_H
#define TAILRACE_COLLECTOR_STATUS_H

#include <stdbool.h>
#include <stdint.h>
#include "collector/service.h"
#include "model/text.h"

#define STATUS_LATELY_S 60 /* what "lately" counts over */

struct evhttp_request;
struct status;

struct status *status_new(uint64_t now_ns); /* owned */
void status_free(struct status *status);    /* null-safe */

/* A final exchange was joined or given up. */
void status_count(struct status *status, bool sent, bool joined, uint64_t now_ns);

/* Appends the object of docs/api.md. */
void status_write(const struct service *service, uint64_t now_ns, struct text *out);

void status_request(struct service *service, struct evhttp_request *request, const char *rest);
void status_config_request(struct service *service, struct evhttp_request *request,
                           const char *rest);

#endif
