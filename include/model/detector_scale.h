/* The buckets the detector counts in: those of model/histogram.h (32 an octave, 2^-4 to 2^16 ms),
 * with their edges as exact ms instead of whole ns, since tick files hold fractions of any length.
 * Pure. */
#ifndef TAILRACE_MODEL_DETECTOR_SCALE_H
#define TAILRACE_MODEL_DETECTOR_SCALE_H

#include <stdint.h>

#include "model/histogram.h"

#define DETECTOR_BUCKETS HISTOGRAM_BUCKETS
#define DETECTOR_HOURS 24 /* hours of a day, UTC */
#define DETECTOR_HOUR_S 3600
#define DETECTOR_DAY_S 86400
#define DETECTOR_BLOCK_S \
	300 /* tempering and the trailing reference work on blocks of this length */

/* `count` requests whose latency lies in `bucket`. */
struct detector_cell {
	unsigned bucket;
	uint64_t count;
};

/* Upper edge of a bucket, in ms; the last bucket holds everything above the last but one. */
double detector_edge_ms(unsigned bucket);

/* The first bucket whose edge is not below `ms`; the last where there is none. */
unsigned detector_bucket(double ms);

#endif
