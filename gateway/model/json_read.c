/* JSON values with their bounds and their places. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/xmem.h"
#include "model/json_read.h"

#define WORD_MAX 64

static size_t
place_write(const struct place *place, char *buf, size_t size)
{
	if (place == NULL || place->up == NULL)
		return 0;
	size_t length = place_write(place->up, buf, size);
	int more = place->key != NULL ? snprintf(buf + length, size - length, "/%s", place->key)
	                              : snprintf(buf + length, size - length, "/%zu", place->index);
	length += (size_t)more;
	return length < size ? length : size - 1;
}

bool
read_fail(struct read_error *error, const struct place *place, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vsnprintf(error->message, sizeof(error->message), format, list);
	va_end(list);
	error->pointer[0] = '\0';
	place_write(place, error->pointer, sizeof(error->pointer));
	return false;
}

struct place
place_member(const struct place *up, const char *key)
{
	return (struct place){.up = up, .key = key, .value = json_object_get(up->value, key)};
}

struct place
place_element(const struct place *up, size_t index)
{
	return (struct place){.up = up, .index = index, .value = json_array_get(up->value, index)};
}

bool
read_array(struct read_error *error, const struct place *at, size_t max, size_t *ret_count)
{
	if (!json_is_array(at->value))
		return read_fail(error, at, "not an array");
	*ret_count = json_array_size(at->value);
	if (*ret_count > max)
		return read_fail(error, at, "more than %zu entries", max);
	return true;
}

/* A row: an array of exactly `fields` values. */
bool
read_row(struct read_error *error, const struct place *at, size_t fields)
{
	if (!json_is_array(at->value))
		return read_fail(error, at, "not an array");
	if (json_array_size(at->value) != fields)
		return read_fail(error, at, "has %zu fields, not %zu", json_array_size(at->value),
		                 fields);
	return true;
}

bool
read_number(struct read_error *error, const struct place *at, uint64_t max, uint64_t *ret)
{
	if (at->value == NULL)
		return read_fail(error, at, "missing");
	if (!json_is_integer(at->value))
		return read_fail(error, at, "not an integer");
	json_int_t value = json_integer_value(at->value);
	if (value < 0 || (uint64_t)value > max)
		return read_fail(error, at, "not in 0 to %llu", (unsigned long long)max);
	*ret = (uint64_t)value;
	return true;
}

bool
read_u64(struct read_error *error, const struct place *up, size_t index, uint64_t max,
         uint64_t *ret)
{
	struct place at = place_element(up, index);
	return read_number(error, &at, max, ret);
}

bool
read_optional_u64(struct read_error *error, const struct place *up, size_t index, bool *ret_has,
                  uint64_t *ret)
{
	*ret_has = !json_is_null(json_array_get(up->value, index));
	return !*ret_has || read_u64(error, up, index, INT64_MAX, ret);
}

bool
read_flag(struct read_error *error, const struct place *up, size_t index, bool *ret)
{
	uint64_t value = 0;
	if (!read_u64(error, up, index, 1, &value))
		return false;
	*ret = value != 0;
	return true;
}

bool
read_string(struct read_error *error, const struct place *at, size_t max)
{
	if (!json_is_string(at->value))
		return read_fail(error, at, at->value == NULL ? "missing" : "not a string");
	if (json_string_length(at->value) > max)
		return read_fail(error, at, "longer than %zu bytes", max);
	return true;
}

bool
read_optional_string(struct read_error *error, const struct place *up, size_t index, size_t max,
                     char **ret)
{
	struct place at = place_element(up, index);
	if (json_is_null(at.value))
		return true;
	if (!read_string(error, &at, max))
		return false;
	*ret = xstrdup(json_string_value(at.value));
	return true;
}

/* The index of a word in a list of `count` names. */
bool
read_word(struct read_error *error, const struct place *at, const char *(*name)(unsigned),
          unsigned count, uint8_t *ret)
{
	if (!read_string(error, at, WORD_MAX))
		return false;
	for (unsigned i = 0; i < count; i++) {
		if (name(i) != NULL && strcmp(name(i), json_string_value(at->value)) == 0) {
			*ret = (uint8_t)i;
			return true;
		}
	}
	return read_fail(error, at, "not a word of this field");
}
