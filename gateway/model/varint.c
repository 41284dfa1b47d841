/* Integers of one to ten bytes, as histograms and the detector's blocks pack their counts. */
#include "model/varint.h"

size_t
varint_put(uint8_t *at, uint64_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		at[n++] = (uint8_t)(value | 0x80);
	at[n++] = (uint8_t)value;
	return n;
}

size_t
varint_get(const uint8_t *at, size_t left, uint64_t *ret)
{
	uint64_t value = 0;

	for (size_t n = 0; n < left && n < VARINT_BYTES_MAX; n++) {
		value |= (uint64_t)(at[n] & 0x7f) << (7 * n);
		if (!(at[n] & 0x80)) {
			*ret = value;
			return n + 1;
		}
	}
	return 0;
}
