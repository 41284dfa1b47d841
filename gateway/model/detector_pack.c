/* Bits, highest first: first and last bucket in 10 bits each, then the codes of all between. */
#include "model/detector_pack.h"

#include <stdbool.h>

#define PLACE_BITS 10 /* of a bucket's number */
#define UNARY_MAX 12  /* ones of a quotient; that many: the count follows whole */
#define LENGTH_BITS 5 /* of a whole count: its bits less one */
#define RUN_BITS 10   /* the longest run is DETECTOR_BUCKETS */

/* --- the code's size --------------------------------------------------------------------- */

/* Mean of the counts before, in sixteenths. */
struct mean {
	int64_t sixteenths;
};

#define MEAN_FIRST 32
#define RICE_MAX 31
#define MEAN_EMPTY 8 /* after a zero at a mean of up to one half a run's length follows */

static unsigned
rice_bits(const struct mean *mean)
{
	unsigned bits = 0;

	while (bits < RICE_MAX && (20ll << bits) < mean->sixteenths)
		bits++;
	return bits;
}

static void
mean_add(struct mean *mean, uint32_t count)
{
	mean->sixteenths += ((int64_t)count * 16 - mean->sixteenths) / 3;
}

/* --- writing ----------------------------------------------------------------------------- */

struct writer {
	uint8_t *at;
	size_t bits;
};

/* The lowest `count` bits of value, count up to 57. */
static void
put(struct writer *w, uint64_t value, unsigned count)
{
	while (count > 0) {
		unsigned room = 8 - w->bits % 8, take = count < room ? count : room;
		uint8_t part = (uint8_t)(value >> (count - take) & ((1u << take) - 1));

		if (room == 8)
			w->at[w->bits / 8] = 0;
		w->at[w->bits / 8] |= (uint8_t)(part << (room - take));
		w->bits += take;
		count -= take;
	}
}

static unsigned
length_of(uint32_t value) /* in bits; value > 0 */
{
	return 32 - (unsigned)__builtin_clz(value);
}

static void
put_count(struct writer *w, uint32_t count, unsigned rice)
{
	uint32_t quotient = count >> rice;

	if (quotient < UNARY_MAX) {
		put(w, (1u << (quotient + 1)) - 2, quotient + 1);
		put(w, count, rice);
		return;
	}
	put(w, (1u << UNARY_MAX) - 1, UNARY_MAX);
	put(w, length_of(count) - 1, LENGTH_BITS);
	put(w, count, length_of(count));
}

/* Elias gamma of value > 0. */
static void
put_run(struct writer *w, uint32_t value)
{
	put(w, 0, length_of(value) - 1);
	put(w, value, length_of(value));
}

size_t
detector_pack(const uint32_t counts[DETECTOR_BUCKETS], uint8_t *buf)
{
	struct writer w = {.at = buf};
	struct mean mean = {MEAN_FIRST};
	unsigned low = 0, high = DETECTOR_BUCKETS;

	while (low < high && counts[low] == 0)
		low++;
	while (high > low && counts[high - 1] == 0)
		high--;
	if (low == high)
		return 0;
	put(&w, low, PLACE_BITS);
	put(&w, high - 1, PLACE_BITS);
	for (unsigned i = low; i < high; i++) {
		put_count(&w, counts[i], rice_bits(&mean));
		mean_add(&mean, counts[i]);
		if (counts[i] > 0 || mean.sixteenths > MEAN_EMPTY)
			continue;
		unsigned run = 1;
		while (counts[i + run] == 0) /* the last one is not empty */
			run++;
		put_run(&w, run);
		i += run - 1;
	}
	return (w.bits + 7) / 8;
}

/* --- reading ----------------------------------------------------------------------------- */

struct reader {
	const uint8_t *at;
	size_t size, next; /* bytes; of these read into `held` */
	uint64_t held;     /* bits to come, from the highest on */
	unsigned count;    /* how many of them are held */
	bool bad;
};

static void
fill(struct reader *r)
{
	while (r->count <= 56 && r->next < r->size) {
		r->held |= (uint64_t)r->at[r->next++] << (56 - r->count);
		r->count += 8;
	}
}

/* `count` up to 32. */
static uint32_t
take(struct reader *r, unsigned count)
{
	uint64_t value;

	fill(r);
	if (count == 0)
		return 0;
	if (r->count < count) {
		r->bad = true;
		return 0;
	}
	value = r->held >> (64 - count);
	r->held <<= count;
	r->count -= count;
	return (uint32_t)value;
}

static uint32_t
take_count(struct reader *r, unsigned rice)
{
	unsigned ones;

	fill(r);
	ones = ~r->held == 0 ? 64 : (unsigned)__builtin_clzll(~r->held);
	if (ones < UNARY_MAX) {
		take(r, ones + 1);
		r->bad |= (uint64_t)ones << rice > UINT32_MAX;
		return ones << rice | take(r, rice);
	}
	take(r, UNARY_MAX);
	return take(r, take(r, LENGTH_BITS) + 1);
}

static uint32_t
take_run(struct reader *r)
{
	unsigned zeros = 0;

	while (zeros <= RUN_BITS && !r->bad && take(r, 1) == 0)
		zeros++;
	if (zeros > RUN_BITS)
		r->bad = true;
	return r->bad ? 0 : 1u << zeros | take(r, zeros);
}

int
detector_unpack(const uint8_t *bytes, size_t size, struct detector_cell ret_cells[DETECTOR_BUCKETS])
{
	struct reader r = {.at = bytes, .size = size};
	struct mean mean = {MEAN_FIRST};
	unsigned at, last;
	int used = 0;

	if (size == 0)
		return 0;
	at = take(&r, PLACE_BITS);
	last = take(&r, PLACE_BITS);
	if (last >= DETECTOR_BUCKETS)
		return -1;
	while (at <= last && !r.bad) {
		uint32_t count = take_count(&r, rice_bits(&mean));

		mean_add(&mean, count);
		if (count > 0)
			ret_cells[used++] = (struct detector_cell){at, count};
		at += count > 0 || mean.sixteenths > MEAN_EMPTY ? 1 : take_run(&r);
	}
	/* It ends with the last bucket, within the last byte, and that bucket is not empty. */
	if (r.bad || used == 0 || ret_cells[used - 1].bucket != last || r.next < size ||
	    r.count > 7)
		return -1;
	return used;
}
