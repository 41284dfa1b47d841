/* Collects error lines, and writes JSON pointers and found values into them. */
#include "base/config_errors.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/config_env.h"
#include "base/xmem.h"

#define TEXT_SIZE 1024
#define FOUND_SIZE 80 /* a longer value is cut */

void
config_errors_add(struct config_errors *errs, const char *format, ...)
{
	char text[2 * TEXT_SIZE];
	va_list args;

	if (errs->count == CONFIG_ERRORS_MAX)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (errs->count == CONFIG_ERRORS_MAX - 1)
		snprintf(text, sizeof(text), "and more errors: only the first %d are shown",
		         CONFIG_ERRORS_MAX - 1);
	errs->lines = xrealloc(errs->lines, errs->count + 1, sizeof(*errs->lines));
	errs->lines[errs->count++] = xstrdup(text);
}

void
config_errors_free(struct config_errors *errs)
{
	for (size_t i = 0; i < errs->count; i++)
		free(errs->lines[i]);
	free(errs->lines);
	*errs = (struct config_errors){0};
}

static void
append(struct config_place *place, const char *text, size_t n)
{
	if (place->length + n >= sizeof(place->pointer))
		n = sizeof(place->pointer) - 1 - place->length;
	memcpy(place->pointer + place->length, text, n);
	place->length += n;
	place->pointer[place->length] = '\0';
}

size_t
config_place_push(struct config_place *place, const char *segment)
{
	size_t before = place->length;

	append(place, "/", 1);
	for (; *segment != '\0'; segment++) {
		if (*segment == '~')
			append(place, "~0", 2);
		else if (*segment == '/')
			append(place, "~1", 2);
		else
			append(place, segment, 1);
	}
	return before;
}

size_t
config_place_push_index(struct config_place *place, size_t index)
{
	char text[24];

	snprintf(text, sizeof(text), "%zu", index);
	return config_place_push(place, text);
}

void
config_place_pop(struct config_place *place, size_t length)
{
	place->length = length;
	place->pointer[length] = '\0';
}

/* The variable that set the value here, or null. */
static const char *
env_source(const struct config_place *place, char *name, size_t size)
{
	size_t n = (size_t)snprintf(name, size, "%s", CONFIG_ENV_PREFIX);

	for (const char *p = place->pointer; *p != '\0' && n + 3 < size; p++) {
		if (*p != '/')
			name[n++] = (char)toupper((unsigned char)*p);
		else if (p != place->pointer) {
			name[n++] = '_';
			name[n++] = '_';
		}
	}
	name[n] = '\0';
	return getenv(name) != NULL ? name : NULL;
}

static void
add_at(const struct config_place *place, const char *text)
{
	char name[CONFIG_POINTER_SIZE + 32];
	const char *source = env_source(place, name, sizeof(name));

	config_errors_add(place->errs, "%s: %s: %s%s%s%s", place->file,
	                  place->length > 0 ? place->pointer : "/", text,
	                  source != NULL ? " (set by " : "", source != NULL ? source : "",
	                  source != NULL ? ")" : "");
}

void
config_place_error(const struct config_place *place, const char *format, ...)
{
	char text[TEXT_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	add_at(place, text);
}

void
config_place_error_at(struct config_place *place, const char *text, const char *pointer, ...)
{
	struct config_place at = {.file = place->file, .errs = place->errs};
	va_list args;

	va_start(args, pointer);
	vsnprintf(at.pointer, sizeof(at.pointer), pointer, args);
	va_end(args);
	at.length = strlen(at.pointer);
	add_at(&at, text);
}

static void
describe(const json_t *value, char *buf, size_t size)
{
	char *text = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

	if (text == NULL)
		snprintf(buf, size, "nothing");
	else if (snprintf(buf, size, "%s", text) >= (int)size)
		memcpy(buf + size - 4, "...", 4);
	free(text);
}

void
config_place_fault(const struct config_place *place, const json_t *found, const char *format, ...)
{
	char text[TEXT_SIZE], value[FOUND_SIZE], line[TEXT_SIZE + FOUND_SIZE + 32];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	describe(found, value, sizeof(value));
	snprintf(line, sizeof(line), "found %s, allowed: %s", value, text);
	add_at(place, line);
}
