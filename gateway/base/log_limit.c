/* A budget of log lines. */
#include "base/log_limit.h"

#include <stdio.h>

bool
log_limit_allows(struct log_limit *limit, uint64_t now_ns, uint64_t *ret_left_out)
{
	if (limit->span_ns == 0 || now_ns - limit->span_ns >= LOG_LIMIT_SPAN_NS) {
		limit->span_ns = now_ns;
		limit->lines = 0;
	}
	if (limit->lines >= LOG_LIMIT_LINES) {
		limit->left_out++;
		return false;
	}
	limit->lines++;
	*ret_left_out = limit->left_out;
	limit->left_out = 0;
	return true;
}

const char *
log_left_out(uint64_t left_out, char buf[LOG_LEFT_OUT_SIZE])
{
	buf[0] = '\0';
	if (left_out > 0)
		snprintf(buf, LOG_LEFT_OUT_SIZE, "; %llu such lines left out",
		         (unsigned long long)left_out);
	return buf;
}
