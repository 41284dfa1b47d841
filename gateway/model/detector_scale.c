/* Bucket edges in ms and the search for a value's bucket. */
#include "model/detector_scale.h"

#include <math.h>
#include <pthread.h>

#define LOWEST_OCTAVE (-4)

static double edges_ms[DETECTOR_BUCKETS];
static pthread_once_t edges_once = PTHREAD_ONCE_INIT;

static void
edges_fill(void)
{
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		edges_ms[i] = pow(2.0, LOWEST_OCTAVE + (i + 1.0) / HISTOGRAM_PER_OCTAVE);
}

double
detector_edge_ms(unsigned bucket)
{
	pthread_once(&edges_once, edges_fill);
	return edges_ms[bucket < DETECTOR_BUCKETS ? bucket : DETECTOR_BUCKETS - 1];
}

unsigned
detector_bucket(double ms)
{
	unsigned low = 0, high = DETECTOR_BUCKETS - 1;

	pthread_once(&edges_once, edges_fill);
	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (edges_ms[middle] >= ms)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}
