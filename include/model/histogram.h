/* Durations in log-linear buckets, base 2, scale 5: 32 buckets an octave from 2^-4 to 2^16 ms, so
 * that a quantile is within 1.1 % and histograms add and subtract. Bucket i holds (edge i-1, edge
 * i]; the first everything below, the last everything above. Pure; one thread per histogram. */
#ifndef TAILRACE_MODEL_HISTOGRAM_H
#define TAILRACE_MODEL_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_PER_OCTAVE 32
#define HISTOGRAM_BUCKETS 640
#define HISTOGRAM_ENCODED_MAX \
	(4 * 10 + HISTOGRAM_BUCKETS * (2 + 5)) /* histogram_encode()'s longest */

struct histogram {
	uint64_t count, sum_ns, min_ns, max_ns; /* min_ns counts only where count > 0 */
	uint32_t buckets[HISTOGRAM_BUCKETS];    /* a bucket stops at UINT32_MAX */
};

unsigned histogram_bucket(uint64_t ns);

/* Largest duration bucket i holds; UINT64_MAX for the last. */
uint64_t histogram_edge_ns(unsigned bucket);

void histogram_add(struct histogram *histogram, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The duration that the share `q` (0 to 1) of values does not exceed, by nearest rank; 0 where
 * there are none. Within 1.1 % for values inside the range, and never outside [min_ns, max_ns]. */
uint64_t histogram_quantile(const struct histogram *histogram, double q);

/* Compact form: variable-length integers, only buckets that are not empty. `buf` holds
 * HISTOGRAM_ENCODED_MAX. Returns the length. Decoding returns 0, or -1 with *ret untouched where
 * the bytes are not such a form. */
size_t histogram_encode(const struct histogram *histogram, uint8_t *buf);
int histogram_decode(const uint8_t *bytes, size_t length, struct histogram *ret);

/* As decoding and merging, in one step: a minute has few buckets. Subtracting takes away what was
 * added; min_ns and max_ns stay, for they cannot be told. -1 with *into untouched where the bytes
 * are not such a form. */
int histogram_merge_encoded(struct histogram *into, const uint8_t *bytes, size_t length);
int histogram_subtract_encoded(struct histogram *from, const uint8_t *bytes, size_t length);

#endif
