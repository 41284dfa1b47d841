/* traceparent and tracestate: what is taken comes out again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "model/trace_context.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct trace_parent parent, again;
	char out[TRACEPARENT_LENGTH];

	(void)trace_state_valid((const char *)data, size);
	if (trace_parent_parse((const char *)data, size, &parent) != 0)
		return 0;
	trace_parent_format(out, parent.trace_id, parent.parent_id, parent.flags);
	if (trace_parent_parse(out, sizeof out, &again) != 0 ||
	    memcmp(&parent, &again, sizeof parent) != 0)
		abort();
	return 0;
}
