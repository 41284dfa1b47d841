/* Batches of profiles: taken, or refused with a pointer. */
#include <stdint.h>
#include <stdlib.h>
#include "model/profile_batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct profile_batch *batch = NULL;
	struct read_error error;

	if (profile_batch_parse((const char *)data, size, &batch, &error) == 0) {
		if (!batch)
			abort();
		profile_batch_free(batch);
	}
	return 0;
}
