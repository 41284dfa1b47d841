/* http_rules and http1: what a request or response must look like to be passed on. Every vector
 * goes through the parser whole, byte by byte and cut in two at every byte, and all must agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model/http_rules.h"
#include "proxy/http1.h"

#define BYTES_MAX 65536

static const struct config_limits limits = {
    .request_line_bytes = 8192, .head_bytes = 32768, .headers = 100};
static struct http1 http1;
static char bytes[BYTES_MAX];

struct outcome {
	enum close_reason reason;
	bool complete;
	size_t payload_length;
	size_t used;
	char payload[4096];
};

/* How many of the bytes from `at` on come in one read: `step`, but never over `cut`. */
static size_t
next_read(size_t at, size_t length, size_t step, size_t cut)
{
	size_t n = length - at < step ? length - at : step;

	return at < cut && at + n > cut ? cut - at : n;
}

static enum close_reason
run_body(const char *data, size_t length, size_t step, size_t cut, struct outcome *ret)
{
	static char piece[BYTES_MAX];

	while (!ret->complete) {
		size_t n = next_read(ret->used, length, step, cut);
		size_t payload, used;
		enum http1_result result;

		memcpy(piece, data + ret->used, n);
		result = http1_body(&http1, piece, n, &payload, &used);
		if (result == HTTP1_ERROR)
			return http1.error;
		memcpy(ret->payload + ret->payload_length, piece, payload);
		ret->payload_length += payload;
		ret->used += used;
		ret->complete = result == HTTP1_DONE;
		if (n == 0)
			break;
	}
	return CLOSE_NONE;
}

static struct outcome
run_cut(llhttp_type_t type, uint8_t method, const char *data, size_t length, size_t step,
        size_t cut)
{
	struct outcome outcome = {0};
	struct request_facts facts;
	enum http1_result result = HTTP1_MORE;

	assert_true(length <= BYTES_MAX);
	memcpy(bytes, data, length);
	http1_init(&http1, type, &limits);
	for (size_t have = 0; result == HTTP1_MORE && have < length;) {
		have += next_read(have, length, step, cut);
		result = http1_head(&http1, bytes, have);
	}
	if (result == HTTP1_MORE) {
		outcome.reason = CLOSE_CLIENT_ABORT; /* stands for "unfinished" */
		return outcome;
	}
	outcome.reason = http1.error;
	if (result == HTTP1_HEAD)
		outcome.reason = type == HTTP_REQUEST
		                     ? http_rules_request(&http1.head, &facts)
		                     : http_rules_response(&http1.head, method, false);
	if (outcome.reason == CLOSE_NONE)
		outcome.reason =
		    run_body(data + http1.head.length, length - http1.head.length, step,
		             cut > http1.head.length ? cut - http1.head.length : 0, &outcome);
	return outcome;
}

static struct outcome
run(llhttp_type_t type, uint8_t method, const char *data, size_t length, size_t step)
{
	return run_cut(type, method, data, length, step, 0);
}

struct vector {
	const char *data;
	size_t length;
	enum close_reason reason;
};
#define V(text, reason)                                \
	{                                              \
		text, sizeof(text) - 1, CLOSE_##reason \
	}
#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n"
#define POST "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WEBSOCKET(method, key, version)                                  \
	method " / HTTP/1.1\r\n" H "Connection: keep-alive, Upgrade\r\n" \
	       "Upgrade: WebSocket\r\nSec-WebSocket-Key: " key "\r\n"    \
	       "Sec-WebSocket-Version: " version "\r\n"
#define OK11 "HTTP/1.1 200 OK\r\n"

static void
same_outcome(const struct vector *v, const struct outcome *a, const struct outcome *b)
{
	if (a->reason != v->reason || b->reason != v->reason)
		fail_msg("%s\nexpected %s, whole %s, in pieces %s", v->data,
		         close_reason_name(v->reason), close_reason_name(a->reason),
		         close_reason_name(b->reason));
	if (v->reason != CLOSE_NONE)
		return;
	assert_int_equal(a->complete, b->complete);
	assert_int_equal(a->payload_length, b->payload_length);
	assert_memory_equal(a->payload, b->payload, a->payload_length);
}

static void
check(llhttp_type_t type, uint8_t method, const struct vector *vectors, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct vector *v = &vectors[i];
		struct outcome whole = run(type, method, v->data, v->length, v->length);
		struct outcome pieces = run(type, method, v->data, v->length, 1);

		same_outcome(v, &whole, &pieces);
		for (size_t cut = 1; cut < v->length; cut++) {
			pieces = run_cut(type, method, v->data, v->length, v->length, cut);
			same_outcome(v, &whole, &pieces);
		}
	}
}
#define CHECK(type, method, vectors) \
	check(type, method, vectors, sizeof vectors / sizeof vectors[0])

static void
good_requests(void **state)
{
	static const struct vector vectors[] = {
	    V(GET H "\r\n", NONE),
	    V("GET / HTTP/1.0\r\n\r\n", NONE),
	    V("GET / HTTP/1.1\r\nHost:\r\n\r\n", NONE),
	    V("GET /a?b=c%20d&e HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", NONE),
	    V("GET http://A.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", NONE),
	    V("GET http://a:80/ HTTP/1.1\r\nHost: A\r\n\r\n", NONE),
	    V("GET https://a/ HTTP/1.1\r\nHost: a:443\r\n\r\n", NONE),
	    V("GET http://a?b HTTP/1.1\r\n" H "\r\n", NONE),
	    V("GET http://a/ HTTP/1.0\r\n\r\n", NONE),
	    V("OPTIONS http://a HTTP/1.1\r\n" H "\r\n", NONE),
	    V("GET /?q=%00 HTTP/1.1\r\n" H "\r\n", NONE),
	    V("OPTIONS * HTTP/1.1\r\n" H "\r\n", NONE),
	    V(POST "Content-Length: 5\r\n\r\nhello", NONE),
	    V(POST "Content-Length: 0\r\n\r\n", NONE),
	    V(CHUNKED "5;a=b;c=\"d\"\r\nhello\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n", NONE),
	    V(POST "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", NONE),
	    V(POST "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx", NONE),
	    V("POST / HTTP/1.0\r\nExpect: anything\r\nContent-Length: 1\r\n\r\nx", NONE),
	    V(GET H "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
	            "HTTP2-Settings: x\r\n\r\n",
	      NONE),
	    V(GET H "X: \x80\xff\t tab\r\n\r\n", NONE),
	    V("QUERY / HTTP/1.1\r\n" H "\r\n", NONE),
	    V(WEBSOCKET("GET", KEY, "13") "\r\n", NONE),
	    V(GET H "Upgrade: h2c, websocket\r\n\r\n", NONE), /* no connection option: ignored */
	    V("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", NONE),
	};

	(void)state;
	CHECK(HTTP_REQUEST, 0, vectors);
}

/* Rules 1, 2, 3, 7 of the reference: versions, Host, targets, request line. */
static void
bad_request_lines_and_hosts(void **state)
{
	static const struct vector vectors[] = {
	    V("GET /x\nHost: a\r\nContent-Length: 5\r\n\r\nhello", BAD_VERSION), /* llhttp #877 */
	    V("GET / HTTP/0.9\r\n" H "\r\n", BAD_VERSION),
	    V("GET / HTTP/2.0\r\n" H "\r\n", BAD_VERSION),
	    V("GET / HTTP/1.2\r\n" H "\r\n", BAD_VERSION),
	    V("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD_VERSION),
	    V("GET / HTTP/1.1 \r\n" H "\r\n", BAD_VERSION),
	    V("GET / RTSP/1.0\r\n" H "\r\n", BAD_REQUEST_LINE),
	    V("GET  / HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
	    V("GET /  HTTP/1.1\r\n" H "\r\n", BAD_REQUEST_LINE),
	    V("GET\t/ HTTP/1.1\r\n" H "\r\n", BAD_REQUEST),
	    V("get / HTTP/1.1\r\n" H "\r\n", BAD_REQUEST),
	    V("\x16\x03\x01\x02\x00\x01\x00\x01", BAD_REQUEST),
	    V("FOO / HTTP/1.1\r\n" H "\r\n", BAD_METHOD),
	    V("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", CONNECT_REFUSED),
	    V("GET /a#b HTTP/1.1\r\n" H "\r\n", TARGET_FRAGMENT),
	    V("GET * HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
	    V("GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
	    V("GET http://u:p@a/ HTTP/1.1\r\n" H "\r\n", TARGET_USERINFO),
	    V("GET /a%00b HTTP/1.1\r\n" H "\r\n", TARGET_NUL),
	    V("GET http:// HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
	    V("GET http:///x HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
	    V("GET ftp://a/ HTTP/1.1\r\n" H "\r\n", BAD_TARGET),
	    V("GET http://b/ HTTP/1.1\r\n" H "\r\n", HOST_MISMATCH),
	    V("GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n\r\n", HOST_MISMATCH),
	    V("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", HOST_MISMATCH),
	    V("GET / HTTP/1.1\r\n\r\n", HOST_MISSING),
	    V("GET http://a/ HTTP/1.1\r\n\r\n", HOST_MISSING),
	    V("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HOST_REPEATED),
	    V("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", HOST_REPEATED),
	    V("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: [::g]\r\n\r\n", BAD_HOST),
	    V("GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n", BAD_HOST),
	};

	(void)state;
	CHECK(HTTP_REQUEST, 0, vectors);
}

/* Rules 4, 5, 6 and the CVEs of the reference's 3.3: what could be framed in two ways. */
static void
smuggling_is_refused(void **state)
{
	static const struct vector vectors[] = {
	    V(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	      LENGTH_AND_ENCODING),
	    V(POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	      LENGTH_AND_ENCODING),
	    V(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", LENGTH_REPEATED),
	    V(POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", LENGTH_REPEATED),
	    V(POST "Content-Length: 5, 5\r\n\r\nhello", BAD_LENGTH),
	    V(POST "Content-Length: +5\r\n\r\nhello", BAD_LENGTH),
	    V(POST "Content-Length: -5\r\n\r\nhello", BAD_LENGTH),
	    V(POST "Content-Length: 0x5\r\n\r\nhello", BAD_LENGTH),
	    V(POST "Content-Length:\r\n\r\nhello", BAD_LENGTH),
	    V(POST "Content-Length: 99999999999999999999\r\n\r\n", BAD_LENGTH),
	    V(POST "Content-Length: 9223372036854775808\r\n\r\n", BAD_LENGTH),
	    V(POST "Transfer-Encoding: gzip\r\n\r\n", BAD_ENCODING),
	    V(POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD_ENCODING),
	    V(POST "Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", BAD_ENCODING),
	    V(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	      ENCODING_MALFORMED),
	    V(POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BAD_ENCODING),
	    V(POST "Transfer-Encoding:\r\n\r\n0\r\n\r\n", ENCODING_MALFORMED),
	    V(POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", BAD_HEADER_VALUE),
	    V(POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BAD_HEADER),
	    V("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ENCODING_ON_HTTP10),
	    V(GET "Host: a\rX: y\r\n\r\n", BAD_LINE_END),
	    V(GET "Host: a\nX: y\r\n\r\n", BAD_LINE_END),
	    V(GET H "X:\rTransfer-Encoding: chunked\r\n\r\n", BAD_LINE_END),
	    V(GET H "X: y\r\n z\r\n\r\n", HEADER_FOLDED),
	    V(GET H "X: a\0b\r\n\r\n", BAD_HEADER_VALUE),
	    V(GET H "X: a\x01"
	            "b\r\n\r\n",
	      BAD_HEADER_VALUE),
	    V(GET H ": a\r\n\r\n", BAD_HEADER),
	    V(GET H "X Y: a\r\n\r\n", BAD_HEADER),
	    V(GET H "Connection: close, Content-Length\r\n\r\n", BAD_NOMINATION),
	    V(GET H "Connection: x-tailrace\r\n\r\n", BAD_NOMINATION),
	    V(GET H "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", BAD_UPGRADE),
	    V(WEBSOCKET("GET", "short", "13") "\r\n", BAD_UPGRADE),
	    V(WEBSOCKET("POST", KEY, "13") "\r\n", BAD_UPGRADE),
	    V(WEBSOCKET("GET", KEY, "13") "Content-Length: 1\r\n\r\nx", BAD_UPGRADE),
	    V(WEBSOCKET("GET", KEY, "13") "Sec-WebSocket-Key: " KEY "\r\n\r\n", BAD_UPGRADE),
	    V(WEBSOCKET("GET", KEY, "8") "\r\n", UPGRADE_VERSION),
	    V(POST "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", BAD_EXPECT),
	};

	(void)state;
	CHECK(HTTP_REQUEST, 0, vectors);
}

static void
bad_chunks_are_refused(void **state)
{
	static const struct vector vectors[] = {
	    V(CHUNKED "5\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "5\r\nhello\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "5\r\nhelloX\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "-5\r\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "0x5\r\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED " 5\r\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "5 \r\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "fffffffffffffffff\r\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "g\r\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "\r\nhello\r\n0\r\n\r\n", BAD_CHUNK),
	    V(CHUNKED "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", BAD_TRAILER),
	    V(CHUNKED "5\r\nhello\r\n0\r\nX Y: z\r\n\r\n", BAD_TRAILER),
	    V(CHUNKED "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n", BAD_TRAILER),
	};

	(void)state;
	CHECK(HTTP_REQUEST, 0, vectors);
}

/* Rule 16: the same on responses. */
static void
bad_responses_are_refused(void **state)
{
	static const struct vector vectors[] = {
	    V(OK11 "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", RESPONSE_LENGTH),
	    V(OK11 "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", RESPONSE_LENGTH),
	    V(OK11 "Content-Length: x\r\n\r\nok", RESPONSE_LENGTH),
	    V(OK11 "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", RESPONSE_ENCODING),
	    V(OK11 "Transfer-Encoding: chunked\r\n\r\nzz\r\n", RESPONSE_CHUNK),
	    V("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", RESPONSE_ENCODING),
	    V("HTTP/0.9 200 OK\r\n\r\n", RESPONSE_VERSION),
	    V("HTTP/2.0 200 OK\r\n\r\n", RESPONSE_VERSION),
	    V("HTTP/1.1 099 Low\r\n\r\n", RESPONSE_STATUS),
	    V("HTTP/1.1 600 High\r\n\r\n", RESPONSE_STATUS),
	    V("HTTP/1.1 20 Short\r\n\r\n", RESPONSE_STATUS),
	    V("HTTP/1.1 101 Switching\r\n\r\n", RESPONSE_UPGRADE),
	    V(OK11 "X: a\r\n b\r\n\r\n", RESPONSE_HEADER),
	    V(OK11 "X: a\0b\r\n\r\n", RESPONSE_HEADER),
	    V("HTTP/1.1 200 O\0K\r\n\r\n", RESPONSE_STATUS),
	    V("HTTP/1.1 200 O\x1bK\r\n\r\n", RESPONSE_STATUS),
	    V("HTTP/1.1 200 O\x7fK\r\n\r\n", RESPONSE_STATUS),
	    V("HTTP/1.1 200 All \tfine \xc3\xa9\r\nContent-Length: 0\r\n\r\n", NONE),
	    V("SSH-2.0-OpenSSH\r\n", BAD_RESPONSE),
	    V(OK11 "Content-Length: 2\r\n\r\nok", NONE),
	    V(OK11 "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", NONE),
	    V("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", NONE),
	    V("HTTP/1.0 200 OK\r\n\r\nuntil the end", NONE),
	    V("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", NONE),
	};

	(void)state;
	CHECK(HTTP_RESPONSE, HTTP_GET, vectors);
}

static enum body_framing
framing_of(uint8_t method, const char *response)
{
	struct outcome outcome =
	    run(HTTP_RESPONSE, method, response, strlen(response), strlen(response));

	assert_int_equal(outcome.reason, CLOSE_NONE);
	return http1.head.framing;
}

static void
bodyless_responses(void **state)
{
	(void)state;
	assert_int_equal(framing_of(HTTP_HEAD, OK11 "Content-Length: 5\r\n\r\n"), BODY_NONE);
	assert_int_equal(framing_of(HTTP_HEAD, OK11 "Transfer-Encoding: chunked\r\n\r\n"),
	                 BODY_NONE);
	assert_int_equal(framing_of(HTTP_GET, "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"),
	                 BODY_NONE);
	assert_int_equal(framing_of(HTTP_GET, "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"),
	                 BODY_NONE);
	assert_int_equal(framing_of(HTTP_GET, "HTTP/1.1 199 No\r\nContent-Length: 5\r\n\r\n"),
	                 BODY_NONE);
	assert_int_equal(framing_of(HTTP_GET, OK11 "Content-Length: 0\r\n\r\n"), BODY_NONE);
	assert_int_equal(framing_of(HTTP_GET, OK11 "Content-Length: 1\r\n\r\nx"), BODY_LENGTH);
	assert_int_equal(framing_of(HTTP_GET, OK11 "\r\nx"), BODY_UNTIL_EOF);
	assert_int_equal(http1_eof(&http1), HTTP1_DONE);
	assert_int_equal(framing_of(HTTP_GET, OK11 "Content-Length: 9\r\n\r\nx"), BODY_LENGTH);
	assert_int_equal(http1_eof(&http1), HTTP1_ERROR);
}

static void
payload_is_compacted(void **state)
{
	const char *request =
	    CHUNKED "5;x=y\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\nGET /next";
	struct outcome outcome = run(HTTP_REQUEST, 0, request, strlen(request), strlen(request));

	(void)state;
	assert_true(outcome.complete);
	assert_int_equal(outcome.payload_length, 11);
	assert_memory_equal(outcome.payload, "hello world", 11);
	assert_string_equal(request + http1.head.length + outcome.used, "GET /next");
}

static size_t
padded(char *out, const char *before, size_t pad, const char *after)
{
	size_t at = strlen(before);

	memcpy(out, before, at);
	memset(out + at, 'a', pad);
	memcpy(out + at + pad, after, strlen(after));
	return at + pad + strlen(after);
}

static enum close_reason
reason_of(const char *before, size_t pad, const char *after)
{
	static char text[BYTES_MAX];
	size_t length = padded(text, before, pad, after);

	return run(HTTP_REQUEST, 0, text, length, 1000).reason;
}

static void
limits_at_and_past_the_maximum(void **state)
{
	const size_t line = limits.request_line_bytes - strlen("GET / HTTP/1.1");
	const size_t head = limits.head_bytes - strlen(GET H "X: \r\n\r\n");
	char many[BYTES_MAX];
	size_t at;

	(void)state;
	assert_int_equal(reason_of("GET /", line, " HTTP/1.1\r\n" H "\r\n"), CLOSE_NONE);
	assert_int_equal(reason_of("GET /", line + 1, " HTTP/1.1\r\n" H "\r\n"),
	                 CLOSE_LINE_TOO_LONG);
	assert_int_equal(reason_of("GET /", 20000, ""), CLOSE_LINE_TOO_LONG);
	assert_int_equal(reason_of(GET H "X: ", head, "\r\n\r\n"), CLOSE_NONE);
	assert_int_equal(reason_of(GET H "X: ", head + 1, "\r\n\r\n"), CLOSE_HEAD_TOO_LARGE);
	assert_int_equal(reason_of(GET H "X: ", head + 5000, ""), CLOSE_HEAD_TOO_LARGE);
	for (uint32_t fields = limits.headers; fields <= limits.headers + 1; fields++) {
		at = (size_t)sprintf(many, GET H);
		for (uint32_t i = 1; i < fields; i++)
			at += (size_t)sprintf(many + at, "X-%u: y\r\n", i);
		at += (size_t)sprintf(many + at, "\r\n");
		assert_int_equal(run(HTTP_REQUEST, 0, many, at, at).reason,
		                 fields == limits.headers ? CLOSE_NONE : CLOSE_TOO_MANY_HEADERS);
	}
	assert_int_equal(reason_of(CHUNKED "1;", CHUNK_EXTENSION_MAX - 1, "\r\nx\r\n0\r\n\r\n"),
	                 CLOSE_NONE);
	assert_int_equal(reason_of(CHUNKED "1;", CHUNK_EXTENSION_MAX, "\r\nx\r\n0\r\n\r\n"),
	                 CLOSE_CHUNK_EXTENSION_TOO_LARGE);
	assert_int_equal(reason_of(CHUNKED "0\r\nX: ", TRAILERS_MAX - 5, "\r\n\r\n"), CLOSE_NONE);
	assert_int_equal(reason_of(CHUNKED "0\r\nX: ", TRAILERS_MAX - 4, "\r\n\r\n"),
	                 CLOSE_TRAILERS_TOO_LARGE);
}

/* What the app gets of each form of target. */
static void
targets(void **state)
{
	static const struct {
		const char *request, *target, *host;
	} cases[] = {
	    {"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n", "/a?b", "x"},
	    {"GET http://X:80/a HTTP/1.1\r\nHost: x\r\n\r\n", "/a", "X:80"},
	    {"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n", "/", "x"},
	    {"GET http://x?q HTTP/1.1\r\nHost: x\r\n\r\n", "?q", "x"},
	    {"OPTIONS http://x HTTP/1.1\r\nHost: x\r\n\r\n", "*", "x"},
	    {"OPTIONS http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", "/", "x"},
	    {"OPTIONS http://x?q HTTP/1.1\r\nHost: x\r\n\r\n", "?q", "x"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct request_facts facts;

		run(HTTP_REQUEST, 0, cases[i].request, strlen(cases[i].request), BYTES_MAX);
		assert_int_equal(http_rules_request(&http1.head, &facts), CLOSE_NONE);
		assert_int_equal(facts.target.length, strlen(cases[i].target));
		assert_memory_equal(facts.target.at, cases[i].target, facts.target.length);
		assert_int_equal(facts.host.length, strlen(cases[i].host));
		assert_memory_equal(facts.host.at, cases[i].host, facts.host.length);
	}
}

static void
trailers_on_the_list_are_kept(void **state)
{
	static char one[] = "x-sum", two[] = "x-more", *names[] = {one, two, NULL};
	static const char request[] =
	    CHUNKED "1\r\nx\r\n0\r\nX-Sum:  a b \r\nX-Other: c\r\nX-MORE:\r\nX-Sum: d\r\n\r\n";
	static const char expected[] = "X-Sum: a b\r\nX-MORE: \r\nX-Sum: d\r\n";
	struct config_limits own = limits;
	struct block_pool pool = {0};

	(void)state;
	own.trailers = names;
	for (size_t step = 1; step < sizeof request; step++) {
		struct block *kept = block_get(&pool, 0);
		struct outcome outcome = {0};
		struct request_facts facts;

		memcpy(bytes, request, sizeof request);
		http1_init(&http1, HTTP_REQUEST, &own);
		assert_int_equal(http1_head(&http1, bytes, sizeof request - 1), HTTP1_HEAD);
		assert_int_equal(http_rules_request(&http1.head, &facts), CLOSE_NONE);
		http1_keep_trailers(&http1, kept);
		assert_int_equal(run_body(request + http1.head.length,
		                          sizeof request - 1 - http1.head.length, step, 0,
		                          &outcome),
		                 CLOSE_NONE);
		assert_true(outcome.complete);
		assert_int_equal(block_length(kept), sizeof expected - 1);
		assert_memory_equal(kept->data + kept->start, expected, sizeof expected - 1);
		block_put(&pool, kept);
	}
	block_pool_clear(&pool);
}

static void
idempotent_methods(void **state)
{
	(void)state;
	assert_true(http_rules_idempotent(HTTP_GET));
	assert_true(http_rules_idempotent(HTTP_PUT));
	assert_true(http_rules_idempotent(HTTP_DELETE));
	assert_false(http_rules_idempotent(HTTP_POST));
	assert_false(http_rules_idempotent(HTTP_PATCH));
	assert_true(http1_parser_safe());
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good_requests),
	    cmocka_unit_test(bad_request_lines_and_hosts),
	    cmocka_unit_test(smuggling_is_refused),
	    cmocka_unit_test(bad_chunks_are_refused),
	    cmocka_unit_test(bad_responses_are_refused),
	    cmocka_unit_test(bodyless_responses),
	    cmocka_unit_test(payload_is_compacted),
	    cmocka_unit_test(limits_at_and_past_the_maximum),
	    cmocka_unit_test(targets),
	    cmocka_unit_test(trailers_on_the_list_are_kept),
	    cmocka_unit_test(idempotent_methods),
	};

	return cmocka_run_group_tests_name("http_rules", tests, NULL, NULL);
}
