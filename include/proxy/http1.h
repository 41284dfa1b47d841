/* llhttp 9.2.1 or newer behind a pull interface: bytes in, a head or body payload out. One message per
 * http1_init(); never lenient. Payload is compacted in place, so framing never travels on. */
#ifndef TAILRACE_PROXY_HTTP1_H
#define TAILRACE_PROXY_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <llhttp.h>
#include "base/config.h"
#include "model/close_reason.h"
#include "model/headers.h"
#include "proxy/block.h"

#define CHUNK_EXTENSION_MAX 256u   /* bytes per chunk */
#define CHUNK_EXTENSIONS_MAX 8192u /* bytes per message */
#define TRAILERS_MAX 8192u         /* bytes; dropped, but for limits.trailers */

enum http1_result {
	HTTP1_MORE,  /* all bytes used, the message goes on */
	HTTP1_HEAD,  /* http1_head(): head.length bytes were the head */
	HTTP1_DONE,  /* http1_body(): the message is complete */
	HTTP1_ERROR, /* http1->error says why */
};

struct http1 {
	llhttp_t parser;
	const struct config_limits *limits;
	uint32_t parsed; /* head bytes used so far */
	uint32_t name, name_length, value, value_length;
	bool in_name, in_value, in_body;
	enum close_reason error;
	uint64_t body_bytes; /* payload so far */
	uint64_t wire_bytes; /* chunked: bytes used so far */
	uint64_t chunks;
	uint32_t extension, extensions, trailers;
	char *out;
	struct block *kept; /* trailer fields that go on, ready to be written; null = none does */
	struct head head;
};

/* `type` is HTTP_REQUEST or HTTP_RESPONSE. `limits` outlives the message. */
void http1_init(struct http1 *http1, llhttp_type_t type, const struct config_limits *limits);

/* Feeds the head: `bytes` is where the message begins, `length` all that is there of it (the buffer may
 * have grown or moved since the last call). MORE, HEAD or ERROR. */
enum http1_result http1_head(struct http1 *http1, const char *bytes, size_t length);

/* Trailer fields of limits.trailers will be kept in `block`, a standard one, which the caller owns. */
void http1_keep_trailers(struct http1 *http1, struct block *block);

/* Whether limits.trailers names this field. */
bool http1_trailer_allowed(const struct config_limits *limits, const char *name, size_t length);

/* Feeds body bytes, after the rules set head.framing. The payload ends up at data[0, *ret_payload);
 * *ret_used tells how many of `length` bytes belonged to this message. MORE, DONE or ERROR. */
enum http1_result http1_body(struct http1 *http1, char *data, size_t length, size_t *ret_payload,
                             size_t *ret_used);

/* The sender closed. DONE where that is how the body ends, else ERROR: truncated. */
enum http1_result http1_eof(const struct http1 *http1);

/* "GET": static storage. */
struct text http1_method_text(uint8_t method);

/* The parser's version is one that is safe to use. */
bool http1_parser_safe(void);

#endif
