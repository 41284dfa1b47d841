/* Requests: heads and bodies. */
#include "http_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_pieces(HTTP_REQUEST, data, size);
	return 0;
}
