/* A parsed message head: bounded list of fields as offsets into the buffer that holds the head, and the
 * questions a proxy asks of it (RFC 9110 section 7.6, RFC 9112). Pure; nothing is copied or owned. */
#ifndef TAILRACE_MODEL_HEADERS_H
#define TAILRACE_MODEL_HEADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HEADERS_MAX 256 /* fields a head can hold at all; limits.headers is at most this */

enum header_id {
	HEADER_OTHER,             /* passed on as it is */
	HEADER_UNDERSCORE,        /* `_` in its name: dropped, for apps fold `-` and `_` */
	HEADER_PROXY_OTHER,       /* proxy-* */
	HEADER_X_FORWARDED_OTHER, /* x-forwarded-* not named below */
#define HEADER(ID, name) HEADER_##ID,
#include "model/headers.def"
#undef HEADER
	HEADER_COUNT
};

_Static_assert(HEADER_COUNT <= 64, "sets of header IDs are 64-bit masks");
#define HEADER_BIT(id) (1ull << (id))

/* Offsets from head->bytes. The value has no surrounding white space. */
struct field {
	uint32_t name, value;
	uint32_t value_length;
	uint16_t name_length;
	uint8_t id;        /* enum header_id */
	uint8_t nominated; /* named by Connection: hop-by-hop */
};

struct text {
	const char *at;
	size_t length;
};

enum body_framing { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_EOF };

struct head {
	const char *bytes;              /* borrowed: set anew where the buffer moved */
	uint32_t length;                /* of the head, final CRLF included */
	uint32_t target, target_length; /* request */
	uint32_t reason, reason_length; /* response */
	uint32_t count;                 /* fields */
	uint16_t status;
	uint8_t method; /* llhttp's number */
	uint8_t major, minor;
	bool keep_alive; /* by version and Connection alone */
	enum body_framing framing;
	uint64_t content_length;
	uint64_t seen, twice;        /* masks of HEADER_BIT: present, present more than once */
	uint8_t first[HEADER_COUNT]; /* index of the first field of an ID; valid where seen */
	struct field fields[HEADERS_MAX];
};

/* Forgets everything but the buffer. Cheap: the fields are not cleared. */
void head_clear(struct head *head, const char *bytes);

/* Appends a field, classified and with its value trimmed. -1 when the list is full. */
int head_add(struct head *head, uint32_t name, uint32_t name_length, uint32_t value,
             uint32_t value_length);

enum header_id header_id_of(const char *name, size_t length);
const char *header_name(enum header_id id); /* lower case; "" for those without one name */

static inline bool
head_has(const struct head *head, enum header_id id)
{
	return (head->seen & HEADER_BIT(id)) != 0;
}

/* Value of the first field with this ID; length 0 where there is none. */
struct text head_value(const struct head *head, enum header_id id);

/* Whether `text` is `lower`, which is in lower case: ASCII case does not count. Both have `length` bytes. */
bool text_is_lower(const char *text, const char *lower, size_t length);

static inline bool
text_equals(struct text text, const char *lower)
{
	return text.length == strlen(lower) && text_is_lower(text.at, lower, text.length);
}

/* Whether a field with this ID lists `lower` (RFC 9110 5.6.1), in whatever case. */
bool head_lists(const struct head *head, enum header_id id, const char *lower);

/* The first field of this name, in whatever case, for names without an ID; null where there is none, or more than
 * one. Walks all fields: not for every request. */
const struct field *head_only(const struct head *head, const char *lower);

/* Walks a comma-separated list (RFC 9110 5.6.1): *cursor starts at 0. False at its end. Empty members
 * are skipped, white space trimmed. */
bool text_next(struct text list, size_t *cursor, struct text *ret);

/* Marks the fields that Connection nominates. Returns -1 where it names one it may not (Host,
 * Content-Length, Transfer-Encoding, trace and forwarding fields of ours): RFC 9110 7.6.1 and the reference's rule 10. */
int head_nominate(struct head *head);

/* True for fields that end at this hop: RFC 9110 7.6.1, and every nominated one. */
bool field_is_hop(const struct field *field);

/* An answer that lasts as long as its client stays: text/event-stream. Only those of no length are looked at. */
bool head_is_event_stream(const struct head *head);

/* Does the client want JSON (Accept absent, or JSON or a wildcard before any text type)? */
bool head_accepts_json(const struct head *head);

/* Does Accept name JSON, and no text type before it? A wildcard alone names nothing. */
bool head_accept_names_json(const struct head *head);

#endif
