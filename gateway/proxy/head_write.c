/* Heads rebuilt from parsed fields. Sizes are bounded before the first byte is written, so the
 * writers below copy without looking. */
#include "proxy/head_write.h"

#include <string.h>
#include "proxy/client.h"
#include "proxy/deep.h"
#include "proxy/pool.h"
#include "proxy/upstream.h"

#define OWN_FIELDS_MAX 1024u /* all that we add, Host and forwarded values aside */
#define TIMING_MAX 512u

#define put_literal(p, literal) put((p), (literal), sizeof(literal) - 1)

static inline char *
put(char *p, const void *bytes, size_t length)
{
	memcpy(p, bytes, length);
	return p + length;
}

static char *
put_number(char *p, uint64_t n)
{
	char digits[20];
	size_t at = sizeof digits;

	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	return put(p, digits + at, sizeof digits - at);
}

static char *
put_hex(char *p, const uint8_t *bytes, size_t size)
{
	hex_format(p, bytes, size);
	return p + 2 * size;
}

static inline char *
put_field(char *p, const struct head *head, const struct field *field)
{
	p = put(p, head->bytes + field->name, field->name_length);
	p = put_literal(p, ": ");
	p = put(p, head->bytes + field->value, field->value_length);
	return put_literal(p, "\r\n");
}

/* Inbound fields that are ours to write, and those that could be mistaken for them (rules 8 and
 * 17). */
static const uint64_t request_own =
    HEADER_BIT(HEADER_UNDERSCORE) | HEADER_BIT(HEADER_HOST) | HEADER_BIT(HEADER_CONTENT_LENGTH) |
    HEADER_BIT(HEADER_TRACEPARENT) | HEADER_BIT(HEADER_TRACESTATE) | HEADER_BIT(HEADER_X_TAILRACE) |
    HEADER_BIT(HEADER_X_TAILRACE_DEEP) | HEADER_BIT(HEADER_X_TRACE_ID) |
    HEADER_BIT(HEADER_X_REQUEST_START) | HEADER_BIT(HEADER_X_FORWARDED_FOR) |
    HEADER_BIT(HEADER_X_FORWARDED_PROTO) | HEADER_BIT(HEADER_X_FORWARDED_HOST) |
    HEADER_BIT(HEADER_FORWARDED) | HEADER_BIT(HEADER_EXPECT);

/* What only a trusted proxy may say. */
static const uint64_t request_trusted =
    HEADER_BIT(HEADER_X_REAL_IP) | HEADER_BIT(HEADER_X_FORWARDED_OTHER);

static char *
put_passed_fields(char *p, const struct head *head, uint64_t dropped)
{
	for (size_t i = 0; i < head->count; i++) {
		const struct field *field = &head->fields[i];

		if (!(dropped & HEADER_BIT(field->id)) && !field_is_hop(field))
			p = put_field(p, head, field);
	}
	return p;
}

static char *
put_all_of(char *p, const struct head *head, enum header_id id)
{
	for (size_t i = 0; i < head->count; i++)
		if (head->fields[i].id == id)
			p = put_field(p, head, &head->fields[i]);
	return p;
}

/* Every value of the fields of one name, in order, as one list. */
static char *
put_list(char *p, const struct head *head, enum header_id id)
{
	const char *begin = p;

	if (!head_has(head, id))
		return p;
	for (size_t i = head->first[id]; i < head->count; i++) {
		const struct field *field = &head->fields[i];

		if (field->id != id || field->value_length == 0)
			continue;
		if (p > begin)
			p = put_literal(p, ", ");
		p = put(p, head->bytes + field->value, field->value_length);
	}
	return p;
}

/* X-Forwarded-For as one list with our peer at its end. */
static char *
put_forwarded_for(char *p, const struct exchange *exchange)
{
	const struct client *client = exchange->client;
	const char *begin;

	p = put_literal(p, "X-Forwarded-For: ");
	begin = p;
	if (client->trusted_proxy)
		p = put_list(p, &exchange->request.head, HEADER_X_FORWARDED_FOR);
	if (client->ip[0]) {
		if (p > begin)
			p = put_literal(p, ", ");
		p = put(p, client->ip, strlen(client->ip));
	}
	if (p == begin)
		return p - (sizeof "X-Forwarded-For: " - 1);
	return put_literal(p, "\r\n");
}

/* RFC 7239: what came by a trusted proxy, and our own hop behind it. */
static char *
put_forwarded_element(char *p, const struct exchange *exchange)
{
	const struct client *client = exchange->client;
	struct text host = exchange->facts.host;
	const char *begin;

	p = put_literal(p, "Forwarded: ");
	begin = p;
	if (client->trusted_proxy)
		p = put_list(p, &exchange->request.head, HEADER_FORWARDED);
	if (p > begin)
		p = put_literal(p, ", ");
	p = put_literal(p, "for=");
	if (!client->ip[0]) {
		p = put_literal(p, "unknown");
	} else if (strchr(client->ip, ':')) {
		p = put_literal(p, "\"[");
		p = put(p, client->ip, strlen(client->ip));
		p = put_literal(p, "]\"");
	} else {
		p = put(p, client->ip, strlen(client->ip));
	}
	p = put_literal(p, ";proto=http");
	if (client->stream.tls)
		*p++ = 's';
	if (host.length > 0) {
		p = put_literal(p, ";host=\"");
		p = put(p, host.at, host.length);
		*p++ = '"';
	}
	return put_literal(p, "\r\n");
}

static bool
writes_forwarded(const struct exchange *exchange)
{
	return exchange->client->listener->forwarded ||
	       (exchange->client->trusted_proxy &&
	        head_has(&exchange->request.head, HEADER_FORWARDED));
}

/* TE and the announcement of trailer fields, as far as those go on. */
static char *
put_trailer_names(char *p, const struct http1 *http1)
{
	const struct head *head = &http1->head;
	const char *begin;

	if (!http1->kept || !head_has(head, HEADER_TRAILER))
		return p;
	p = put_literal(p, "Trailer: ");
	begin = p;
	for (size_t i = head->first[HEADER_TRAILER]; i < head->count; i++) {
		const struct field *field = &head->fields[i];
		struct text list = {head->bytes + field->value, field->value_length}, name;
		size_t cursor = 0;

		while (field->id == HEADER_TRAILER && text_next(list, &cursor, &name)) {
			if (!http1_trailer_allowed(http1->limits, name.at, name.length))
				continue;
			if (p > begin)
				p = put_literal(p, ", ");
			p = put(p, name.at, name.length);
		}
	}
	if (p == begin)
		return p - (sizeof "Trailer: " - 1);
	return put_literal(p, "\r\n");
}

static char *
put_forwarded(char *p, const struct exchange *exchange)
{
	const struct client *client = exchange->client;
	const struct head *head = &exchange->request.head;

	p = put_forwarded_for(p, exchange);
	if (client->trusted_proxy && head_has(head, HEADER_X_FORWARDED_PROTO))
		p = put_all_of(p, head, HEADER_X_FORWARDED_PROTO);
	else if (client->stream.tls)
		p = put_literal(p, "X-Forwarded-Proto: https\r\n");
	else
		p = put_literal(p, "X-Forwarded-Proto: http\r\n");
	if (client->trusted_proxy && head_has(head, HEADER_X_FORWARDED_HOST))
		return put_all_of(p, head, HEADER_X_FORWARDED_HOST);
	if (exchange->facts.host.length == 0)
		return p;
	p = put_literal(p, "X-Forwarded-Host: ");
	p = put(p, exchange->facts.host.at, exchange->facts.host.length);
	return put_literal(p, "\r\n");
}

static char *
put_trace(char *p, struct exchange *exchange)
{
	const struct head *head = &exchange->request.head;
	const char *parent;

	p = put_literal(p, "traceparent: ");
	parent = p;
	trace_parent_format(p, exchange->trace_id, exchange->span_id, exchange->trace_flags);
	p = put_literal(p + TRACEPARENT_LENGTH, "\r\nX-Tailrace: 1;");
	p = put(p, parent + TRACEPARENT_IDS, TRACEPARENT_IDS_LENGTH); /* trace-span, as above */
	if (deep_asked(exchange->loop->deep, exchange))
		p = deep_put(exchange->loop->deep, exchange, p);
	p = put_literal(p, "\r\n");
	if (exchange->tracestate_ok)
		p = put_all_of(p, head, HEADER_TRACESTATE);
	if (exchange->client->trusted_proxy && head_has(head, HEADER_X_REQUEST_START))
		return put_all_of(p, head, HEADER_X_REQUEST_START);
	p = put_literal(p, "X-Request-Start: t=");
	p = put_number(p, (exchange->marks.at_ns[MARK_START] + exchange->loop->wall_offset_ns) /
	                      NS_PER_US);
	return put_literal(p, "\r\n");
}

static char *
put_framing(char *p, const struct head *head)
{
	if (head->framing == BODY_CHUNKED)
		return put_literal(p, "Transfer-Encoding: chunked\r\n");
	if (!head_has(head, HEADER_CONTENT_LENGTH))
		return p;
	p = put_literal(p, "Content-Length: ");
	p = put_number(p, head->content_length);
	return put_literal(p, "\r\n");
}

/* HTTP/1.1 wants a Host; a 1.0 client that sent none gets the server's own name. */
static char *
put_host(char *p, const struct exchange *exchange)
{
	struct text host = exchange->facts.host;
	const char *server = exchange->server->config->text;

	if (host.length == 0 && exchange->request.head.minor == 0) {
		if (strncmp(server, "unix:", 5) == 0)
			server = "localhost";
		host = (struct text){server, strlen(server)};
	}
	p = put_literal(p, "Host: ");
	p = put(p, host.at, host.length);
	return put_literal(p, "\r\n");
}

struct block *
request_head_write(struct exchange *exchange, size_t extra)
{
	const struct head *head = &exchange->request.head;
	struct text method = http1_method_text(head->method);
	/* Host is written three times at most, each other byte at most twice. */
	size_t room = 3u * head->length + 4u * head->count + OWN_FIELDS_MAX;
	struct block *block = block_get(&exchange->loop->blocks, room + extra);
	uint64_t dropped = request_own;
	char *p;

	if (!block)
		return NULL;
	if (!exchange->client->trusted_proxy)
		dropped |= request_trusted;
	p = block->data + block->end;
	p = put(p, method.at, method.length);
	*p++ = ' ';
	if (exchange->facts.target.at[0] == '?')
		*p++ = '/';
	p = put(p, exchange->facts.target.at, exchange->facts.target.length);
	p = put_literal(p, " HTTP/1.1\r\n");
	p = put_host(p, exchange);
	p = put_passed_fields(p, head, dropped);
	p = put_framing(p, head);
	if (exchange->facts.expects_continue && head->framing != BODY_NONE)
		p = put_literal(p, "Expect: 100-continue\r\n");
	if (exchange->facts.websocket)
		p = put_literal(p, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	else if (exchange->facts.takes_trailers && exchange->request.limits->trailers)
		p = put_literal(p, "TE: trailers\r\nConnection: TE\r\n");
	p = put_trailer_names(p, &exchange->request);
	p = put_forwarded(p, exchange);
	if (writes_forwarded(exchange))
		p = put_forwarded_element(p, exchange);
	p = put_trace(p, exchange);
	p = put_literal(p, "\r\n");
	block->end = (uint32_t)(p - block->data);
	return block;
}

static char *
put_status_line(char *p, const struct head *head)
{
	p = put_literal(p, "HTTP/1.1 ");
	p = put_number(p, head->status);
	*p++ = ' ';
	p = put(p, head->bytes + head->reason, head->reason_length);
	return put_literal(p, "\r\n");
}

/* The framing towards this client, and whether its connection lives on. */
static char *
put_reply_framing(char *p, struct exchange *exchange)
{
	const struct head *head = &exchange->response.head;
	bool bodyless = http_rules_bodyless(exchange->request.head.method, head->status);

	exchange->chunked_reply = false;
	if (bodyless && head->status != 204 && head_has(head, HEADER_CONTENT_LENGTH))
		p = put_framing(p, head);
	else if (!bodyless && (head->framing == BODY_LENGTH || head->framing == BODY_NONE))
		p = put_framing(p, head);
	if (head->framing == BODY_CHUNKED || head->framing == BODY_UNTIL_EOF) {
		if (exchange->request.head.minor >= 1) {
			exchange->chunked_reply = true;
			p = put_literal(p, "Transfer-Encoding: chunked\r\n");
		} else {
			exchange->close_client = true; /* the end of the body is the end of all */
		}
	}
	if (exchange->close_client)
		return put_literal(p, "Connection: close\r\n");
	if (exchange->request.head.minor == 0)
		return put_literal(p, "Connection: keep-alive\r\n");
	return p;
}

static char *
put_trace_id(char *p, const struct exchange *exchange)
{
	p = put_literal(p, "X-Trace-Id: ");
	p = put_hex(p, exchange->trace_id, TRACE_ID_SIZE);
	return put_literal(p, "\r\n");
}

static char *
put_timing(char *p, const struct exchange *exchange)
{
	char value[TIMING_MAX];
	size_t length = phase_server_timing(&exchange->marks, value, sizeof value);

	if (length == 0)
		return p;
	p = put_literal(p, "Server-Timing: ");
	p = put(p, value, length);
	return put_literal(p, "\r\n");
}

struct block *
response_head_write(struct exchange *exchange, size_t extra)
{
	const struct head *head = &exchange->response.head;
	size_t room = head->length + 4u * head->count + OWN_FIELDS_MAX + TIMING_MAX;
	struct block *block = block_get(&exchange->loop->blocks, room + extra);
	uint64_t dropped = HEADER_BIT(HEADER_CONTENT_LENGTH);
	bool with_id = exchange->loop->config->trace.response_header;
	char *p;

	if (!block)
		return NULL;
	if (with_id)
		dropped |= HEADER_BIT(HEADER_X_TRACE_ID);
	p = put_status_line(block->data + block->end, head);
	p = put_passed_fields(p, head, dropped);
	p = put_reply_framing(p, exchange);
	if (exchange->chunked_reply && exchange->facts.takes_trailers)
		p = put_trailer_names(p, &exchange->response);
	if (with_id)
		p = put_trace_id(p, exchange);
	if (exchange->client->gets_timing)
		p = put_timing(p, exchange);
	p = put_literal(p, "\r\n");
	block->end = (uint32_t)(p - block->data);
	return block;
}

struct block *
switching_head_write(struct exchange *exchange)
{
	const struct head *head = &exchange->response.head;
	struct block *block =
	    block_get(&exchange->loop->blocks, head->length + 4u * head->count + OWN_FIELDS_MAX);
	char *p;

	if (!block)
		return NULL;
	p = put_status_line(block->data + block->end, head);
	p = put_passed_fields(p, head, HEADER_BIT(HEADER_X_TRACE_ID));
	p = put_literal(p, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	if (exchange->loop->config->trace.response_header)
		p = put_trace_id(p, exchange);
	p = put_literal(p, "\r\n");
	block->end = (uint32_t)(p - block->data);
	return block;
}

struct block *
interim_head_write(struct exchange *exchange)
{
	const struct head *head = &exchange->response.head;
	size_t room = head->length + 4u * head->count + 64;
	struct block *block = block_get(&exchange->loop->blocks, room);
	char *p;

	if (!block)
		return NULL;
	p = put_status_line(block->data + block->end, head);
	p = put_passed_fields(p, head, HEADER_BIT(HEADER_CONTENT_LENGTH));
	p = put_literal(p, "\r\n");
	block->end = (uint32_t)(p - block->data);
	return block;
}
