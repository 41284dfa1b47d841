/* What a safe proxy refuses beyond its parser (RFC 9110, RFC 9112; numbers in the source are those of the
 * rule list in docs/internals.md). Pure functions over a parsed head. */
#ifndef TAILRACE_MODEL_HTTP_RULES_H
#define TAILRACE_MODEL_HTTP_RULES_H

#include <stdbool.h>
#include <stdint.h>
#include "model/close_reason.h"
#include "model/headers.h"

/* llhttp's method numbers, repeated here so that the model needs no parser; asserted in http1.c. */
enum {
	RULES_METHOD_GET = 1,
	RULES_METHOD_HEAD = 2,
	RULES_METHOD_POST = 3,
	RULES_METHOD_PUT = 4,
	RULES_METHOD_DELETE = 0,
	RULES_METHOD_CONNECT = 5,
	RULES_METHOD_OPTIONS = 6,
	RULES_METHOD_TRACE = 7
};

/* The scheme a request target names, if it does. */
enum target_scheme { TARGET_NO_SCHEME, TARGET_HTTP, TARGET_HTTPS };

/* What the rules found out about a request they accept. Texts borrow from the head. */
struct request_facts {
	struct text
	    target; /* origin-form or "*": what the app gets; a `?` at its start wants a `/` */
	struct text host; /* Host, or the authority of an absolute target; may be empty */
	enum target_scheme scheme;
	bool expects_continue;
	bool takes_trailers; /* TE: trailers */
	bool websocket;      /* asks to leave HTTP for WebSocket (RFC 6455), properly */
};

/* Judges a request head and sets framing, keep_alive and nominations in it. Returns CLOSE_NONE with
 * *ret filled, or the reason it is refused for. */
enum close_reason http_rules_request(struct head *head, struct request_facts *ret);

/* Judges a final or interim response head to a request of `method`, which asked to leave HTTP where
 * `upgrade_sent` (else 101 is refused), and sets its framing and
 * nominations. Returns CLOSE_NONE or the reason (a 502). */
enum close_reason http_rules_response(struct head *head, uint8_t method, bool upgrade_sent);

/* RFC 9110 9.2.2: may a request of this method be sent again? */
bool http_rules_idempotent(uint8_t method);

/* Has the response to `method` with `status` no body whatever its fields say (RFC 9112 6.3)? */
bool http_rules_bodyless(uint8_t method, unsigned status);

/* Host = uri-host [ ":" port ] (RFC 9110 7.2), strictly; empty is valid. */
bool http_rules_host_valid(struct text host);

/* Digits only, no sign, no list, fits 63 bits. 0, or -1. */
int http_rules_length(struct text value, uint64_t *ret);

#endif
