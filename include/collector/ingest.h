/* The callback endpoint: POST /v1/profiles (docs/protocol.md sections 2 and 3). What is not whole,
 * true and in time changes nothing. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_INGEST_H
#define TAILRACE_COLLECTOR_INGEST_H

#include <stddef.h>
#include <stdint.h>
#include "collector/service.h"
#include "model/text.h"

/* Takes one batch. `deflated`: the bytes are zlib's (RFC 1950). Returns the status; `body` gets the
 * JSON. */
int ingest_batch(struct service *service, const char *bytes, size_t length, bool deflated,
                 uint64_t now_ns, struct text *body);

struct evhttp_request;
void ingest_request(struct service *service, struct evhttp_request *request);

#endif
