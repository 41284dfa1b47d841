/* One line of a tick file, read and checked. */
#ifndef TAILRACE_BACKTEST_LINE_H
#define TAILRACE_BACKTEST_LINE_H

#include <stddef.h>
#include <stdint.h>

#include "model/detector.h"
#include "model/route.h"

#define BACKTEST_LINE_BYTES_MAX (1u << 20)
#define BACKTEST_FAULT_MAX 256
#define BACKTEST_T_MAX 253402300799 /* the end of the year 9999 */
#define BACKTEST_LATENCY_MS_MAX 1e9 /* eleven days */
#define BACKTEST_COUNT_MAX 1000000000u

struct backtest_line {
	int64_t t_s;                    /* fractions of a second are cut off */
	char route[ROUTE_NAME_MAX + 1]; /* empty where the line marks a deploy */
	char deploy[DETECTOR_DEPLOY_MAX + 1];
	struct detector_cell cells[DETECTOR_BUCKETS];
	size_t cell_count;              /* 0: nothing happened in the window */
	char fault[BACKTEST_FAULT_MAX]; /* what is wrong, where backtest_line_read() says so */
};

/* `text` of `length` bytes without its line feed. Returns 0, or -1 with `fault` set. */
int backtest_line_read(const char *text, size_t length, struct backtest_line *ret);

#endif
