/* The packed ring of 5-minute histograms. */
#include "model/detector_blocks.h"
#include "model/varint.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"

/* One byte 0ddccccc holds a step of 1 to 4 buckets and a count of 1 to 32, which is nearly every
 * bucket of a route of a few requests per second; else LONG_FORM, then step and count as variable-
 * length integers. */
#define STEP_SHORT_MAX 4
#define COUNT_SHORT_MAX 32
#define COUNT_BITS 5
#define LONG_FORM 0x80

size_t
detector_pack(const uint64_t counts[DETECTOR_BUCKETS], uint8_t *buf)
{
	size_t size = 0;
	unsigned next = 0; /* the bucket after the last one written */

	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++) {
		unsigned step = i - next;

		if (counts[i] == 0)
			continue;
		if (step < STEP_SHORT_MAX && counts[i] <= COUNT_SHORT_MAX) {
			buf[size++] = (uint8_t)(step << COUNT_BITS | (counts[i] - 1));
		} else {
			buf[size++] = LONG_FORM;
			size += varint_put(buf + size, step);
			size += varint_put(buf + size, counts[i]);
		}
		next = i + 1;
	}
	return size;
}

int
detector_unpack(const uint8_t *bytes, size_t size, struct detector_cell ret_cells[DETECTOR_BUCKETS])
{
	uint64_t next = 0;
	int used = 0;

	for (size_t at = 0, n; at < size; used++) {
		uint64_t step = bytes[at] >> COUNT_BITS, count = bytes[at] % COUNT_SHORT_MAX + 1u;

		if (bytes[at++] >= LONG_FORM) {
			if (bytes[at - 1] != LONG_FORM ||
			    (n = varint_get(bytes + at, size - at, &step)) == 0)
				return -1;
			at += n;
			if ((n = varint_get(bytes + at, size - at, &count)) == 0 || count == 0)
				return -1;
			at += n;
		}
		if (step >= DETECTOR_BUCKETS || next + step >= DETECTOR_BUCKETS)
			return -1;
		ret_cells[used].bucket = (unsigned)(next + step);
		ret_cells[used].count = count;
		next += step + 1;
	}
	return used;
}

void
detector_blocks_init(struct detector_blocks *blocks)
{
	memset(blocks, 0, sizeof(*blocks));
	for (size_t i = 0; i < DETECTOR_BLOCKS; i++)
		blocks->ring[i].number = -1;
}

void
detector_blocks_clear(struct detector_blocks *blocks)
{
	for (size_t i = 0; i < DETECTOR_BLOCKS; i++)
		free(blocks->ring[i].packed);
	detector_blocks_init(blocks);
}

void
detector_blocks_put(struct detector_blocks *blocks, int64_t number,
                    const uint64_t counts[DETECTOR_BUCKETS])
{
	struct detector_block *block = &blocks->ring[number % DETECTOR_BLOCKS];
	uint8_t packed[DETECTOR_BLOCK_BYTES_MAX];

	assert(number >= 0);
	free(block->packed);
	block->packed = NULL;
	block->number = number;
	block->size = (uint32_t)detector_pack(counts, packed);
	block->n = 0;
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		block->n += counts[i];
	if (block->size == 0)
		return;
	block->packed = xcalloc(1, block->size);
	memcpy(block->packed, packed, block->size);
}

size_t
detector_block_cells(const struct detector_block *block,
                     struct detector_cell ret_cells[DETECTOR_BUCKETS])
{
	int used = detector_unpack(block->packed, block->size, ret_cells);

	assert(used >= 0);
	return (size_t)used;
}
