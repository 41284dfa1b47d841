/* Text that grows: JSON strings, numbers, hexadecimal. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/text.h"

#define TEXT_FIRST_BYTES 512

/* Room for `more` bytes and the final NUL. */
static bool
text_room(struct text *text, size_t more)
{
	if (text->failed)
		return false;
	if (more < text->size - text->length)
		return true;
	size_t size = text->size ? text->size : TEXT_FIRST_BYTES;
	while (size - text->length <= more)
		size *= 2;
	char *data = xmem_try(size);
	if (data == NULL) {
		text->failed = true;
		return false;
	}
	if (text->data != NULL)
		memcpy(data, text->data, text->length);
	free(text->data);
	text->data = data;
	text->size = size;
	return true;
}

void
text_add(struct text *text, const char *data, size_t length)
{
	if (!text_room(text, length))
		return;
	if (length > 0)
		memcpy(text->data + text->length, data, length);
	text->length += length;
	text->data[text->length] = '\0';
}

void
text_puts(struct text *text, const char *string)
{
	text_add(text, string, strlen(string));
}

void
text_printf(struct text *text, const char *format, ...)
{
	va_list list, again;
	size_t room = text->size - text->length;
	va_start(list, format);
	va_copy(again, list);
	/* Mostly it fits at once. */
	char *at = text->data != NULL ? text->data + text->length : NULL;
	int length = text->failed ? -1 : vsnprintf(at, at != NULL ? room : 0, format, list);
	va_end(list);
	if (length >= 0 && (at == NULL || (size_t)length >= room)) {
		if (text_room(text, (size_t)length))
			vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
		else
			length = -1;
	}
	text->length += length > 0 ? (size_t)length : 0;
	va_end(again);
}

void
text_u64(struct text *text, uint64_t value)
{
	char digits[20];
	size_t at = sizeof(digits);
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	text_add(text, digits + at, sizeof(digits) - at);
}

/* Length of the well-formed UTF-8 sequence at `s` (RFC 3629), 0 where there is none. */
static size_t
utf8_length(const unsigned char *s, size_t left)
{
	size_t n = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	if (n == 0 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static bool
json_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void
text_json(struct text *text, const char *data, size_t length)
{
	const unsigned char *s = (const unsigned char *)data;
	text_add(text, "\"", 1);
	for (size_t i = 0; i < length;) {
		size_t run = 0;
		while (i + run < length && json_plain(s[i + run]))
			run++;
		if (run > 0) {
			text_add(text, data + i, run);
			i += run;
			continue;
		}
		size_t n = utf8_length(s + i, length - i);
		if (n > 0) {
			text_add(text, data + i, n);
			i += n;
			continue;
		}
		if (s[i] == '"' || s[i] == '\\')
			text_printf(text, "\\%c", s[i]);
		else if (s[i] < 0x80)
			text_printf(text, "\\u%04x", s[i]);
		else
			text_puts(text, "\\ufffd");
		i++;
	}
	text_add(text, "\"", 1);
}

void
text_json_or_null(struct text *text, const char *string)
{
	if (string == NULL)
		text_puts(text, "null");
	else
		text_json(text, string, strlen(string));
}

void
text_hex(struct text *text, const uint8_t *bytes, size_t count)
{
	static const char digits[] = "0123456789abcdef";
	if (!text_room(text, 2 * count))
		return;
	for (size_t i = 0; i < count; i++) {
		text->data[text->length++] = digits[bytes[i] >> 4];
		text->data[text->length++] = digits[bytes[i] & 15];
	}
	text->data[text->length] = '\0';
}

void
text_reset(struct text *text)
{
	text->length = 0;
	text->failed = false;
	if (text->data != NULL)
		text->data[0] = '\0';
}

void
text_free(struct text *text)
{
	free(text->data);
	*text = (struct text){0};
}
