/* Digits, a point, digits; the number of digits before the point tells the unit. */
#include "model/request_start.h"

#include <stdbool.h>

#define SECONDS_DIGITS 10 /* 1 000 000 000 to 9 999 999 999 s: 2001 to 2286 */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Nanoseconds in one unit of a number with so many digits, or 0. */
static uint64_t
unit_ns(size_t digits)
{
	switch (digits) {
	case SECONDS_DIGITS:
		return 1000000000u;
	case SECONDS_DIGITS + 3:
		return 1000000u;
	case SECONDS_DIGITS + 6:
		return 1000u;
	case SECONDS_DIGITS + 9:
		return 1u;
	default:
		return 0;
	}
}

int
request_start_parse(const char *text, size_t length, uint64_t *ret_wall_ns)
{
	uint64_t whole = 0, unit, scale;
	size_t i = 0, first;

	if (length >= 2 && text[0] == 't' && text[1] == '=')
		i = 2;
	first = i;
	for (; i < length && i < first + SECONDS_DIGITS + 9 && is_digit(text[i]); i++)
		whole = whole * 10 + (uint64_t)(text[i] - '0');
	unit = unit_ns(i - first);
	if (unit == 0 || text[first] == '0')
		return -1;
	/* 19 digits reach to 9 999 999 999 s, which 64 bits of nanoseconds hold. */
	*ret_wall_ns = whole * unit;
	if (i == length)
		return 0;
	if (text[i++] != '.' || i == length)
		return -1;
	scale = unit;
	for (; i < length; i++) {
		if (!is_digit(text[i]))
			return -1;
		scale /= 10;
		*ret_wall_ns += (uint64_t)(text[i] - '0') * scale;
	}
	return 0;
}
