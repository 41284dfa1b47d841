/* One message through http1 and the rules, whole or in pieces. */
#ifndef TAILRACE_TESTS_HTTP_KIT_H
#define TAILRACE_TESTS_HTTP_KIT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "model/http_rules.h"
#include "model/target.h"
#include "proxy/http1.h"

#define KIT_MAX 16384

struct outcome {
	enum close_reason reason;
	bool whole;  /* head and body */
	bool head;   /* at least the head */
	size_t used; /* of the body's bytes */
	size_t length;
	char payload[KIT_MAX];
};

static const struct config_limits kit_limits = {
    .request_line_bytes = 2000, .head_bytes = 4000, .headers = 30};

#define CHECK(what)              \
	do {                     \
		if (!(what))     \
			abort(); \
	} while (0)

/* Bytes [at, at + n) of what comes, in pieces of `step`. */
static inline size_t
piece(size_t at, size_t size, size_t step)
{
	return size - at < step ? size - at : step;
}

static inline void
run_body(struct http1 *http1, const uint8_t *data, size_t size, size_t step, struct outcome *ret)
{
	static char room[KIT_MAX];

	for (;;) {
		size_t n = piece(ret->used, size, step), payload, used;
		enum http1_result result;

		memcpy(room, data + ret->used, n);
		result = http1_body(http1, room, n, &payload, &used);
		if (result == HTTP1_ERROR) {
			ret->reason = http1->error;
			CHECK(ret->reason != CLOSE_NONE);
			return;
		}
		CHECK(payload <= used && used <= n && ret->length + payload <= KIT_MAX);
		memcpy(ret->payload + ret->length, room, payload);
		ret->length += payload;
		ret->used += used;
		ret->whole = result == HTTP1_DONE;
		if (ret->whole || ret->used == size)
			return;
		CHECK(used == n);
	}
}

static inline void
run_message(llhttp_type_t type, const uint8_t *data, size_t size, size_t step, struct outcome *ret)
{
	static struct http1 http1;
	static char normal[KIT_MAX];
	struct request_facts facts = {0};
	enum http1_result result = HTTP1_MORE;

	memset(ret, 0, offsetof(struct outcome, payload));
	http1_init(&http1, type, &kit_limits);
	for (size_t have = 0; result == HTTP1_MORE && have < size;) {
		have += piece(have, size, step);
		result = http1_head(&http1, (const char *)data, have);
	}
	if (result == HTTP1_MORE)
		return;
	ret->reason = http1.error;
	if (result == HTTP1_HEAD)
		ret->reason = type == HTTP_REQUEST
		                  ? http_rules_request(&http1.head, &facts)
		                  : http_rules_response(&http1.head, HTTP_GET, true);
	CHECK((result == HTTP1_HEAD) || ret->reason != CLOSE_NONE);
	if (ret->reason != CLOSE_NONE)
		return;
	ret->head = true;
	CHECK(http1.head.length <= size && http1.head.count <= kit_limits.headers);
	if (type == HTTP_REQUEST) {
		CHECK(facts.target.length > 0 && facts.target.length < KIT_MAX);
		CHECK(target_normal(facts.target, normal, facts.target.length).length > 0);
	}
	run_body(&http1, data + http1.head.length, size - http1.head.length, step, ret);
}

/* Whatever the pieces, the outcome is the same. */
static inline void
check_pieces(llhttp_type_t type, const uint8_t *data, size_t size)
{
	static struct outcome whole, pieces;
	static const size_t steps[] = {1, 2, 7, 64};

	if (size == 0 || size > KIT_MAX)
		return;
	run_message(type, data, size, size, &whole);
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		run_message(type, data, size, steps[i], &pieces);
		CHECK(pieces.head == whole.head);
		CHECK((pieces.reason == CLOSE_NONE) == (whole.reason == CLOSE_NONE));
		if (whole.reason != CLOSE_NONE)
			continue;
		CHECK(pieces.whole == whole.whole && pieces.length == whole.length);
		CHECK(memcmp(pieces.payload, whole.payload, whole.length) == 0);
	}
}

#endif
