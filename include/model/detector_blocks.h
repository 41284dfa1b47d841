/* Histograms by number (of 5 minutes, or of a window), the newest so many of them, packed and many
 * to an allocation: one each would cost as much as what it holds. Bounded. Pure; one thread. */
#ifndef TAILRACE_MODEL_DETECTOR_BLOCKS_H
#define TAILRACE_MODEL_DETECTOR_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/detector_scale.h"

#define DETECTOR_CHUNK_BLOCKS 12 /* blocks to a chunk */

/* The blocks from number * DETECTOR_CHUNK_BLOCKS on. */
struct detector_chunk {
	int64_t number; /* -1: never filled */
	uint8_t *bytes; /* owned */
	uint32_t size, room;
};

struct detector_blocks {
	struct detector_chunk *chunks; /* owned ring: chunk `number` lies at number modulo count */
	unsigned count, kept;
	int64_t newest; /* block; -1 without any */
};

struct detector_block {
	int64_t number;
	uint64_t n;            /* requests */
	const uint8_t *packed; /* borrowed until the next put */
	size_t size;
};

/* Where a walk is: {0} before the first block. */
struct detector_walk {
	unsigned chunk;
	size_t at;
};

/* How many chunks hold `kept` blocks. */
#define DETECTOR_CHUNKS(kept) (((kept) + DETECTOR_CHUNK_BLOCKS - 1) / DETECTOR_CHUNK_BLOCKS + 1)

/* Empty; the newest `kept` numbers will be kept. */
void detector_blocks_init(struct detector_blocks *blocks, unsigned kept);
void detector_blocks_clear(struct detector_blocks *blocks); /* frees; empty and usable again */

/* Keep the block `number`, larger than all before; no room is taken where it is empty. */
void detector_blocks_put(struct detector_blocks *blocks, int64_t number,
                         const uint32_t counts[DETECTOR_BUCKETS]);

/* The next block that is kept and not empty, in order of number. False at the end. */
bool detector_blocks_next(const struct detector_blocks *blocks, struct detector_walk *walk,
                          struct detector_block *ret);

/* The block's buckets that are not empty, in rising order; returns how many. */
size_t detector_block_cells(const struct detector_block *block,
                            struct detector_cell ret_cells[DETECTOR_BUCKETS]);

/* Bytes that a chunk once held, into the ring, in order of number; nothing where they begin before
 * the block `first`. Returns 0, or -1 with nothing changed where they are damaged or not newer than
 * what is there. */
int detector_blocks_restore(struct detector_blocks *blocks, int64_t first, int64_t number,
                            const uint8_t *bytes, size_t size);

#endif
