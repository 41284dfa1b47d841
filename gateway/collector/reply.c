/* evhttp answers. */
#include <stdbool.h>
#include <stdio.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include "collector/reply.h"

static const char *
reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} known[] = {{200, "OK"},
	             {204, "No Content"},
	             {400, "Bad Request"},
	             {401, "Unauthorized"},
	             {403, "Forbidden"},
	             {404, "Not Found"},
	             {405, "Method Not Allowed"},
	             {411, "Length Required"},
	             {413, "Content Too Large"},
	             {415, "Unsupported Media Type"},
	             {429, "Too Many Requests"},
	             {503, "Service Unavailable"}};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].status == status)
			return known[i].reason;
	return "Internal Server Error";
}

static void
headers(struct evhttp_request *request, const char *type)
{
	struct evkeyvalq *out = evhttp_request_get_output_headers(request);
	evhttp_add_header(out, "Content-Type", type);
	evhttp_add_header(out, "Cache-Control", "no-store");
	evhttp_add_header(out, "X-Content-Type-Options", "nosniff");
}

static void
send_body(struct evhttp_request *request, int status, const char *type, const struct text *body)
{
	struct evbuffer *buffer = evbuffer_new();
	bool head = evhttp_request_get_command(request) == EVHTTP_REQ_HEAD;
	headers(request, type);
	if (buffer == NULL || body->failed ||
	    (!head && body->length > 0 && evbuffer_add(buffer, body->data, body->length) != 0))
		status = 500;
	if (head) { /* evhttp would send the body, and no length */
		char length[24];
		snprintf(length, sizeof(length), "%zu", body->length);
		evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Length",
		                  length);
	}
	evhttp_send_reply(request, status, reason(status), buffer);
	if (buffer != NULL)
		evbuffer_free(buffer);
}

void
reply_json(struct evhttp_request *request, int status, const struct text *body)
{
	send_body(request, status, "application/json", body);
}

void
reply_body(struct evhttp_request *request, int status, const char *type, const struct text *body)
{
	send_body(request, status, type != NULL ? type : "application/json", body);
}

void
reply_text(struct evhttp_request *request, const char *type, const struct text *body)
{
	send_body(request, 200, type, body);
}

void
reply_empty(struct evhttp_request *request, int status)
{
	struct evkeyvalq *out = evhttp_request_get_output_headers(request);
	evhttp_add_header(out, "Cache-Control", "no-store");
	evhttp_send_reply(request, status, reason(status), NULL);
}

void
reply_error_text(struct text *out, const char *code, const char *message, const char *pointer)
{
	text_puts(out, "{\"error\":{\"code\":");
	text_json_or_null(out, code);
	text_puts(out, ",\"message\":");
	text_json_or_null(out, message);
	text_puts(out, ",\"pointer\":");
	text_json_or_null(out, pointer);
	text_puts(out, "}}");
}

void
reply_error(struct evhttp_request *request, int status, const char *code, const char *message,
            const char *pointer)
{
	struct text body = {0};
	reply_error_text(&body, code, message, pointer);
	reply_json(request, status, &body);
	text_free(&body);
}
