/* A walk over JSON text that knows its place: brackets, strings, commas. Judges nothing. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "model/json_place.h"

#define KEY_SHOWN_MAX 64 /* longer keys are cut in pointers */

struct level {
	bool object, has_key;
	size_t index; /* of the element being read */
	const char *key;
	size_t key_length;
};

/* Behind the closing quote of the string that begins at `at`, or `end`. */
static size_t
string_end(const char *text, size_t at, size_t end)
{
	for (at++; at < end; at++) {
		if (text[at] == '\\')
			at++;
		else if (text[at] == '"')
			return at + 1;
	}
	return end;
}

static void
pointer_write(const struct level *levels, size_t depth, char *buf, size_t size)
{
	size_t length = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < depth && length + KEY_SHOWN_MAX * 2 + 24 < size; i++) {
		const struct level *level = &levels[i];
		if (!level->object) {
			length +=
			    (size_t)snprintf(buf + length, size - length, "/%zu", level->index);
			continue;
		}
		if (!level->has_key)
			break;
		buf[length++] = '/';
		for (size_t k = 0; k < level->key_length && k < KEY_SHOWN_MAX; k++) {
			char c = level->key[k];
			if (c == '~' || c == '/')
				buf[length++] = '~';
			buf[length++] = c == '~' ? '0' : c == '/' ? '1' : c;
		}
		buf[length] = '\0';
	}
}

static void
string_seen(struct level *levels, size_t depth, const char *text, size_t at, size_t end)
{
	struct level *level = depth > 0 ? &levels[depth - 1] : NULL;
	if (level == NULL || !level->object || level->has_key)
		return;
	level->has_key = true;
	level->key = text + at + 1;
	level->key_length = end - at - 1;
	if (level->key_length > 0 && text[end - 1] == '"')
		level->key_length--;
}

size_t
json_place(const char *text, size_t length, size_t offset, size_t depth_max, char *buf, size_t size)
{
	struct level levels[JSON_PLACE_DEPTH_MAX];
	size_t depth = 0, deepest = 0, end = offset < length ? offset : length;
	for (size_t at = 0; at < end;) {
		char c = text[at];
		size_t next = at + 1;
		if (c == '"') {
			next = string_end(text, at, end);
			string_seen(levels, depth, text, at, next);
		} else if (c == '{' || c == '[') {
			if (depth + 1 > deepest)
				deepest = depth + 1;
			if (depth >= depth_max)
				break;
			levels[depth++] = (struct level){.object = c == '{'};
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		} else if (c == ',' && depth > 0) {
			levels[depth - 1].index++;
			levels[depth - 1].has_key = false;
		}
		at = next;
	}
	pointer_write(levels, depth, buf, size);
	return deepest;
}
