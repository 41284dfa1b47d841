/* PROXY protocol: vectors of both versions, each also in every prefix, and every byte damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "model/proxy_header.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define LITERAL(text) (text), sizeof(text) - 1

struct vector {
	const char *bytes;
	size_t length;
	enum proxy_header_result result;
	const char *source; /* null: none */
};

#define GOOD(text, source)                               \
	{                                                \
		LITERAL(text), PROXY_HEADER_DONE, source \
	}
#define BAD(text)                                     \
	{                                             \
		LITERAL(text), PROXY_HEADER_BAD, NULL \
	}

#define ADDRESSES4 "\xc0\x00\x02\x01\x0a\x00\x00\x01\xc3\x50\x01\xbb"
#define ADDRESSES6                                                         \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\xfe\x80\0\0\0\0\0\0\0" \
	"\0\0\0\0\0\0\x01\x00\x50\x01\xbb"

static const struct vector vectors[] = {
    /* version 1 */
    GOOD("PROXY TCP4 192.0.2.1 10.0.0.1 50000 443\r\n", "192.0.2.1:50000"),
    GOOD("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
    GOOD("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0"),
    GOOD("PROXY TCP6 2001:db8::7 fe80::1 80 443\r\n", "[2001:db8::7]:80"),
    GOOD("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    GOOD("PROXY UNKNOWN\r\n", NULL),
    GOOD("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         NULL),
    GOOD("PROXY UNKNOWN anything may stand here\r\n", NULL),
    BAD("PROXY\r\n"),
    BAD("PROXY \r\n"),
    BAD("PROXY TCP4\r\n"),
    BAD("PROXY TCP5 192.0.2.1 10.0.0.1 50000 443\r\n"),
    BAD("PROXY UDP4 192.0.2.1 10.0.0.1 50000 443\r\n"),
    BAD("proxy TCP4 192.0.2.1 10.0.0.1 50000 443\r\n"),
    BAD("PROXY tcp4 192.0.2.1 10.0.0.1 50000 443\r\n"),
    BAD("PROXY  TCP4 192.0.2.1 10.0.0.1 50000 443\r\n"),
    BAD("PROXY TCP4  192.0.2.1 10.0.0.1 50000 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1  50000 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 50000 443 \r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 50000\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 50000 443 1\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 65536 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 50000 70000\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 050 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 -1 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 +1 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 1x 443\r\n"),
    BAD("PROXY TCP4 192.0.2.256 10.0.0.1 50000 443\r\n"),
    BAD("PROXY TCP4 192.0.2 10.0.0.1 50000 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1\0 10.0.0.1 50000 443\r\n"),
    BAD("PROXY TCP4 2001:db8::7 fe80::1 80 443\r\n"),
    BAD("PROXY TCP6 192.0.2.1 10.0.0.1 50000 443\r\n"),
    BAD("PROXY TCP6 2001:db8::7%eth0 fe80::1 80 443\r\n"),
    BAD("PROXY TCP4 192.0.2.1 10.0.0.1 50000 443\n"),
    BAD("PROXY UNKNOWN\n"),
    BAD("PROXY UNKNOWNX\r\n"),
    /* none at all */
    BAD("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    BAD("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    BAD("\r\n\r\nGET / HTTP/1.1\r\n"),
    BAD("\0"),
    /* version 2 */
    GOOD(SIGNATURE "\x21\x11\x00\x0c" ADDRESSES4, "192.0.2.1:50000"),
    GOOD(SIGNATURE "\x21\x21\x00\x24" ADDRESSES6, "[2001:db8::7]:80"),
    GOOD(SIGNATURE "\x20\x00\x00\x00", NULL),                     /* LOCAL */
    GOOD(SIGNATURE "\x20\x11\x00\x0c" ADDRESSES4, NULL),          /* LOCAL, said in full */
    GOOD(SIGNATURE "\x20\x7f\x00\x03\x01\x02\x03", NULL),         /* LOCAL, anything */
    GOOD(SIGNATURE "\x21\x00\x00\x00", NULL),                     /* unspecified */
    GOOD(SIGNATURE "\x21\x00\x00\x05\x01\x02\x03\x04\x05", NULL), /* the same, with bytes */
    GOOD(SIGNATURE "\x21\x11\x00\x0f" ADDRESSES4 "\x04\x00\x00", "192.0.2.1:50000"),
    GOOD(SIGNATURE "\x21\x11\x00\x14" ADDRESSES4 "\x04\x00\x00\x02\x00\x02hi", "192.0.2.1:50000"),
    GOOD(SIGNATURE "\x21\x11\x00\x13" ADDRESSES4 "\x03\x00\x04\x2c\x4c\x94\xae",
         "192.0.2.1:50000"), /* CRC-32C */
    BAD(SIGNATURE "\x21\x11\x00\x13" ADDRESSES4 "\x03\x00\x04\x2c\x4c\x94\xaf"),
    BAD(SIGNATURE "\x21\x11\x00\x12" ADDRESSES4 "\x03\x00\x03\x2c\x4c\x94"),
    BAD(SIGNATURE "\x11\x11\x00\x0c" ADDRESSES4), /* version 1 in binary */
    BAD(SIGNATURE "\x31\x11\x00\x0c" ADDRESSES4), /* version 3 */
    BAD(SIGNATURE "\x22\x11\x00\x0c" ADDRESSES4), /* unknown command */
    BAD(SIGNATURE "\x21\x12\x00\x0c" ADDRESSES4), /* datagrams */
    BAD(SIGNATURE "\x21\x10\x00\x0c" ADDRESSES4), /* no transport */
    BAD(SIGNATURE "\x21\x41\x00\x0c" ADDRESSES4), /* unknown family */
    BAD(SIGNATURE "\x21\x11\x00\x0b\xc0\x00\x02\x01\x0a\x00\x00\x01\xc3\x50\x01"),
    BAD(SIGNATURE "\x21\x21\x00\x0c" ADDRESSES4),                /* too short for IPv6 */
    BAD(SIGNATURE "\x21\x11\x00\x0d" ADDRESSES4 "\x04"),         /* TLV cut */
    BAD(SIGNATURE "\x21\x11\x00\x0f" ADDRESSES4 "\x04\x00\x01"), /* TLV beyond the end */
    BAD(SIGNATURE "\x21\x11\x00\x10" ADDRESSES4 "\x04\xff\xff\x01"),
    BAD("\r\n\r\n\0\r\nQUIT\r\x21\x11\x00\x0c" ADDRESSES4),
};

/* From memory of exactly that size, so that a sanitizer sees one byte too far. */
static enum proxy_header_result
parse(const char *bytes, size_t length, struct proxy_header *ret)
{
	char *copy = malloc(length ? length : 1);
	enum proxy_header_result result;

	assert_non_null(copy);
	memcpy(copy, bytes, length);
	result = proxy_header_parse(copy, length, ret);
	free(copy);
	return result;
}

static void
assert_source(const struct proxy_header *header, const char *source)
{
	char text[NET_ADDRESS_TEXT_SIZE];

	assert_int_equal(header->has_source, source != NULL);
	if (!source)
		return;
	net_address_format(&header->source, text, sizeof text);
	assert_string_equal(text, source);
}

static void
test_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		struct proxy_header header;
		enum proxy_header_result result = parse(v->bytes, v->length, &header);

		if (result != v->result)
			fail_msg("vector %zu: %d, not %d", i, result, v->result);
		if (result != PROXY_HEADER_DONE)
			continue;
		assert_int_equal(header.length, v->length);
		assert_source(&header, v->source);
	}
}

/* Every prefix of a good header wants more; every prefix of a bad one wants more or is refused, and
 * once refused it stays so. What follows a header is not looked at. */
static void
test_every_split(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		bool refused = false;

		for (size_t n = 0; n < v->length; n++) {
			struct proxy_header header;
			enum proxy_header_result result = parse(v->bytes, n, &header);

			if (v->result == PROXY_HEADER_DONE)
				assert_int_equal(result, PROXY_HEADER_MORE);
			else if (refused)
				assert_int_equal(result, PROXY_HEADER_BAD);
			else
				assert_true(result == PROXY_HEADER_MORE ||
				            result == PROXY_HEADER_BAD);
			refused |= result == PROXY_HEADER_BAD;
		}
	}
}

static void
test_more_behind(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		char bytes[512];
		struct proxy_header header;

		if (v->result != PROXY_HEADER_DONE)
			continue;
		memcpy(bytes, v->bytes, v->length);
		memcpy(bytes + v->length, "GET / HTTP/1.1\r\n", 16);
		assert_int_equal(parse(bytes, v->length + 16, &header), PROXY_HEADER_DONE);
		assert_int_equal(header.length, v->length);
		assert_source(&header, v->source);
	}
}

static void
test_line_limit(void **state)
{
	char line[PROXY_HEADER_LINE_MAX + 8];
	struct proxy_header header;

	(void)state;
	memset(line, 'x', sizeof line);
	memcpy(line, "PROXY UNKNOWN ", 14);
	memcpy(line + PROXY_HEADER_LINE_MAX - 2, "\r\n", 2);
	assert_int_equal(parse(line, PROXY_HEADER_LINE_MAX, &header), PROXY_HEADER_DONE);
	memset(line, 'x', sizeof line);
	memcpy(line, "PROXY UNKNOWN ", 14);
	assert_int_equal(parse(line, PROXY_HEADER_LINE_MAX - 1, &header), PROXY_HEADER_MORE);
	assert_int_equal(parse(line, PROXY_HEADER_LINE_MAX, &header), PROXY_HEADER_TOO_LARGE);
	memcpy(line + PROXY_HEADER_LINE_MAX - 1, "\r\n", 2);
	assert_int_equal(parse(line, PROXY_HEADER_LINE_MAX + 1, &header), PROXY_HEADER_TOO_LARGE);
}

/* A version 2 header of `length` bytes: one TLV fills it. */
static void
fill(char *header, size_t length)
{
	size_t rest = length - 16, value = length - 16 - 12 - 3;

	memcpy(header, SIGNATURE "\x21\x11", 14);
	header[14] = (char)(rest >> 8);
	header[15] = (char)rest;
	memcpy(header + 16, ADDRESSES4, 12);
	header[28] = 4;
	header[29] = (char)(value >> 8);
	header[30] = (char)value;
	memset(header + 31, 'x', value);
}

static void
test_size_limit(void **state)
{
	static char bytes[PROXY_HEADER_MAX + 1];
	struct proxy_header header;

	(void)state;
	fill(bytes, PROXY_HEADER_MAX);
	assert_int_equal(parse(bytes, PROXY_HEADER_MAX - 1, &header), PROXY_HEADER_MORE);
	assert_int_equal(parse(bytes, PROXY_HEADER_MAX, &header), PROXY_HEADER_DONE);
	assert_int_equal(header.length, PROXY_HEADER_MAX);
	fill(bytes, PROXY_HEADER_MAX + 1);
	/* refused as soon as its length is known */
	assert_int_equal(parse(bytes, 15, &header), PROXY_HEADER_MORE);
	assert_int_equal(parse(bytes, 16, &header), PROXY_HEADER_TOO_LARGE);
}

/* No damage makes it read too far or crash, whatever it answers. */
static void
test_damage(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];

		for (size_t at = 0; at < v->length; at++) {
			for (unsigned bit = 0; bit < 8; bit++) {
				char bytes[256];
				struct proxy_header header;

				memcpy(bytes, v->bytes, v->length);
				bytes[at] = (char)(bytes[at] ^ 1 << bit);
				if (parse(bytes, v->length, &header) == PROXY_HEADER_DONE)
					assert_true(header.length <= v->length);
			}
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_vectors),     cmocka_unit_test(test_every_split),
	    cmocka_unit_test(test_more_behind), cmocka_unit_test(test_line_limit),
	    cmocka_unit_test(test_size_limit),  cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
