/* A growing text buffer for JSON and metrics that are written, not read. Growth that fails marks
 * the text as failed and later additions do nothing, so callers check once at the end. One thread.
 */
#ifndef TAILRACE_MODEL_TEXT_H
#define TAILRACE_MODEL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
	char *data; /* owned; NUL-terminated where not null */
	size_t length, size;
	bool failed; /* memory was short: the content is not whole */
};

void text_add(struct text *text, const char *data, size_t length);
void text_puts(struct text *text, const char *string);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_u64(struct text *text, uint64_t value);

/* A JSON string with quotes (RFC 8259 section 7). Bytes that are not UTF-8 become U+FFFD, so that
 * the result is always valid JSON whatever a client sent. */
void text_json(struct text *text, const char *data, size_t length);

/* A quoted JSON string, or null where `string` is null. */
void text_json_or_null(struct text *text, const char *string);

/* Lower-case hexadecimal, without quotes. */
void text_hex(struct text *text, const uint8_t *bytes, size_t count);

/* Empties the buffer and keeps its memory. */
void text_reset(struct text *text);
void text_free(struct text *text);

#endif
