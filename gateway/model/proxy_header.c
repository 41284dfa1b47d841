/* PROXY protocol, versions 1 and 2. */
#include "model/proxy_header.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#define V2_FIXED 16u    /* signature, version and command, family, length */
#define V2_INET 12u     /* two addresses and two ports */
#define V2_INET6 36u    /* the same */
#define V2_UNIX 216u    /* two paths */
#define TLV_HEAD 3u     /* type and length */
#define TLV_CRC32C 0x03 /* four bytes, zero while the sum is taken */
#define TEXT_MAX 40u    /* an address in text, terminator included */

static const uint8_t v2_signature[12] = "\r\n\r\n\0\r\nQUIT\n";
static const char v1_signature[6] = "PROXY ";

/* --- version 1: one line of text ------------------------------------------------------- */

/* Takes the text up to `end` (a byte) off the line. False where there is none, or more than a
 * buffer holds. */
static bool
take_word(const char **at, const char *line_end, char end, char word[TEXT_MAX])
{
	const char *stop = memchr(*at, end, (size_t)(line_end - *at));
	size_t n = stop ? (size_t)(stop - *at) : 0;

	if (n == 0 || n >= TEXT_MAX)
		return false;
	memcpy(word, *at, n);
	word[n] = '\0';
	*at = stop + 1;
	return strlen(word) == n;
}

static bool
address_from(const char *text, int family, struct net_address *ret)
{
	*ret = (struct net_address){0};
	ret->sa.sa_family = (sa_family_t)family;
	if (family == AF_INET) {
		ret->length = sizeof ret->in;
		return inet_pton(AF_INET, text, &ret->in.sin_addr) == 1;
	}
	ret->length = sizeof ret->in6;
	return inet_pton(AF_INET6, text, &ret->in6.sin6_addr) == 1;
}

/* Decimal, without leading zeros. */
static bool
port_from(const char *text, uint16_t *ret)
{
	unsigned value = 0;
	size_t n = strspn(text, "0123456789");

	if (n == 0 || n > 5 || text[n] != '\0' || (n > 1 && text[0] == '0'))
		return false;
	for (size_t i = 0; i < n; i++)
		value = value * 10 + (unsigned)(text[i] - '0');
	*ret = (uint16_t)value;
	return value <= UINT16_MAX;
}

static bool
v1_addresses(const char *at, const char *line_end, int family, struct proxy_header *ret)
{
	char source[TEXT_MAX], destination[TEXT_MAX], source_port[TEXT_MAX], port[TEXT_MAX];
	struct net_address unused;
	uint16_t number, unused_number;

	/* The line's own CR ends the last word. */
	if (!take_word(&at, line_end, ' ', source) || !take_word(&at, line_end, ' ', destination) ||
	    !take_word(&at, line_end, ' ', source_port) || !take_word(&at, line_end, '\r', port) ||
	    at != line_end)
		return false;
	if (!address_from(source, family, &ret->source) ||
	    !address_from(destination, family, &unused) || !port_from(source_port, &number) ||
	    !port_from(port, &unused_number))
		return false;
	ret->source.in.sin_port = htons(number); /* at the same place in both families */
	ret->has_source = true;
	return true;
}

_Static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port),
               "the port stands at one place");

static bool
begins(const char *bytes, const char *end, const char *with, size_t n)
{
	return (size_t)(end - bytes) >= n && memcmp(bytes, with, n) == 0;
}

static enum proxy_header_result
v1_parse(const char *bytes, size_t length, struct proxy_header *ret)
{
	size_t seen = length < PROXY_HEADER_LINE_MAX ? length : PROXY_HEADER_LINE_MAX;
	const char *lf = memchr(bytes, '\n', seen);
	const char *at = bytes + sizeof v1_signature;
	bool right = false;

	if (!lf)
		return length < PROXY_HEADER_LINE_MAX ? PROXY_HEADER_MORE : PROXY_HEADER_TOO_LARGE;
	if (lf - at < 2 || lf[-1] != '\r')
		return PROXY_HEADER_BAD;
	ret->length = (size_t)(lf - bytes) + 1;
	if (begins(at, lf, "TCP4 ", 5))
		right = v1_addresses(at + 5, lf, AF_INET, ret);
	else if (begins(at, lf, "TCP6 ", 5))
		right = v1_addresses(at + 5, lf, AF_INET6, ret);
	else
		right = begins(at, lf, "UNKNOWN ", 8) || begins(at, lf, "UNKNOWN\r", 8);
	return right ? PROXY_HEADER_DONE : PROXY_HEADER_BAD;
}

/* --- version 2: binary ------------------------------------------------------------------- */

static unsigned
be16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

/* CRC-32C (RFC 4960 appendix B) bit by bit: once per connection, over a few hundred bytes. */
static uint32_t
crc32c_byte(uint32_t crc, uint8_t byte)
{
	crc ^= byte;
	for (int i = 0; i < 8; i++)
		crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	return crc;
}

/* The sum over the header with the four bytes of the sum itself taken as zero. */
static bool
crc_right(const uint8_t *header, size_t length, size_t sum_at)
{
	uint32_t crc = UINT32_MAX, told = 0;

	for (size_t i = 0; i < length; i++) {
		bool own = i >= sum_at && i < sum_at + 4;

		crc = crc32c_byte(crc, own ? 0 : header[i]);
		told = own ? told << 8 | header[i] : told;
	}
	return (crc ^ UINT32_MAX) == told;
}

/* The TLVs fill what is left exactly; a checksum among them must be right. */
static bool
tlvs_right(const uint8_t *header, size_t at, size_t length)
{
	while (at < length) {
		size_t value_length;

		if (length - at < TLV_HEAD)
			return false;
		value_length = be16(header + at + 1);
		if (value_length > length - at - TLV_HEAD)
			return false;
		if (header[at] == TLV_CRC32C &&
		    (value_length != 4 || !crc_right(header, length, at + TLV_HEAD)))
			return false;
		at += TLV_HEAD + value_length;
	}
	return true;
}

static void
v2_source(const uint8_t *at, int family, struct proxy_header *ret)
{
	size_t size = family == AF_INET ? 4 : 16;

	ret->source = (struct net_address){0};
	ret->source.sa.sa_family = (sa_family_t)family;
	if (family == AF_INET) {
		ret->source.length = sizeof ret->source.in;
		memcpy(&ret->source.in.sin_addr, at, size);
		memcpy(&ret->source.in.sin_port, at + 2 * size, 2);
	} else {
		ret->source.length = sizeof ret->source.in6;
		memcpy(&ret->source.in6.sin6_addr, at, size);
		memcpy(&ret->source.in6.sin6_port, at + 2 * size, 2);
	}
	ret->has_source = true;
}

/* PROXY: bytes of addresses by family and transport, which must be a stream's. -1 where it is none
 * that we can carry. */
static int
v2_address_length(uint8_t family)
{
	switch (family) {
	case 0x00:
		return 0; /* unspecified: the connection's own addresses */
	case 0x11:
		return V2_INET;
	case 0x21:
		return V2_INET6;
	case 0x31:
		return V2_UNIX;
	default:
		return -1;
	}
}

static enum proxy_header_result
v2_whole(const uint8_t *header, size_t length, struct proxy_header *ret)
{
	uint8_t family = header[13];
	bool local = (header[12] & 0x0f) == 0;
	int addresses = v2_address_length(family);

	ret->length = length;
	if (local)
		return PROXY_HEADER_DONE; /* its addresses and TLVs are to be ignored */
	if (addresses < 0 || length < V2_FIXED + (size_t)addresses)
		return PROXY_HEADER_BAD;
	/* Behind unspecified addresses may stand anything. */
	if (family != 0x00 && !tlvs_right(header, V2_FIXED + (size_t)addresses, length))
		return PROXY_HEADER_BAD;
	if (family == 0x11)
		v2_source(header + V2_FIXED, AF_INET, ret);
	else if (family == 0x21)
		v2_source(header + V2_FIXED, AF_INET6, ret);
	return PROXY_HEADER_DONE;
}

static enum proxy_header_result
v2_parse(const uint8_t *bytes, size_t length, struct proxy_header *ret)
{
	size_t whole;

	if (length > 12 && (bytes[12] >> 4 != 2 || (bytes[12] & 0x0f) > 1))
		return PROXY_HEADER_BAD;
	if (length > 13 && v2_address_length(bytes[13]) < 0 && (bytes[12] & 0x0f) == 1)
		return PROXY_HEADER_BAD;
	if (length < V2_FIXED)
		return PROXY_HEADER_MORE;
	whole = V2_FIXED + be16(bytes + 14);
	if (whole > PROXY_HEADER_MAX)
		return PROXY_HEADER_TOO_LARGE;
	return length < whole ? PROXY_HEADER_MORE : v2_whole(bytes, whole, ret);
}

enum proxy_header_result
proxy_header_parse(const void *bytes, size_t length, struct proxy_header *ret)
{
	const uint8_t *b = bytes;
	size_t v1 = length < sizeof v1_signature ? length : sizeof v1_signature;
	size_t v2 = length < sizeof v2_signature ? length : sizeof v2_signature;

	*ret = (struct proxy_header){0};
	if (length == 0)
		return PROXY_HEADER_MORE;
	if (memcmp(b, v1_signature, v1) == 0)
		return length < sizeof v1_signature ? PROXY_HEADER_MORE
		                                    : v1_parse(bytes, length, ret);
	if (memcmp(b, v2_signature, v2) == 0)
		return length < sizeof v2_signature ? PROXY_HEADER_MORE : v2_parse(b, length, ret);
	return PROXY_HEADER_BAD;
}
