/* A budget of log lines. */
#include "base/log_limit.h"

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
