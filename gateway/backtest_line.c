/* Tick lines: JSON to cells, with a word for everything that can be wrong. */
#include "backtest_line.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

static int __attribute__((format(printf, 2, 3)))
fault(struct backtest_line *line, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(line->fault, sizeof(line->fault), format, args);
	va_end(args);
	return -1;
}

static int
read_time(struct backtest_line *line, const json_t *value)
{
	double t = json_number_value(value);

	if (value == NULL)
		return fault(line, "\"t\" is missing");
	if (!json_is_number(value))
		return fault(line, "\"t\" is not a number");
	if (t < 0)
		return fault(line, "\"t\" is negative");
	if (t > BACKTEST_T_MAX)
		return fault(line, "\"t\" is after the year 9999 (it counts seconds)");
	line->t_s = (int64_t)t;
	return 0;
}

/* A name without control characters, of 1 to `size` - 1 bytes. */
static int
read_name(struct backtest_line *line, const json_t *value, const char *key, char *ret, size_t size)
{
	const char *text = json_string_value(value);
	size_t length = json_string_length(value);

	if (text == NULL)
		return fault(line, "\"%s\" is not a text", key);
	if (length == 0)
		return fault(line, "\"%s\" is empty", key);
	if (length >= size)
		return fault(line, "\"%s\" is longer than %zu bytes", key, size - 1);
	memcpy(ret, text, length + 1);
	return 0;
}

/* One [value, count]. */
static int
read_pair(struct backtest_line *line, size_t index, const json_t *pair,
          uint64_t counts[DETECTOR_BUCKETS])
{
	const json_t *value = json_array_get(pair, 0), *count = json_array_get(pair, 1);
	double ms = json_number_value(value);
	json_int_t n = json_integer_value(count);

	if (json_array_size(pair) != 2 || !json_is_number(value))
		return fault(line, "latency_ms[%zu] is not a pair [value, count]", index);
	if (ms < 0)
		return fault(line, "latency_ms[%zu]: latency %g is negative", index, ms);
	if (ms > BACKTEST_LATENCY_MS_MAX)
		return fault(line, "latency_ms[%zu]: latency %g is larger than %g ms", index, ms,
		             BACKTEST_LATENCY_MS_MAX);
	if (!json_is_integer(count))
		return fault(line, "latency_ms[%zu]: the count is not a whole number", index);
	if (n < 0)
		return fault(line, "latency_ms[%zu]: count %lld is negative", index, (long long)n);
	if (n > BACKTEST_COUNT_MAX)
		return fault(line, "latency_ms[%zu]: count %lld is larger than %u", index,
		             (long long)n, BACKTEST_COUNT_MAX);
	counts[detector_bucket(ms)] += (uint64_t)n;
	return 0;
}

static int
read_latency(struct backtest_line *line, const json_t *pairs)
{
	uint64_t counts[DETECTOR_BUCKETS] = {0};
	size_t index;
	json_t *pair;

	if (pairs == NULL)
		return fault(line, "\"latency_ms\" is missing");
	if (!json_is_array(pairs))
		return fault(line, "\"latency_ms\" is not a list");
	json_array_foreach(pairs, index,
	                   pair) if (read_pair(line, index, pair, counts) == -1) return -1;
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		if (counts[i] > 0)
			line->cells[line->cell_count++] = (struct detector_cell){i, counts[i]};
	return 0;
}

static int
read_object(struct backtest_line *line, const json_t *object)
{
	const json_t *deploy = json_object_get(object, "deploy");
	const json_t *route = json_object_get(object, "route");

	if (!json_is_object(object))
		return fault(line, "not a JSON object");
	if (read_time(line, json_object_get(object, "t")) == -1)
		return -1;
	if (deploy != NULL && route != NULL)
		return fault(line, "both \"route\" and \"deploy\": a line is a tick or a deploy");
	if (deploy != NULL)
		return read_name(line, deploy, "deploy", line->deploy, sizeof(line->deploy));
	if (route == NULL)
		return fault(line, "neither \"route\" nor \"deploy\"");
	if (read_name(line, route, "route", line->route, sizeof(line->route)) == -1)
		return -1;
	return read_latency(line, json_object_get(object, "latency_ms"));
}

/* jansson's word for NaN and Infinity, which JSON has not, is "invalid token near". */
int
backtest_line_read(const char *text, size_t length, struct backtest_line *ret)
{
	json_error_t error;
	json_t *object = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	int status;

	ret->route[0] = ret->deploy[0] = ret->fault[0] = '\0';
	ret->cell_count = 0;
	if (length == 0)
		return fault(ret, "empty line");
	if (object == NULL)
		return fault(ret, "%s, column %d", error.text, error.column);
	status = read_object(ret, object);
	json_decref(object);
	return status;
}
