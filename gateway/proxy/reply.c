/* Local replies. Never on the hot path, so printed rather than pasted. */
#include "proxy/reply.h"

#include <stdio.h>
#include <string.h>
#include "proxy/client.h"
#include "proxy/error_pages.h"

#define REPLY_MAX 1024
#define HEAD_MAX 1024

struct status_phrase {
	int status;
	const char *phrase;
};

static const char *
phrase_of(int status)
{
	static const struct status_phrase phrases[] = {
	    {400, "Bad Request"},
	    {404, "Not Found"},
	    {405, "Method Not Allowed"},
	    {408, "Request Timeout"},
	    {413, "Content Too Large"},
	    {414, "URI Too Long"},
	    {417, "Expectation Failed"},
	    {421, "Misdirected Request"},
	    {426, "Upgrade Required"},
	    {431, "Request Header Fields Too Large"},
	    {501, "Not Implemented"},
	    {502, "Bad Gateway"},
	    {503, "Service Unavailable"},
	    {504, "Gateway Timeout"},
	    {505, "HTTP Version Not Supported"},
	};

	for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
		if (phrases[i].status == status)
			return phrases[i].phrase;
	return "Error";
}

struct reply_body {
	const char *type, *bytes;
	size_t length;
	char text[REPLY_MAX]; /* where it is made here */
};

static void
body_print(struct reply_body *body, const struct exchange *exchange, const char *trace, bool json)
{
	const char *name = close_reason_name(exchange->cause);
	const char *text = close_reason_text(exchange->cause);
	int n;

	if (json)
		n = snprintf(body->text, sizeof body->text,
		             "{\"error\": {\"code\": \"%s\", \"message\": \"%s\", "
		             "\"trace_id\": \"%s\"}}\n",
		             name, text, trace);
	else
		n = snprintf(body->text, sizeof body->text, "%d %s: %s\ntrace: %s\n",
		             exchange->status, phrase_of(exchange->status), text, trace);
	body->type = json ? "application/json" : "text/plain; charset=utf-8";
	body->bytes = body->text;
	body->length = (size_t)n;
}

/* The user's page, unless the client asks for JSON and nothing like a page. */
static void
body_choose(struct reply_body *body, const struct exchange *exchange, const char *trace)
{
	const struct http1 *request = &exchange->request;
	const struct error_page *page = error_page_for(exchange->status);
	bool json = !request->in_body || head_accepts_json(&request->head);
	bool json_only = request->in_body && head_accept_names_json(&request->head);

	if (page && (!json_only || strcmp(page->type, "application/json") == 0)) {
		body->type = page->type;
		body->bytes = page->bytes;
		body->length = page->length;
		return;
	}
	body_print(body, exchange, trace, json);
}

static const char *
more_fields(const struct exchange *exchange)
{
	if (exchange->status == 405)
		return "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";
	if (exchange->status == 426)
		return "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"
		       "Connection: Upgrade\r\n";
	if (exchange->status == 503)
		return "Retry-After: 1\r\n";
	return "";
}

static void
head_print(struct block *block, const struct exchange *exchange, const struct reply_body *body,
           const char *trace)
{
	const char *connection = exchange->close_client              ? "Connection: close\r\n"
	                         : exchange->request.head.minor == 0 ? "Connection: keep-alive\r\n"
	                                                             : "";
	int n = snprintf(block->data + block->end, block_room(block),
	                 "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
	                 "X-Trace-Id: %s\r\nCache-Control: no-store\r\n%s%s\r\n",
	                 exchange->status, phrase_of(exchange->status), body->type, body->length,
	                 trace, more_fields(exchange), connection);

	block->end += (uint32_t)n;
}

struct block *
reply_write(struct exchange *exchange)
{
	const struct http1 *request = &exchange->request;
	char trace[2 * TRACE_ID_SIZE + 1] = "";
	struct reply_body body;
	struct block *block;

	exchange_trace(exchange, request->in_body);
	hex_format(trace, exchange->trace_id, TRACE_ID_SIZE);
	exchange->status = (uint16_t)close_reason_status(exchange->cause);
	body_choose(&body, exchange, trace);
	block = block_get(&exchange->loop->blocks, body.length + HEAD_MAX);
	if (!block)
		return NULL;
	head_print(block, exchange, &body, trace);
	if (request->parser.method == HTTP_HEAD && request->in_body)
		return block;
	memcpy(block->data + block->end, body.bytes, body.length);
	block->end += (uint32_t)body.length;
	return block;
}
