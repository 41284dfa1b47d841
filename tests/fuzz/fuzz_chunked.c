/* Chunked bodies behind a head that is always good. */
#include "http_kit.h"

#define HEAD "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t message[KIT_MAX];

	if (size > KIT_MAX - sizeof HEAD)
		return 0;
	memcpy(message, HEAD, sizeof HEAD - 1);
	memcpy(message + sizeof HEAD - 1, data, size);
	check_pieces(HTTP_REQUEST, message, sizeof HEAD - 1 + size);
	return 0;
}
