/* Log lines that a peer could cause at will: a few of one kind in each ten seconds; what is left out
 * is counted in the next one. One thread per struct. */
#ifndef TAILRACE_BASE_LOG_LIMIT_H
#define TAILRACE_BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/log.h"

#define LOG_LIMIT_LINES 5
#define LOG_LIMIT_SPAN_NS (10ull * 1000 * 1000 * 1000)

struct log_limit {
	uint64_t span_ns;  /* when the running span began; 0 = none yet */
	uint32_t lines;    /* in it */
	uint64_t left_out; /* since the last line */
};

/* Whether a line may be written now. *ret_left_out is how many were not since the last one. */
bool log_limit_allows(struct log_limit *limit, uint64_t now_ns, uint64_t *ret_left_out);

/* The end of a line: "; 3 such lines left out", or nothing where none were. Returns `buf`. */
#define LOG_LEFT_OUT_SIZE 48
const char *log_left_out(uint64_t left_out, char buf[LOG_LEFT_OUT_SIZE]);

#endif
