/* W3C Trace Context headers and random IDs. */
#include "model/trace_context.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include "base/log.h"

/* Both digits of every byte: each exchange writes a hundred of them. */
#define HEX_ROW(h)                                                                            \
	h "0" h "1" h "2" h "3" h "4" h "5" h "6" h "7" h "8" h "9" h "a" h "b" h "c" h "d" h \
	  "e" h "f"
static const char digit_pairs[] = HEX_ROW("0") HEX_ROW("1") HEX_ROW("2") HEX_ROW("3") HEX_ROW("4")
    HEX_ROW("5") HEX_ROW("6") HEX_ROW("7") HEX_ROW("8") HEX_ROW("9") HEX_ROW("a") HEX_ROW("b")
        HEX_ROW("c") HEX_ROW("d") HEX_ROW("e") HEX_ROW("f");
_Static_assert(sizeof digit_pairs == 2 * 256 + 1, "one pair for each byte");

void
hex_format(char *out, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		memcpy(out + 2 * i, digit_pairs + 2 * (size_t)bytes[i], 2);
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int
hex_parse(const char *text, uint8_t *ret, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		int high = hex_digit(text[2 * i]);
		int low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -1;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

static bool
all_zero(const uint8_t *bytes, size_t size)
{
	uint64_t any = 0, word;
	size_t i = 0;

	for (; size - i >= sizeof word; i += sizeof word) {
		memcpy(&word, bytes + i, sizeof word);
		any |= word;
	}
	for (; i < size; i++)
		any |= bytes[i];
	return any == 0;
}

int
trace_parent_parse(const char *value, size_t length, struct trace_parent *ret)
{
	uint8_t version;

	if (length < TRACEPARENT_LENGTH || hex_parse(value, &version, 1) < 0 || version == 0xff)
		return -1;
	if (version == 0 && length != TRACEPARENT_LENGTH)
		return -1;
	if (length > TRACEPARENT_LENGTH && value[TRACEPARENT_LENGTH] != '-')
		return -1;
	if (value[2] != '-' || value[35] != '-' || value[52] != '-')
		return -1;
	if (hex_parse(value + 3, ret->trace_id, TRACE_ID_SIZE) < 0 ||
	    hex_parse(value + 36, ret->parent_id, SPAN_ID_SIZE) < 0 ||
	    hex_parse(value + 53, &ret->flags, 1) < 0)
		return -1;
	if (all_zero(ret->trace_id, TRACE_ID_SIZE) || all_zero(ret->parent_id, SPAN_ID_SIZE))
		return -1;
	return 0;
}

void
trace_parent_format(char *out, const uint8_t trace_id[TRACE_ID_SIZE],
                    const uint8_t span_id[SPAN_ID_SIZE], uint8_t flags)
{
	memcpy(out, "00-", 3);
	hex_format(out + 3, trace_id, TRACE_ID_SIZE);
	out[35] = '-';
	hex_format(out + 36, span_id, SPAN_ID_SIZE);
	out[52] = '-';
	hex_format(out + 53, &flags, 1);
}

static bool
is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
	       c == '*' || c == '/';
}

/* key = simple-key / tenant "@" system (W3C 3.3.1.3.1) */
static bool
key_valid(const char *key, size_t length)
{
	const char *at = memchr(key, '@', length);
	size_t tenant = at ? (size_t)(at - key) : length;
	size_t system_length = at ? length - tenant - 1 : 0;

	if (tenant == 0 || tenant > (at ? 241u : 256u) || (at && system_length == 0) ||
	    system_length > 14)
		return false;
	for (size_t i = 0; i < length; i++)
		if (i != tenant && !is_key_char(key[i]))
			return false;
	if (at && !(at[1] >= 'a' && at[1] <= 'z'))
		return false;
	return (key[0] >= 'a' && key[0] <= 'z') || (at && key[0] >= '0' && key[0] <= '9');
}

static bool
value_valid(const char *value, size_t length)
{
	if (length == 0 || length > 256 || value[length - 1] == ' ')
		return false;
	for (size_t i = 0; i < length; i++)
		if (value[i] < 0x20 || value[i] > 0x7e || value[i] == ',' || value[i] == '=')
			return false;
	return true;
}

struct member {
	const char *key;
	size_t length;
};

static bool
member_new(const struct member *members, size_t count, const char *key, size_t length)
{
	for (size_t i = 0; i < count; i++)
		if (members[i].length == length && memcmp(members[i].key, key, length) == 0)
			return false;
	return true;
}

bool
trace_state_valid(const char *value, size_t length)
{
	struct member members[TRACESTATE_MEMBERS_MAX];
	size_t count = 0;
	const char *end = value + length;

	if (length == 0 || length > TRACESTATE_MAX)
		return false;
	for (const char *p = value; p <= end;) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *stop = comma ? comma : end;
		const char *next = stop + 1;
		const char *equals;

		while (p < stop && (*p == ' ' || *p == '\t'))
			p++;
		while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if (p < stop) { /* empty members are allowed (W3C 3.3.1.2) */
			equals = memchr(p, '=', (size_t)(stop - p));
			if (!equals || count == TRACESTATE_MEMBERS_MAX ||
			    !key_valid(p, (size_t)(equals - p)) ||
			    !value_valid(equals + 1, (size_t)(stop - equals - 1)) ||
			    !member_new(members, count, p, (size_t)(equals - p)))
				return false;
			members[count++] = (struct member){p, (size_t)(equals - p)};
		}
		p = next;
	}
	return count > 0;
}

static void
id_pool_fill(struct id_pool *pool)
{
	size_t have = 0;

	while (have < sizeof pool->bytes) {
		ssize_t n = getrandom(pool->bytes + have, sizeof pool->bytes - have, 0);

		if (n < 0 && errno != EINTR)
			fatal("getrandom: %s", strerror(errno));
		if (n > 0)
			have += (size_t)n;
	}
	pool->left = sizeof pool->bytes;
}

void
id_pool_take(struct id_pool *pool, uint8_t *ret, size_t size)
{
	do {
		if (pool->left < size)
			id_pool_fill(pool);
		memcpy(ret, pool->bytes + sizeof pool->bytes - pool->left, size);
		pool->left -= size;
	} while (all_zero(ret, size));
}
