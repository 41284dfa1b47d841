/* PROXY protocol headers: a beginning of a good one is never bad, and says nothing else later. */
#include <stdint.h>
#include <stdlib.h>
#include "model/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header header;
	enum proxy_header_result result = proxy_header_parse(data, size, &header);
	size_t length = header.length;

	if (result != PROXY_HEADER_DONE)
		return 0;
	if (length == 0 || length > size || length > PROXY_HEADER_MAX)
		abort();
	for (size_t n = 0; n < length; n++)
		if (proxy_header_parse(data, n, &header) != PROXY_HEADER_MORE)
			abort();
	return 0;
}
