/* JSON into bounded memory; used with and without the GIL. */
#include "_engine_detail.h"

enum { NUMBER_MAX = 24 };

static void
write_bytes(struct writer *writer, const char *bytes, size_t len)
{
	if (writer->cut || (size_t)(writer->end - writer->at) < len) {
		writer->cut = true;
		return;
	}
	memcpy(writer->at, bytes, len);
	writer->at += len;
}

void
write_text(struct writer *writer, const char *text)
{
	write_bytes(writer, text, strlen(text));
}

void
write_number(struct writer *writer, int64_t number)
{
	char digits[NUMBER_MAX];
	int i = NUMBER_MAX;
	uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
	do {
		digits[--i] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest > 0);
	if (number < 0)
		digits[--i] = '-';
	write_bytes(writer, digits + i, (size_t)(NUMBER_MAX - i));
}

void
write_quoted(struct writer *writer, const char *text)
{
	char escape[8];
	write_text(writer, "\"");
	for (; *text != '\0'; text++) {
		if ((unsigned char)*text < 0x20) {
			snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)*text);
			write_text(writer, escape);
		} else if (*text == '"' || *text == '\\') {
			snprintf(escape, sizeof(escape), "\\%c", *text);
			write_text(writer, escape);
		} else {
			write_bytes(writer, text, 1);
		}
	}
	write_text(writer, "\"");
}
