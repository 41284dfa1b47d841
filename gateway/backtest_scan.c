/* A reader for plain tick lines only. Whatever it does not know at once it leaves to the JSON
 * library, so it needs no messages and cannot take what that would refuse. */
#include "backtest_scan.h"

#include <string.h>

#define DIGITS_MAX \
	15 /* such a whole number and its power of ten are exact, so one division rounds right */

struct scan {
	const char *at, *end;
};

static const double powers[DIGITS_MAX + 1] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                              1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

/* The next byte that is not space, 0 at the end. */
static char
peek(struct scan *scan)
{
	while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\r'))
		scan->at++;
	return scan->at < scan->end ? *scan->at : '\0';
}

static bool
take(struct scan *scan, char c)
{
	if (peek(scan) != c)
		return false;
	scan->at++;
	return true;
}

/* Digits, appended to *value; returns how many. */
static size_t
digits(struct scan *scan, uint64_t *value)
{
	const char *from = scan->at;

	for (; scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9'; scan->at++)
		if (scan->at - from < DIGITS_MAX)
			*value = *value * 10 + (uint64_t)(*scan->at - '0');
	return (size_t)(scan->at - from);
}

/* JSON's numbers that are not negative and have no exponent. `ret_whole`: it was written without a
 * point. */
static bool
number(struct scan *scan, double *ret, uint64_t *ret_value, bool *ret_whole)
{
	uint64_t value = 0;
	size_t whole, part = 0;
	char first = peek(scan);

	whole = digits(scan, &value);
	*ret_whole = scan->at == scan->end || *scan->at != '.';
	if (!*ret_whole) {
		scan->at++;
		part = digits(scan, &value);
	}
	if (whole == 0 || (whole > 1 && first == '0') || (!*ret_whole && part == 0) ||
	    whole + part > DIGITS_MAX)
		return false;
	if (scan->at < scan->end && (*scan->at == 'e' || *scan->at == 'E'))
		return false;
	*ret_value = value;
	*ret = (double)value / powers[part];
	return true;
}

/* A text of printable ASCII without escapes; not empty. */
static bool
text_of(struct scan *scan, char *ret, size_t size)
{
	size_t length = 0;

	if (!take(scan, '"'))
		return false;
	for (; scan->at < scan->end && *scan->at != '"'; scan->at++) {
		if (*scan->at < ' ' || *scan->at > '~' || *scan->at == '\\' || length + 1 == size)
			return false;
		ret[length++] = *scan->at;
	}
	ret[length] = '\0';
	return length > 0 && take(scan, '"');
}

static bool
pairs(struct scan *scan, struct backtest_line *ret)
{
	uint64_t counts[DETECTOR_BUCKETS] = {0}, value, count;
	double ms, n;
	bool whole;

	if (!take(scan, '['))
		return false;
	if (!take(scan, ']')) {
		do {
			if (!take(scan, '[') || !number(scan, &ms, &value, &whole) ||
			    !take(scan, ',') || !number(scan, &n, &count, &whole) || !whole ||
			    !take(scan, ']') || ms > BACKTEST_LATENCY_MS_MAX ||
			    count > BACKTEST_COUNT_MAX)
				return false;
			counts[detector_bucket(ms)] += count;
		} while (take(scan, ','));
		if (!take(scan, ']'))
			return false;
	}
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		if (counts[i] > 0)
			ret->cells[ret->cell_count++] = (struct detector_cell){i, counts[i]};
	return true;
}

enum seen { SEEN_T = 1, SEEN_ROUTE = 2, SEEN_LATENCY = 4, SEEN_ALL = 7 };

/* One key and its value. Returns what it was, 0 where this reader does not know it. */
static unsigned
member(struct scan *scan, struct backtest_line *ret)
{
	char key[16];
	double t;
	uint64_t value;
	bool whole;

	if (!text_of(scan, key, sizeof(key)) || !take(scan, ':'))
		return 0;
	if (strcmp(key, "t") == 0 && number(scan, &t, &value, &whole) && t <= BACKTEST_T_MAX) {
		ret->t_s = (int64_t)t;
		return SEEN_T;
	}
	if (strcmp(key, "route") == 0 && text_of(scan, ret->route, sizeof(ret->route)))
		return SEEN_ROUTE;
	if (strcmp(key, "latency_ms") == 0 && pairs(scan, ret))
		return SEEN_LATENCY;
	return 0;
}

bool
backtest_scan(const char *text, size_t length, struct backtest_line *ret)
{
	struct scan scan = {text, text + length};
	unsigned seen = 0;

	ret->route[0] = ret->deploy[0] = ret->fault[0] = '\0';
	ret->cell_count = 0;
	if (!take(&scan, '{'))
		return false;
	do {
		unsigned found = member(&scan, ret);

		if (found == 0 || (seen & found) != 0)
			return false;
		seen |= found;
	} while (take(&scan, ','));
	return take(&scan, '}') && peek(&scan) == '\0' && scan.at == scan.end && seen == SEEN_ALL;
}
