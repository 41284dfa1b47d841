/* Histograms by hour of day, blocks, and what is computed from them: baselines and tempering. */
#include "model/detector_history.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"
#include "model/detector_pack.h"

#define FORGET_HOURS (7 * 24.0) /* the rows by hour lose 1/e in a week */
#define CLIP_LOW 0.02           /* quantiles at which a block's deviation is clipped */
#define CLIP_HIGH 0.98
#define VARIANCE_MIN 1e-9
#define UNIT (1.0 / 1024) /* of a row, or larger where its counts are over two million */
#define UNITS_MAX 2147483648.0

/* Until 48 h exist: the tempering is at least 1 + this per request in a block. */
static const double young_phi[DETECTOR_QUANTILES] = {0.007, 0.005, 0.0014, 0.0005};

void
detector_history_init(struct detector_history *history, int64_t t_s, int64_t block_s)
{
	memset(history, 0, sizeof(*history));
	detector_blocks_init(&history->blocks, DETECTOR_BLOCKS);
	history->block_s = block_s;
	history->block = t_s / block_s;
	history->hour = t_s / DETECTOR_HOUR_S;
	for (size_t i = 0; i < DETECTOR_HOURS; i++)
		history->requests[i].hour = -1;
}

void
detector_history_clear(struct detector_history *history)
{
	detector_blocks_clear(&history->blocks);
	for (size_t h = 0; h < DETECTOR_HOURS; h++) {
		free(history->by_hour[h].packed);
		history->by_hour[h] = (struct detector_row){0};
	}
}

/* Adds `share` of what the hour of day holds, at what it is worth now. */
static void
row_read(const struct detector_history *history, unsigned hour_of_day, double share,
         double counts[DETECTOR_BUCKETS])
{
	const struct detector_row *row = &history->by_hour[hour_of_day];
	struct detector_cell cells[DETECTOR_BUCKETS];
	double worth = share * row->unit * exp((double)(row->hour - history->hour) / FORGET_HOURS);
	int used = detector_unpack(row->packed, row->size, cells);

	for (int i = 0; i < used; i++)
		counts[cells[i].bucket] += (double)cells[i].count * worth;
}

static void
row_write(struct detector_row *row, int64_t hour, const double counts[DETECTOR_BUCKETS])
{
	uint32_t units[DETECTOR_BUCKETS];
	uint8_t packed[DETECTOR_PACKED_MAX];
	double top = 0;

	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		top = fmax(top, counts[i]);
	for (row->unit = UNIT; top / row->unit > UNITS_MAX;)
		row->unit *= 2;
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		units[i] = (uint32_t)(counts[i] / row->unit + 0.5);
	free(row->packed);
	row->packed = NULL;
	row->hour = hour;
	row->size = (uint32_t)detector_pack(units, packed);
	if (row->size == 0)
		return;
	row->packed = xcalloc(1, row->size);
	memcpy(row->packed, packed, row->size);
}

/* Counts stop where 32 bits end: no route has that many requests in an hour. */
static void
count_up(uint32_t *count, uint64_t n)
{
	*count = n < UINT32_MAX - *count ? *count + (uint32_t)n : UINT32_MAX;
}

static void
end_block(struct detector_history *history, int64_t block)
{
	detector_blocks_put(&history->blocks, history->block, history->this_block);
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		count_up(&history->this_hour[i], history->this_block[i]);
	memset(history->this_block, 0, sizeof(history->this_block));
	history->block = block;
}

static void
end_hour(struct detector_history *history, int64_t hour, int hour_shift)
{
	unsigned ended = detector_hour_of_day(history->hour, hour_shift);
	double counts[DETECTOR_BUCKETS] = {0};

	history->hour = hour;
	row_read(history, ended, 1, counts);
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		counts[i] += history->this_hour[i];
	row_write(&history->by_hour[ended], hour, counts);
	memset(history->this_hour, 0, sizeof(history->this_hour));
}

bool
detector_history_turn(struct detector_history *history, int64_t t_s, int hour_shift)
{
	int64_t block = t_s / history->block_s, hour = t_s / DETECTOR_HOUR_S;

	if (block == history->block)
		return false;
	end_block(history, block);
	if (hour == history->hour)
		return false;
	end_hour(history, hour, hour_shift);
	return true;
}

void
detector_history_count(struct detector_history *history, uint64_t n)
{
	size_t slot = (size_t)(history->hour % DETECTOR_HOURS);

	if (history->requests[slot].hour != history->hour) {
		history->requests[slot].hour = history->hour;
		history->requests[slot].n = 0;
	}
	history->requests[slot].n += n;
}

void
detector_history_add(struct detector_history *history, const struct detector_cell *cells,
                     size_t count)
{
	for (size_t i = 0; i < count; i++)
		count_up(&history->this_block[cells[i].bucket], cells[i].count);
}

uint64_t
detector_history_day_requests(const struct detector_history *history)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < DETECTOR_HOURS; i++) {
		int64_t hour = history->requests[i].hour;

		if (hour >= history->hour - DETECTOR_HOURS && hour < history->hour)
			sum += history->requests[i].n;
	}
	return sum;
}

static double
sum_of(const double counts[DETECTOR_BUCKETS])
{
	double sum = 0;

	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		sum += counts[i];
	return sum;
}

double
detector_history_smoothed(const struct detector_history *history, unsigned hour_of_day,
                          double ret[DETECTOR_BUCKETS])
{
	memset(ret, 0, DETECTOR_BUCKETS * sizeof(*ret));
	row_read(history, (hour_of_day + DETECTOR_HOURS - 1) % DETECTOR_HOURS, 0.25, ret);
	row_read(history, hour_of_day, 0.5, ret);
	row_read(history, (hour_of_day + 1) % DETECTOR_HOURS, 0.25, ret);
	return sum_of(ret);
}

double
detector_history_pooled(const struct detector_history *history, double ret[DETECTOR_BUCKETS])
{
	memset(ret, 0, DETECTOR_BUCKETS * sizeof(*ret));
	for (unsigned h = 0; h < DETECTOR_HOURS; h++)
		row_read(history, h, 1, ret);
	return sum_of(ret);
}

/* The first block of a reference that ends at end_s; the block behind it where there is none. */
static int64_t
reference_begin(const struct detector_history *history, int64_t end_s, int64_t length_s)
{
	struct detector_walk walk = {0};
	struct detector_block block;
	uint64_t n[DETECTOR_BLOCKS] = {0}, sum = 0;
	int64_t end = end_s / history->block_s, number = end - 1;

	while (detector_blocks_next(&history->blocks, &walk, &block))
		if (block.number < end && block.number >= end - DETECTOR_BLOCKS)
			n[end - 1 - block.number] = block.n;
	for (; number >= 0 && number >= end - DETECTOR_BLOCKS; number--) {
		int64_t age_s = end_s - number * history->block_s;

		if (age_s > DETECTOR_DAY_S ||
		    (age_s > length_s && sum >= DETECTOR_REFERENCE_REQUESTS))
			break;
		sum += n[end - 1 - number];
	}
	return number + 1;
}

double
detector_history_reference(const struct detector_history *history, int64_t t_s, int64_t length_s,
                           int64_t gap_s, double ret[DETECTOR_BUCKETS])
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	struct detector_walk walk = {0};
	struct detector_block block;
	int64_t begin = reference_begin(history, t_s - gap_s, length_s);
	uint64_t sum = 0;

	memset(ret, 0, DETECTOR_BUCKETS * sizeof(*ret));
	while (detector_blocks_next(&history->blocks, &walk, &block)) {
		size_t used;

		if (block.number < begin || block.number >= (t_s - gap_s) / history->block_s)
			continue;
		used = detector_block_cells(&block, cells);
		for (size_t i = 0; i < used; i++)
			ret[cells[i].bucket] += (double)cells[i].count;
		sum += block.n;
	}
	return (double)sum;
}

uint64_t
detector_history_reach(const struct detector_history *history, int64_t t_s, int64_t gap_s)
{
	struct detector_walk walk = {0};
	struct detector_block block;
	uint64_t sum = 0;

	while (detector_blocks_next(&history->blocks, &walk, &block)) {
		int64_t age_s = t_s - gap_s - block.number * history->block_s;

		if (age_s >= history->block_s && age_s <= DETECTOR_DAY_S)
			sum += block.n;
	}
	return sum;
}

/* --- tempering ------------------------------------------------------------- */

struct block_counts {
	unsigned hour_of_day;
	double n, slow[DETECTOR_QUANTILES];
};

static int
double_order(const void *left, const void *right)
{
	const double *a = left, *b = right;

	return (*a > *b) - (*a < *b);
}

/* Linear between the two nearest ranks. */
static double
sorted_quantile(const double *sorted, size_t count, double q)
{
	double rank = q * (double)(count - 1), below = floor(rank), part = rank - below;
	size_t at = (size_t)below;
	double step = at + 1 < count ? sorted[at + 1] - sorted[at] : 0;

	return part < 0.5 ? sorted[at] + step * part : sorted[at] + step - step * (1 - part);
}

static double
clipped_variance(const double *values, size_t count)
{
	double sorted[DETECTOR_BLOCKS], low, high, mean = 0, sum = 0;

	memcpy(sorted, values, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), double_order);
	low = sorted_quantile(sorted, count, CLIP_LOW);
	high = sorted_quantile(sorted, count, CLIP_HIGH);
	for (size_t i = 0; i < count; i++)
		mean += fmin(fmax(values[i], low), high);
	mean /= (double)count;
	for (size_t i = 0; i < count; i++) {
		double off = fmin(fmax(values[i], low), high) - mean;

		sum += off * off;
	}
	return sum / (double)count;
}

/* Requests and slow requests of each block that has any. Returns how many blocks. */
static size_t
count_blocks(const struct detector_history *history, int64_t t_s, int hour_shift,
             const uint16_t edges[DETECTOR_HOURS][DETECTOR_QUANTILES],
             struct block_counts ret[DETECTOR_BLOCKS])
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	struct detector_walk walk = {0};
	struct detector_block block;
	size_t count = 0;

	while (detector_blocks_next(&history->blocks, &walk, &block)) {
		struct block_counts *row = &ret[count];
		size_t used;

		if (block.number < t_s / history->block_s - DETECTOR_BLOCKS)
			continue;
		memset(row, 0, sizeof(*row));
		row->n = (double)block.n;
		row->hour_of_day = detector_hour_of_day(
		    block.number * history->block_s / DETECTOR_HOUR_S, hour_shift);
		used = detector_block_cells(&block, cells);
		for (size_t c = 0; c < used; c++)
			for (unsigned q = 0; q < DETECTOR_QUANTILES; q++)
				if (cells[c].bucket > edges[row->hour_of_day][q])
					row->slow[q] += (double)cells[c].count;
		count++;
	}
	return count;
}

static double
young_floor(const struct detector_history *history, int64_t t_s, unsigned quantile)
{
	int64_t hour_blocks = DETECTOR_HOUR_S / history->block_s;
	struct detector_walk walk = {0};
	struct detector_block block;
	double n = 0;

	while (detector_blocks_next(&history->blocks, &walk, &block))
		if (block.number >= t_s / history->block_s - hour_blocks)
			n += (double)block.n;
	return 1 + young_phi[quantile] * n / (double)hour_blocks;
}

void
detector_history_tempering(const struct detector_history *history, int64_t t_s, bool young,
                           int hour_shift, const uint16_t edges[DETECTOR_HOURS][DETECTOR_QUANTILES],
                           double ret_phi[DETECTOR_QUANTILES])
{
	struct block_counts blocks[DETECTOR_BLOCKS];
	size_t count = count_blocks(history, t_s, hour_shift, edges, blocks);

	for (unsigned q = 0; q < DETECTOR_QUANTILES; q++) {
		double n[DETECTOR_HOURS] = {0}, slow[DETECTOR_HOURS] = {0}, z[DETECTOR_BLOCKS];

		for (size_t i = 0; i < count; i++) {
			n[blocks[i].hour_of_day] += blocks[i].n;
			slow[blocks[i].hour_of_day] += blocks[i].slow[q];
		}
		for (size_t i = 0; i < count; i++) {
			unsigned h = blocks[i].hour_of_day;
			double p = slow[h] / n[h], variance = blocks[i].n * p * (1 - p);

			z[i] = (blocks[i].slow[q] - blocks[i].n * p) /
			       sqrt(fmax(variance, VARIANCE_MIN));
		}
		ret_phi[q] = count == 0 ? 1 : fmax(1, clipped_variance(z, count));
		if (young)
			ret_phi[q] = fmax(ret_phi[q], young_floor(history, t_s, q));
	}
}
