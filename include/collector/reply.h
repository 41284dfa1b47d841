/* Answers of the control listeners: JSON, errors of one shape, no caching. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_REPLY_H
#define TAILRACE_COLLECTOR_REPLY_H

#include "model/text.h"

struct evhttp_request;

/* Sends `body` (JSON; null or failed: 500) with a status. The request is gone afterwards. */
void reply_json(struct evhttp_request *request, int status, const struct text *body);
/* The same with another media type; null = JSON. */
void reply_body(struct evhttp_request *request, int status, const char *type,
                const struct text *body);
void reply_text(struct evhttp_request *request, const char *type, const struct text *body);

/* Without a body (204). */
void reply_empty(struct evhttp_request *request, int status);

/* {"error": {"code", "message", "pointer"}}; `pointer` is a JSON pointer, or null. */
void reply_error(struct evhttp_request *request, int status, const char *code, const char *message,
                 const char *pointer);
void reply_error_text(struct text *out, const char *code, const char *message, const char *pointer);

#endif
