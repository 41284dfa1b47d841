/* A route's detector as bytes and back, so that a restart in the middle of `pending` keeps the
 * evidence. In three parts by how often they change, since the whole is 100 to 200 kB: a caller
 * writes TICKS every minute, BLOCKS after 5 and HOURS after an hour ended or edges moved. Pure. */
#ifndef TAILRACE_MODEL_DETECTOR_SAVE_H
#define TAILRACE_MODEL_DETECTOR_SAVE_H

#include <stddef.h>
#include <stdint.h>

#include "model/detector_route.h"

enum detector_part {
	DETECTOR_PART_TICKS, /* state, evidence, what the current block and hour hold: about 3 kB */
	DETECTOR_PART_BLOCKS, /* the 48 h of packed blocks */
	DETECTOR_PART_HOURS,  /* histograms by hour of day, and the edges made of them */
	DETECTOR_PARTS
};

struct detector_bytes {
	uint8_t *at; /* owned by whoever has it; free() */
	size_t size;
};

struct detector_bytes detector_route_save(const struct detector_route *route,
                                          enum detector_part part);

/* Into a route fresh from detector_route_init(). TICKS and HOURS are needed, BLOCKS may be empty
 * (size 0): the tempering is then that of a young route. Returns 0, or -1 where the bytes are of
 * another version or damaged; the route is fresh then. */
int detector_route_restore(struct detector_route *route,
                           const struct detector_bytes parts[DETECTOR_PARTS]);

#endif
