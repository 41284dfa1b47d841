/* Local replies. Never on the hot path, so printed rather than pasted. */
#include "proxy/reply.h"

#include <stdio.h>
#include <string.h>
#include "proxy/client.h"

#define REPLY_MAX 1024

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

static int
body_print(char *body, size_t size, const struct exchange *exchange, const char *trace, bool json)
{
	const char *name = close_reason_name(exchange->cause);
	const char *text = close_reason_text(exchange->cause);

	if (json)
		return snprintf(body, size,
		                "{\"error\": {\"code\": \"%s\", \"message\": \"%s\", "
		                "\"trace_id\": \"%s\"}}\n",
		                name, text, trace);
	return snprintf(body, size, "%d %s: %s\ntrace: %s\n", exchange->status,
	                phrase_of(exchange->status), text, trace);
}

static const char *
more_fields(const struct exchange *exchange)
{
	if (exchange->status == 405)
		return "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";
	if (exchange->status == 503)
		return "Retry-After: 1\r\n";
	return "";
}

struct block *
reply_write(struct exchange *exchange)
{
	const struct http1 *request = &exchange->request;
	struct block *block = block_get(&exchange->loop->blocks, 0);
	char trace[2 * TRACE_ID_SIZE + 1] = "";
	char body[REPLY_MAX];
	bool json = !request->in_body || head_accepts_json(&request->head);
	int length, head_length;

	if (!block)
		return NULL;
	exchange_trace(exchange, request->in_body);
	hex_format(trace, exchange->trace_id, TRACE_ID_SIZE);
	exchange->status = (uint16_t)close_reason_status(exchange->cause);
	length = body_print(body, sizeof body, exchange, trace, json);
	head_length = snprintf(block->data + block->end, block_room(block),
	                       "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
	                       "X-Trace-Id: %s\r\nCache-Control: no-store\r\n%s%s\r\n",
	                       exchange->status, phrase_of(exchange->status),
	                       json ? "application/json" : "text/plain; charset=utf-8", length,
	                       trace, more_fields(exchange),
	                       exchange->close_client     ? "Connection: close\r\n"
	                       : request->head.minor == 0 ? "Connection: keep-alive\r\n"
	                                                  : "");
	block->end += (uint32_t)head_length;
	if (request->parser.method == HTTP_HEAD && request->in_body)
		return block;
	memcpy(block->data + block->end, body, (size_t)length);
	block->end += (uint32_t)length;
	return block;
}
