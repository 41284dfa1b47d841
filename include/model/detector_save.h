/* A route's detector as bytes and back, so that a restart in the middle of `pending` keeps the
 * evidence. In parts by how often they change, since the whole is 60 to 100 kB: a caller writes
 * TICKS every minute, after 5 the chunk of blocks (1 kB) that got one more, HOURS after an hour
 * ended or edges moved. Pure. */
#ifndef TAILRACE_MODEL_DETECTOR_SAVE_H
#define TAILRACE_MODEL_DETECTOR_SAVE_H

#include <stddef.h>
#include <stdint.h>

#include "model/detector_route.h"

#define DETECTOR_PART_CHUNKS DETECTOR_CHUNKS(DETECTOR_BLOCKS)

enum detector_part {
	DETECTOR_PART_TICKS, /* state, evidence, what the current block and hour hold: about 3 kB */
	DETECTOR_PART_HOURS, /* histograms by hour of day, and the edges made of them */
	DETECTOR_PART_CHUNK, /* the first of DETECTOR_PART_CHUNKS of packed blocks */
	DETECTOR_PARTS = DETECTOR_PART_CHUNK + DETECTOR_PART_CHUNKS
};

/* The part that holds a block. */
static inline enum detector_part
detector_part_of(int64_t block)
{
	return (enum detector_part)(DETECTOR_PART_CHUNK +
	                            block / DETECTOR_CHUNK_BLOCKS % DETECTOR_PART_CHUNKS);
}

struct detector_bytes {
	uint8_t *at; /* owned by whoever has it; free() */
	size_t size;
};

struct detector_bytes detector_route_save(const struct detector_route *route,
                                          enum detector_part part);

/* Into a route fresh from detector_route_init(). TICKS and HOURS are needed, chunks may be
 * missing (size 0): the tempering is then of what is there. Those of before the route learned anew
 * are left out. Returns 0, or -1 where the bytes are of
 * another version or damaged; the route is fresh then. */
int detector_route_restore(struct detector_route *route,
                           const struct detector_bytes parts[DETECTOR_PARTS]);

#endif
