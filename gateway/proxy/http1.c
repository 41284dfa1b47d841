/* llhttp glue: callbacks note offsets, count what llhttp does not limit, and stop at each
 * boundary. */
#include "proxy/http1.h"

#include <assert.h>
#include <string.h>
#include "model/http_rules.h"

_Static_assert((int)RULES_METHOD_GET == (int)HTTP_GET && (int)RULES_METHOD_HEAD == (int)HTTP_HEAD &&
                   (int)RULES_METHOD_POST == (int)HTTP_POST &&
                   (int)RULES_METHOD_PUT == (int)HTTP_PUT &&
                   (int)RULES_METHOD_DELETE == (int)HTTP_DELETE &&
                   (int)RULES_METHOD_CONNECT == (int)HTTP_CONNECT &&
                   (int)RULES_METHOD_OPTIONS == (int)HTTP_OPTIONS &&
                   (int)RULES_METHOD_TRACE == (int)HTTP_TRACE,
               "model/http_rules.h repeats llhttp's numbers");

#define LINE_REST 10u      /* " " before and " HTTP/1.1" behind the target */
#define CHUNK_LINE_MAX 20u /* 16 hex digits, CRLF before and after */

static int
refuse(struct http1 *http1, enum close_reason why)
{
	if (http1->error == CLOSE_NONE)
		http1->error = why;
	return -1;
}

static uint32_t
offset_of(const struct http1 *http1, const char *at)
{
	return (uint32_t)(at - http1->head.bytes);
}

static int
on_url(llhttp_t *parser, const char *at, size_t length)
{
	struct http1 *http1 = parser->data;
	struct head *head = &http1->head;

	if (head->target_length == 0)
		head->target = offset_of(http1, at);
	head->target_length = offset_of(http1, at) + (uint32_t)length - head->target;
	if (head->target + head->target_length + LINE_REST - 1 > http1->limits->request_line_bytes)
		return refuse(http1, CLOSE_LINE_TOO_LONG);
	return 0;
}

static int
on_status(llhttp_t *parser, const char *at, size_t length)
{
	struct http1 *http1 = parser->data;
	struct head *head = &http1->head;

	if (head->reason_length == 0)
		head->reason = offset_of(http1, at);
	head->reason_length = offset_of(http1, at) + (uint32_t)length - head->reason;
	return 0;
}

static int
on_trailer_bytes(struct http1 *http1, size_t length)
{
	http1->trailers += (uint32_t)length;
	return http1->trailers > TRAILERS_MAX ? refuse(http1, CLOSE_TRAILERS_TOO_LARGE) : 0;
}

bool
http1_trailer_allowed(const struct config_limits *limits, const char *name, size_t length)
{
	struct text text = {name, length};

	for (char **allowed = limits->trailers; allowed && *allowed; allowed++)
		if (text_equals(text, *allowed))
			return true;
	return false;
}

void
http1_keep_trailers(struct http1 *http1, struct block *block)
{
	http1->kept = block;
}

/* TRAILERS_MAX, which is counted before, is less than a block. */
static void
keep(struct http1 *http1, const char *bytes, size_t length)
{
	struct block *kept = http1->kept;

	assert(block_room(kept) >= length);
	memcpy(kept->data + kept->end, bytes, length);
	kept->end += (uint32_t)length;
}

static int
on_trailer_name(struct http1 *http1, const char *at, size_t length)
{
	if (on_trailer_bytes(http1, length) < 0)
		return -1;
	if (!http1->kept)
		return 0;
	if (!http1->in_name)
		http1->name = http1->kept->end;
	http1->in_name = true;
	keep(http1, at, length);
	return 0;
}

static void
begin_trailer_value(struct http1 *http1)
{
	if (http1->in_value)
		return;
	http1->in_value = true;
	http1->name_length = http1->kept->end - http1->name;
	keep(http1, ": ", 2);
	http1->value = http1->kept->end;
}

static int
on_trailer_value(struct http1 *http1, const char *at, size_t length)
{
	if (on_trailer_bytes(http1, length) < 0)
		return -1;
	if (!http1->kept)
		return 0;
	begin_trailer_value(http1);
	keep(http1, at, length);
	return 0;
}

/* A field that may not go on is forgotten. */
static int
on_trailer_complete(struct http1 *http1)
{
	struct block *kept = http1->kept;

	if (on_trailer_bytes(http1, 4) < 0)
		return -1;
	if (!kept)
		return 0;
	begin_trailer_value(http1);
	while (kept->end > http1->value &&
	       (kept->data[kept->end - 1] == ' ' || kept->data[kept->end - 1] == '\t'))
		kept->end--;
	keep(http1, "\r\n", 2);
	if (!http1_trailer_allowed(http1->limits, kept->data + http1->name, http1->name_length))
		kept->end = http1->name;
	http1->in_name = http1->in_value = false;
	return 0;
}

static int
on_header_field(llhttp_t *parser, const char *at, size_t length)
{
	struct http1 *http1 = parser->data;

	if (http1->in_body)
		return on_trailer_name(http1, at, length);
	if (!http1->in_name) {
		http1->in_name = true;
		http1->name = offset_of(http1, at);
		http1->in_value = false;
	}
	http1->name_length = offset_of(http1, at) + (uint32_t)length - http1->name;
	return 0;
}

static int
on_header_value(llhttp_t *parser, const char *at, size_t length)
{
	struct http1 *http1 = parser->data;

	if (http1->in_body)
		return on_trailer_value(http1, at, length);
	if (!http1->in_value) {
		http1->in_value = true;
		http1->value = offset_of(http1, at);
	}
	http1->value_length = offset_of(http1, at) + (uint32_t)length - http1->value;
	return 0;
}

static int
on_header_value_complete(llhttp_t *parser)
{
	struct http1 *http1 = parser->data;

	if (http1->in_body)
		return on_trailer_complete(http1);
	if (!http1->in_value) {
		http1->value = http1->name + http1->name_length;
		http1->value_length = 0;
	}
	if (http1->head.count >= http1->limits->headers ||
	    head_add(&http1->head, http1->name, http1->name_length, http1->value,
	             http1->value_length) < 0)
		return refuse(http1, CLOSE_TOO_MANY_HEADERS);
	http1->in_name = http1->in_value = false;
	return 0;
}

static int
on_headers_complete(llhttp_t *parser)
{
	struct http1 *http1 = parser->data;
	struct head *head = &http1->head;

	head->major = parser->http_major;
	head->minor = parser->http_minor;
	head->method = parser->method;
	head->status = parser->status_code;
	head->keep_alive = head->minor >= 1 ? !(parser->flags & F_CONNECTION_CLOSE)
	                                    : (parser->flags & F_CONNECTION_KEEP_ALIVE) != 0 &&
	                                          !(parser->flags & F_CONNECTION_CLOSE);
	parser->upgrade = 0; /* nobody leaves HTTP here */
	http1->in_body = true;
	return HPE_PAUSED;
}

static int
on_body(llhttp_t *parser, const char *at, size_t length)
{
	struct http1 *http1 = parser->data;

	memmove(http1->out, at, length);
	http1->out += length;
	return 0;
}

static int
on_chunk_header(llhttp_t *parser)
{
	struct http1 *http1 = parser->data;

	http1->chunks++;
	http1->extension = 0;
	return 0;
}

static int
on_extension(llhttp_t *parser, const char *at, size_t length)
{
	struct http1 *http1 = parser->data;

	(void)at;
	http1->extension += (uint32_t)length + 1;
	http1->extensions += (uint32_t)length + 1;
	if (http1->extension > CHUNK_EXTENSION_MAX || http1->extensions > CHUNK_EXTENSIONS_MAX)
		return refuse(http1, CLOSE_CHUNK_EXTENSION_TOO_LARGE);
	return 0;
}

static int
on_message_complete(llhttp_t *parser)
{
	(void)parser;
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_status = on_status,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_chunk_extension_name = on_extension,
    .on_chunk_extension_value = on_extension,
    .on_message_complete = on_message_complete,
};

bool
http1_parser_safe(void)
{
	return LLHTTP_VERSION_MAJOR > 9 ||
	       (LLHTTP_VERSION_MAJOR == 9 && LLHTTP_VERSION_MINOR >= 3) ||
	       (LLHTTP_VERSION_MAJOR == 9 && LLHTTP_VERSION_MINOR == 2 &&
	        LLHTTP_VERSION_PATCH >= 1);
}

void
http1_init(struct http1 *http1, llhttp_type_t type, const struct config_limits *limits)
{
	memset(http1, 0, offsetof(struct http1, head));
	head_clear(&http1->head, NULL);
	llhttp_init(&http1->parser, type, &settings);
	http1->parser.data = http1;
	http1->limits = limits;
}

/* A method llhttp does not know, if it looks like one at all. */
static bool
looks_like_method(const char *bytes, size_t length)
{
	size_t n = 0;

	while (n < length && n < 32 && ((bytes[n] >= 'A' && bytes[n] <= 'Z') || bytes[n] == '-'))
		n++;
	return n > 0 && (n == length || bytes[n] == ' ');
}

/* llhttp has one code for all that is wrong with a field; its text tells them apart. */
static enum close_reason
field_error(const struct http1 *http1)
{
	const char *reason = llhttp_get_error_reason(&http1->parser);

	if (reason && strstr(reason, "whitespace after header value"))
		return CLOSE_HEADER_FOLDED;
	return reason && strstr(reason, "value") ? CLOSE_BAD_HEADER_VALUE : CLOSE_BAD_HEADER;
}

/* Within the body: the trailer section has errors of its own. */
static enum close_reason
body_error(llhttp_errno_t error)
{
	switch (error) {
	case HPE_INVALID_HEADER_TOKEN:
	case HPE_UNEXPECTED_CONTENT_LENGTH:
	case HPE_INVALID_CONTENT_LENGTH:
	case HPE_INVALID_TRANSFER_ENCODING:
		return CLOSE_BAD_TRAILER;
	default:
		return CLOSE_BAD_CHUNK;
	}
}

static enum close_reason
request_error(const struct http1 *http1, llhttp_errno_t error, size_t length)
{
	if (http1->in_body)
		return body_error(error);
	switch (error) {
	case HPE_INVALID_METHOD:
		return looks_like_method(http1->head.bytes, length) ? CLOSE_BAD_METHOD
		                                                    : CLOSE_BAD_REQUEST;
	case HPE_INVALID_URL:
		return CLOSE_BAD_TARGET;
	case HPE_INVALID_VERSION:
	case HPE_PAUSED_H2_UPGRADE:
		return CLOSE_BAD_VERSION;
	case HPE_INVALID_HEADER_TOKEN:
	case HPE_UNEXPECTED_SPACE:
		return field_error(http1);
	case HPE_UNEXPECTED_CONTENT_LENGTH:
		return http1->parser.flags & F_TRANSFER_ENCODING ? CLOSE_LENGTH_AND_ENCODING
		                                                 : CLOSE_LENGTH_REPEATED;
	case HPE_INVALID_CONTENT_LENGTH:
		return http1->parser.flags & F_TRANSFER_ENCODING ? CLOSE_LENGTH_AND_ENCODING
		                                                 : CLOSE_BAD_LENGTH;
	case HPE_INVALID_TRANSFER_ENCODING:
		return http1->parser.flags & F_CONTENT_LENGTH ? CLOSE_LENGTH_AND_ENCODING
		                                              : CLOSE_ENCODING_MALFORMED;
	case HPE_LF_EXPECTED:
	case HPE_CR_EXPECTED:
	case HPE_STRICT:
		return CLOSE_BAD_LINE_END;
	default:
		return CLOSE_BAD_REQUEST;
	}
}

/* The same faults in an answer are the app's. */
static enum close_reason
response_error(const struct http1 *http1, llhttp_errno_t error)
{
	if (http1->error == CLOSE_HEAD_TOO_LARGE || http1->error == CLOSE_TOO_MANY_HEADERS)
		return CLOSE_RESPONSE_HEAD_TOO_LARGE;
	if (http1->in_body)
		return CLOSE_RESPONSE_CHUNK;
	switch (error) {
	case HPE_INVALID_VERSION:
		return CLOSE_RESPONSE_VERSION;
	case HPE_INVALID_STATUS:
		return CLOSE_RESPONSE_STATUS;
	case HPE_INVALID_HEADER_TOKEN:
	case HPE_UNEXPECTED_SPACE:
	case HPE_LF_EXPECTED:
	case HPE_CR_EXPECTED:
		return CLOSE_RESPONSE_HEADER;
	case HPE_UNEXPECTED_CONTENT_LENGTH:
	case HPE_INVALID_CONTENT_LENGTH:
		return CLOSE_RESPONSE_LENGTH;
	case HPE_INVALID_TRANSFER_ENCODING:
		return http1->parser.flags & F_CONTENT_LENGTH ? CLOSE_RESPONSE_LENGTH
		                                              : CLOSE_RESPONSE_ENCODING;
	default:
		return CLOSE_BAD_RESPONSE;
	}
}

static enum http1_result
fail(struct http1 *http1, llhttp_errno_t error, size_t length)
{
	if (http1->parser.type == HTTP_RESPONSE)
		http1->error = response_error(http1, error);
	else if (http1->error == CLOSE_NONE)
		http1->error = request_error(http1, error, length);
	return HTTP1_ERROR;
}

struct text
http1_method_text(uint8_t method)
{
	const char *name = llhttp_method_name((llhttp_method_t)method);

	return (struct text){name, strlen(name)};
}

/* llhttp takes several spaces in a request line; RFC 9112 section 3 has one (rule 7). */
static bool
request_line_exact(const struct head *head)
{
	struct text method = http1_method_text(head->method);
	const char *behind = head->bytes + head->target + head->target_length;

	return head->target == method.length + 1 && memcmp(behind, " HTTP/", 6) == 0;
}

enum http1_result
http1_head(struct http1 *http1, const char *bytes, size_t length)
{
	struct head *head = &http1->head;
	llhttp_errno_t error;

	head->bytes = bytes;
	error = llhttp_execute(&http1->parser, bytes + http1->parsed, length - http1->parsed);
	if (error == HPE_OK) {
		http1->parsed = (uint32_t)length;
		if (length < http1->limits->head_bytes)
			return HTTP1_MORE;
		http1->error = CLOSE_HEAD_TOO_LARGE;
		return fail(http1, error, length);
	}
	if (error != HPE_PAUSED)
		return fail(http1, error, length);
	head->length = (uint32_t)(llhttp_get_error_pos(&http1->parser) - bytes);
	llhttp_resume(&http1->parser);
	if (head->length > http1->limits->head_bytes) {
		http1->error = CLOSE_HEAD_TOO_LARGE;
		return fail(http1, error, length);
	}
	if (http1->parser.type == HTTP_REQUEST && head->major == 1 && !request_line_exact(head)) {
		http1->error = CLOSE_BAD_REQUEST_LINE;
		return HTTP1_ERROR;
	}
	return HTTP1_HEAD;
}

static enum http1_result
body_chunked(struct http1 *http1, char *data, size_t length, size_t *ret_payload, size_t *ret_used)
{
	llhttp_errno_t error;

	http1->out = data;
	error = llhttp_execute(&http1->parser, data, length);
	*ret_payload = (size_t)(http1->out - data);
	http1->body_bytes += *ret_payload;
	if (error != HPE_OK && error != HPE_PAUSED)
		return fail(http1, error, length);
	*ret_used =
	    error == HPE_OK ? length : (size_t)(llhttp_get_error_pos(&http1->parser) - data);
	http1->wire_bytes += *ret_used;
	if (http1->wire_bytes > http1->body_bytes + (http1->chunks + 1) * CHUNK_LINE_MAX +
	                            2ull * http1->extensions + 2ull * TRAILERS_MAX) {
		http1->error = CLOSE_BAD_CHUNK;
		return fail(http1, error, length);
	}
	return error == HPE_OK ? HTTP1_MORE : HTTP1_DONE;
}

enum http1_result
http1_body(struct http1 *http1, char *data, size_t length, size_t *ret_payload, size_t *ret_used)
{
	struct head *head = &http1->head;
	size_t take = length;

	*ret_payload = *ret_used = 0;
	switch (head->framing) {
	case BODY_NONE:
		return HTTP1_DONE;
	case BODY_CHUNKED:
		return body_chunked(http1, data, length, ret_payload, ret_used);
	case BODY_LENGTH:
		if (take > head->content_length - http1->body_bytes)
			take = (size_t)(head->content_length - http1->body_bytes);
		break;
	case BODY_UNTIL_EOF:
		break;
	}
	*ret_payload = *ret_used = take;
	http1->body_bytes += take;
	if (head->framing == BODY_LENGTH && http1->body_bytes == head->content_length)
		return HTTP1_DONE;
	return HTTP1_MORE;
}

enum http1_result
http1_eof(const struct http1 *http1)
{
	return http1->in_body && http1->head.framing == BODY_UNTIL_EOF ? HTTP1_DONE : HTTP1_ERROR;
}
