/* A histogram in few bits: from its first to its last bucket in use each count as an adaptive
 * Golomb-Rice code (its size follows from the counts before it, since neighbours are alike), runs
 * of empty buckets by their length. About 5 bits a bucket of a few dozen requests, close to what
 * the counts tell at all. Pure. */
#ifndef TAILRACE_MODEL_DETECTOR_PACK_H
#define TAILRACE_MODEL_DETECTOR_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "model/detector_scale.h"

#define DETECTOR_PACKED_MAX (DETECTOR_BUCKETS * 7 + 8) /* bytes; no code is over 50 bits */

/* Packed form of `counts` into `buf` (DETECTOR_PACKED_MAX). Returns its length, 0 of no counts. */
size_t detector_pack(const uint32_t counts[DETECTOR_BUCKETS], uint8_t *buf);

/* The buckets that are not empty, in rising order. Returns how many; -1 where the bytes are not
 * such a form. */
int detector_unpack(const uint8_t *bytes, size_t size,
                    struct detector_cell ret_cells[DETECTOR_BUCKETS]);

#endif
