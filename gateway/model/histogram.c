/* Log-linear histogram of durations: buckets, quantiles, compact form. */
#include <pthread.h>
#include <string.h>
#include "model/histogram.h"
#include "model/varint.h"

#define LOWEST_NS 62500.0L                              /* 2^-4 ms */
#define ROOT_32_OF_2 1.0218971486541166782344801347833L /* 2^(1/32) */

static uint64_t edges_ns[HISTOGRAM_BUCKETS];
static pthread_once_t edges_once = PTHREAD_ONCE_INIT;

/* An integer is at most an edge exactly when it is at most the edge rounded down. */
static void
edges_fill(void)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		long double edge =
		    LOWEST_NS * (long double)(1ull << (i + 1) / HISTOGRAM_PER_OCTAVE);
		for (unsigned k = 0; k < (i + 1) % HISTOGRAM_PER_OCTAVE; k++)
			edge *= ROOT_32_OF_2;
		edges_ns[i] = (uint64_t)edge;
	}
	edges_ns[HISTOGRAM_BUCKETS - 1] = UINT64_MAX;
}

uint64_t
histogram_edge_ns(unsigned bucket)
{
	pthread_once(&edges_once, edges_fill);
	return edges_ns[bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1];
}

unsigned
histogram_bucket(uint64_t ns)
{
	pthread_once(&edges_once, edges_fill);
	unsigned low = 0, high = HISTOGRAM_BUCKETS - 1;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (ns <= edges_ns[middle])
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static void
bucket_add(uint32_t *bucket, uint64_t n)
{
	uint64_t sum = *bucket + n;
	*bucket = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
}

void
histogram_add(struct histogram *h, uint64_t ns)
{
	if (h->count == 0 || ns < h->min_ns)
		h->min_ns = ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
	h->count++;
	h->sum_ns += ns;
	bucket_add(&h->buckets[histogram_bucket(ns)], 1);
}

void
histogram_merge(struct histogram *into, const struct histogram *from)
{
	if (from->count == 0)
		return;
	if (into->count == 0 || from->min_ns < into->min_ns)
		into->min_ns = from->min_ns;
	if (from->max_ns > into->max_ns)
		into->max_ns = from->max_ns;
	into->count += from->count;
	into->sum_ns += from->sum_ns;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		bucket_add(&into->buckets[i], from->buckets[i]);
}

uint64_t
histogram_quantile(const struct histogram *h, double q)
{
	uint64_t total = 0;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		total += h->buckets[i];
	if (total == 0)
		return 0;
	uint64_t rank = (uint64_t)(q * (double)total);
	if ((double)rank < q * (double)total)
		rank++;
	if (rank <= 1)
		return h->min_ns;
	if (rank >= total)
		return h->max_ns;
	unsigned i = 0;
	for (uint64_t below = 0; i < HISTOGRAM_BUCKETS; i++)
		if ((below += h->buckets[i]) >= rank)
			break;
	uint64_t low = i == 0 ? h->min_ns : histogram_edge_ns(i - 1);
	uint64_t high = i == HISTOGRAM_BUCKETS - 1 ? h->max_ns : histogram_edge_ns(i);
	uint64_t value = low + (high > low ? (high - low) / 2 : 0);
	return value < h->min_ns ? h->min_ns : value > h->max_ns ? h->max_ns : value;
}

size_t
histogram_encode(const struct histogram *h, uint8_t *buf)
{
	const uint64_t head[4] = {h->count, h->sum_ns, h->min_ns, h->max_ns};
	size_t length = 0;
	for (int i = 0; i < 4; i++)
		length += varint_put(buf + length, head[i]);
	unsigned last = 0; /* buckets are written as distances, mostly one byte */
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (h->buckets[i] == 0)
			continue;
		length += varint_put(buf + length, i - last);
		length += varint_put(buf + length, h->buckets[i]);
		last = i;
	}
	return length;
}

/* Reads one bucket and its count at *at. Returns 1, 0 at the end, -1 where it cannot be read. */
static int
next_bucket(const uint8_t *bytes, size_t length, size_t *at, uint64_t *bucket, uint64_t *ret_count)
{
	uint64_t step;
	size_t n;
	if (*at == length)
		return 0;
	if ((n = varint_get(bytes + *at, length - *at, &step)) == 0)
		return -1;
	*at += n;
	if ((n = varint_get(bytes + *at, length - *at, ret_count)) == 0)
		return -1;
	*at += n;
	if (step >= HISTOGRAM_BUCKETS || (*bucket += step) >= HISTOGRAM_BUCKETS ||
	    *ret_count > UINT32_MAX)
		return -1;
	return 1;
}

/* Returns where the buckets begin, 0 where the bytes are no encoded histogram. */
static size_t
read_head(const uint8_t *bytes, size_t length, struct histogram *ret)
{
	uint64_t *head[4] = {&ret->count, &ret->sum_ns, &ret->min_ns, &ret->max_ns};
	uint64_t bucket = 0, count;
	size_t at = 0, n, begin;
	int got;
	for (int i = 0; i < 4; i++, at += n)
		if ((n = varint_get(bytes + at, length - at, head[i])) == 0)
			return 0;
	begin = at;
	while ((got = next_bucket(bytes, length, &at, &bucket, &count)) == 1)
		;
	return got == 0 ? begin : 0;
}

int
histogram_decode(const uint8_t *bytes, size_t length, struct histogram *ret)
{
	struct histogram h = {0};
	if (histogram_merge_encoded(&h, bytes, length) != 0)
		return -1;
	*ret = h;
	return 0;
}

int
histogram_merge_encoded(struct histogram *into, const uint8_t *bytes, size_t length)
{
	struct histogram head;
	uint64_t bucket = 0, count;
	size_t at = read_head(bytes, length, &head);
	if (at == 0)
		return -1;
	if (head.count == 0)
		return 0;
	if (into->count == 0 || head.min_ns < into->min_ns)
		into->min_ns = head.min_ns;
	if (head.max_ns > into->max_ns)
		into->max_ns = head.max_ns;
	into->count += head.count;
	into->sum_ns += head.sum_ns;
	while (next_bucket(bytes, length, &at, &bucket, &count) == 1)
		bucket_add(&into->buckets[bucket], count);
	return 0;
}

int
histogram_subtract_encoded(struct histogram *from, const uint8_t *bytes, size_t length)
{
	struct histogram head;
	uint64_t bucket = 0, count;
	size_t at = read_head(bytes, length, &head);
	if (at == 0)
		return -1;
	from->count -= head.count < from->count ? head.count : from->count;
	from->sum_ns -= head.sum_ns < from->sum_ns ? head.sum_ns : from->sum_ns;
	while (next_bucket(bytes, length, &at, &bucket, &count) == 1)
		from->buckets[bucket] -=
		    (uint32_t)(count < from->buckets[bucket] ? count : from->buckets[bucket]);
	return 0;
}
