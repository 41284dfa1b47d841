/* Histograms of the last 48 h in blocks of 5 minutes, packed: about one byte per bucket in use,
 * since a full array per block would be 1.5 MB per route. Bounded: DETECTOR_BLOCKS blocks of at
 * most DETECTOR_BLOCK_BYTES_MAX. Pure; one thread. */
#ifndef TAILRACE_MODEL_DETECTOR_BLOCKS_H
#define TAILRACE_MODEL_DETECTOR_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#include "model/detector_scale.h"

#define DETECTOR_BLOCKS 576
#define DETECTOR_BLOCK_BYTES_MAX (DETECTOR_BUCKETS * (1 + 2 + 10))

struct detector_block {
	int64_t number;  /* unix time / 300 s; -1: never filled */
	uint64_t n;      /* requests */
	uint8_t *packed; /* owned; null where n is 0 */
	uint32_t size;
};

struct detector_blocks {
	struct detector_block
	    ring[DETECTOR_BLOCKS]; /* block `number` lies at number modulo the length */
};

void detector_blocks_init(struct detector_blocks *blocks);
void detector_blocks_clear(struct detector_blocks *blocks); /* frees; usable again as after init */

/* Keep the block `number`, in place of the one 48 h or more before it. */
void detector_blocks_put(struct detector_blocks *blocks, int64_t number,
                         const uint64_t counts[DETECTOR_BUCKETS]);

/* The block's buckets that are not empty, in rising order; returns how many. */
size_t detector_block_cells(const struct detector_block *block,
                            struct detector_cell ret_cells[DETECTOR_BUCKETS]);

/* Packed form of `counts` into `buf` (DETECTOR_BLOCK_BYTES_MAX). Returns its length. */
size_t detector_pack(const uint64_t counts[DETECTOR_BUCKETS], uint8_t *buf);

/* Cells of a packed form. Returns how many; -1 where the bytes are not such a form. */
int detector_unpack(const uint8_t *bytes, size_t size,
                    struct detector_cell ret_cells[DETECTOR_BUCKETS]);

#endif
