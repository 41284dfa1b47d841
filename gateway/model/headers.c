/* Classifying fields, reading lists, hop-by-hop. */
#include "model/headers.h"

#include <string.h>

struct known {
	const char *name;
	uint8_t length;
	uint8_t id;
};

/* Sorted by length, as headers.def is. */
static const struct known known[] = {
#define HEADER(ID, name) {name, sizeof(name) - 1, HEADER_##ID},
#include "model/headers.def"
#undef HEADER
};
#define KNOWN_COUNT (sizeof known / sizeof known[0])
#define KNOWN_LENGTH_MAX 17

/* Names of length n are known[starts[n]] up to known[starts[n + 1]]; -1 terminated by
 * construction. */
static const uint8_t starts[KNOWN_LENGTH_MAX + 2] = {
    0,  0,  0, /* 0..2 */
    1,  1,     /* 3, 4: host */
    2,  2,     /* 5, 6 */
    4,         /* 7 */
    6,  6,     /* 8, 9 */
    8,         /* 10 */
    13,        /* 11 */
    14, 14,    /* 12, 13: server-timing */
    15,        /* 14 */
    17,        /* 15 */
    20,        /* 16 */
    22,        /* 17 */
    24,
};
_Static_assert(KNOWN_COUNT == 24, "headers.def changed: renew starts[]");

static inline char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* Eight characters at once: sets bit 5 where a byte is one of A to Z, and nowhere else. */
static inline uint64_t
lower8(const char *text)
{
	const uint64_t ones = 0x0101010101010101u;
	uint64_t word, low, from_a, past_z;

	memcpy(&word, text, sizeof word);
	low = word & 0x7f * ones;
	from_a = low + (0x80 - 'A') * ones;
	past_z = low + (0x7f - 'Z') * ones;
	return word | ((from_a & ~past_z & ~word & 0x80 * ones) >> 2);
}

static inline bool
same8(const char *text, const char *lower_text)
{
	uint64_t word;

	memcpy(&word, lower_text, sizeof word);
	return lower8(text) == word;
}

bool
text_is_lower(const char *text, const char *lower_text, size_t length)
{
	if (length < 8) {
		for (size_t i = 0; i < length; i++)
			if (lower(text[i]) != lower_text[i])
				return false;
		return true;
	}
	for (size_t i = 0; i + 8 < length; i += 8)
		if (!same8(text + i, lower_text + i))
			return false;
	return same8(text + length - 8, lower_text + length - 8); /* may overlap the one before */
}

void
head_clear(struct head *head, const char *bytes)
{
	memset(head, 0, offsetof(struct head, first));
	head->bytes = bytes;
}

enum header_id
header_id_of(const char *name, size_t length)
{
	if (length <= KNOWN_LENGTH_MAX) {
		for (size_t i = starts[length]; i < starts[length + 1]; i++)
			if (lower(name[0]) == known[i].name[0] &&
			    text_is_lower(name, known[i].name, length))
				return (enum header_id)known[i].id;
	}
	if (memchr(name, '_', length))
		return HEADER_UNDERSCORE;
	if (length > 6 && text_is_lower(name, "proxy-", 6))
		return HEADER_PROXY_OTHER;
	if (length > 12 && text_is_lower(name, "x-forwarded-", 12))
		return HEADER_X_FORWARDED_OTHER;
	return HEADER_OTHER;
}

const char *
header_name(enum header_id id)
{
	for (size_t i = 0; i < KNOWN_COUNT; i++)
		if (known[i].id == id)
			return known[i].name;
	return "";
}

int
head_add(struct head *head, uint32_t name, uint32_t name_length, uint32_t value,
         uint32_t value_length)
{
	struct field *field = &head->fields[head->count];
	const char *v = head->bytes + value;
	uint64_t bit;

	if (head->count >= HEADERS_MAX || name_length > UINT16_MAX)
		return -1;
	while (value_length > 0 && (v[value_length - 1] == ' ' || v[value_length - 1] == '\t'))
		value_length--;
	while (value_length > 0 && (*v == ' ' || *v == '\t')) {
		v++;
		value++;
		value_length--;
	}
	field->name = name;
	field->name_length = (uint16_t)name_length;
	field->value = value;
	field->value_length = value_length;
	field->nominated = 0;
	field->id = (uint8_t)header_id_of(head->bytes + name, name_length);
	bit = HEADER_BIT(field->id);
	if (head->seen & bit)
		head->twice |= bit;
	else
		head->first[field->id] = (uint8_t)head->count;
	head->seen |= bit;
	head->count++;
	return 0;
}

struct text
head_value(const struct head *head, enum header_id id)
{
	const struct field *field;

	if (!head_has(head, id))
		return (struct text){"", 0};
	field = &head->fields[head->first[id]];
	return (struct text){head->bytes + field->value, field->value_length};
}

bool
text_next(struct text list, size_t *cursor, struct text *ret)
{
	while (*cursor < list.length) {
		const char *p = list.at + *cursor;
		const char *comma = memchr(p, ',', list.length - *cursor);
		const char *stop = comma ? comma : list.at + list.length;

		*cursor = (size_t)(stop - list.at) + 1;
		while (p < stop && (*p == ' ' || *p == '\t'))
			p++;
		while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if (p < stop) {
			*ret = (struct text){p, (size_t)(stop - p)};
			return true;
		}
	}
	return false;
}

bool
head_lists(const struct head *head, enum header_id id, const char *lower_text)
{
	if (!head_has(head, id))
		return false;
	for (size_t i = head->first[id]; i < head->count; i++) {
		const struct field *field = &head->fields[i];
		struct text list = {head->bytes + field->value, field->value_length}, member;
		size_t cursor = 0;

		while (field->id == id && text_next(list, &cursor, &member))
			if (text_equals(member, lower_text))
				return true;
	}
	return false;
}

const struct field *
head_only(const struct head *head, const char *lower_text)
{
	const struct field *found = NULL;

	for (size_t i = 0; i < head->count; i++) {
		const struct field *field = &head->fields[i];

		if (!text_equals((struct text){head->bytes + field->name, field->name_length},
		                 lower_text))
			continue;
		if (found)
			return NULL;
		found = field;
	}
	return found;
}

/* Fields that mean something to us or to every hop: nobody may have them removed by naming them. */
static const uint64_t never_nominated =
    HEADER_BIT(HEADER_HOST) | HEADER_BIT(HEADER_CONTENT_LENGTH) |
    HEADER_BIT(HEADER_TRANSFER_ENCODING) | HEADER_BIT(HEADER_TRACEPARENT) |
    HEADER_BIT(HEADER_TRACESTATE) | HEADER_BIT(HEADER_X_TAILRACE) |
    HEADER_BIT(HEADER_X_TAILRACE_DEEP) | HEADER_BIT(HEADER_X_REQUEST_START) |
    HEADER_BIT(HEADER_X_TRACE_ID) | HEADER_BIT(HEADER_X_FORWARDED_FOR) |
    HEADER_BIT(HEADER_X_FORWARDED_HOST) | HEADER_BIT(HEADER_X_FORWARDED_PROTO) |
    HEADER_BIT(HEADER_X_FORWARDED_OTHER) | HEADER_BIT(HEADER_FORWARDED);

static bool
names_equal(const char *a, struct text b)
{
	for (size_t i = 0; i < b.length; i++)
		if (lower(a[i]) != lower(b.at[i]))
			return false;
	return true;
}

static void
nominate_one(struct head *head, struct text name)
{
	for (size_t i = 0; i < head->count; i++) {
		struct field *field = &head->fields[i];

		if (field->name_length == name.length &&
		    names_equal(head->bytes + field->name, name))
			field->nominated = 1;
	}
}

/* The options that are about the connection itself. */
static bool
names_no_field(struct text option)
{
	return text_equals(option, "keep-alive") || text_equals(option, "close");
}

int
head_nominate(struct head *head)
{
	if (!head_has(head, HEADER_CONNECTION))
		return 0;
	for (size_t i = 0; i < head->count; i++) {
		const struct field *field = &head->fields[i];
		struct text list = {head->bytes + field->value, field->value_length};
		struct text token;
		size_t cursor = 0;

		if (field->id != HEADER_CONNECTION || names_no_field(list))
			continue;
		while (text_next(list, &cursor, &token)) {
			if (names_no_field(token))
				continue;
			if (never_nominated & HEADER_BIT(header_id_of(token.at, token.length)))
				return -1;
			nominate_one(head, token);
		}
	}
	return 0;
}

bool
field_is_hop(const struct field *field)
{
	static const uint64_t hops = HEADER_BIT(HEADER_CONNECTION) | HEADER_BIT(HEADER_KEEP_ALIVE) |
	                             HEADER_BIT(HEADER_PROXY_CONNECTION) |
	                             HEADER_BIT(HEADER_PROXY_OTHER) | HEADER_BIT(HEADER_TE) |
	                             HEADER_BIT(HEADER_TRAILER) |
	                             HEADER_BIT(HEADER_TRANSFER_ENCODING) |
	                             HEADER_BIT(HEADER_UPGRADE) | HEADER_BIT(HEADER_HTTP2_SETTINGS);

	return field->nominated || (hops & HEADER_BIT(field->id)) != 0;
}

bool
head_is_event_stream(const struct head *head)
{
	static const char type[] = "text/event-stream";
	const struct field *field;

	if (head->framing != BODY_CHUNKED && head->framing != BODY_UNTIL_EOF)
		return false;
	field = head_only(head, "content-type");
	return field && field->value_length >= sizeof type - 1 &&
	       text_is_lower(head->bytes + field->value, type, sizeof type - 1);
}

/* The first media range of Accept that is JSON, all (`*`), or text. */
enum media { MEDIA_NONE, MEDIA_JSON, MEDIA_ANY, MEDIA_TEXT };

static enum media
media_of(struct text range)
{
	const char *semicolon = memchr(range.at, ';', range.length);

	if (semicolon)
		range.length = (size_t)(semicolon - range.at);
	while (range.length > 0 && range.at[range.length - 1] == ' ')
		range.length--;
	if (text_equals(range, "application/json") ||
	    (range.length > 5 && text_is_lower(range.at + range.length - 5, "+json", 5)))
		return MEDIA_JSON;
	if (text_equals(range, "*/*") || text_equals(range, "application/*"))
		return MEDIA_ANY;
	return range.length >= 5 && text_is_lower(range.at, "text/", 5) ? MEDIA_TEXT : MEDIA_NONE;
}

static enum media
accepted(const struct head *head)
{
	struct text accept = head_value(head, HEADER_ACCEPT);
	struct text range;
	size_t cursor = 0;
	enum media media = MEDIA_NONE;

	while (media == MEDIA_NONE && text_next(accept, &cursor, &range))
		media = media_of(range);
	return media;
}

bool
head_accepts_json(const struct head *head)
{
	enum media media = accepted(head);

	return media == MEDIA_JSON || media == MEDIA_ANY ||
	       head_value(head, HEADER_ACCEPT).length == 0;
}

bool
head_accept_names_json(const struct head *head)
{
	return accepted(head) == MEDIA_JSON;
}
