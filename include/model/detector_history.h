/* What a route's latency used to be: a histogram per hour of day that forgets in a week, packed
 * 5-minute blocks of 48 h, requests of the last 24 hours. From it come the baselines and the
 * tempering. Bounded, no larger with time. Pure; one thread. */
#ifndef TAILRACE_MODEL_DETECTOR_HISTORY_H
#define TAILRACE_MODEL_DETECTOR_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/detector_blocks.h"
#include "model/detector_evidence.h"
#include "model/detector_scale.h"

#define DETECTOR_REFERENCE_REQUESTS 400 /* fewest requests of a trailing reference */
#define DETECTOR_BLOCKS 576             /* 48 h of 5 minutes */

/* What an hour of day has seen, packed: counts in parts of a request, of which some are forgotten. */
struct detector_row {
	int64_t hour;    /* of which the counts are worth so much; since then they are worth less */
	double unit;     /* requests */
	uint8_t *packed; /* owned: counts / unit */
	uint32_t size;
};

struct detector_history {
	struct detector_blocks blocks;
	uint32_t this_block[DETECTOR_BUCKETS], this_hour[DETECTOR_BUCKETS];
	struct detector_row by_hour[DETECTOR_HOURS]; /* by hour of day */
	int64_t block_s; /* length of a block: DETECTOR_BLOCK_S, or less with a short reference */
	int64_t block,
	    hour; /* the ones that `this_*` belong to: unix time / block_s and / 3600 s */
	struct {
		int64_t hour;
		uint64_t n;
	} requests[DETECTOR_HOURS]; /* all of the last 24 h, by hour, clean or not */
};

/* Empty, at the block and hour of t_s, in blocks of block_s. */
void detector_history_init(struct detector_history *history, int64_t t_s, int64_t block_s);
void detector_history_clear(struct detector_history *history); /* frees */

/* End the block and the hour that t_s is no longer in. `hour_shift` is added to hours for their
 * hour of day. Returns whether an hour ended. */
bool detector_history_turn(struct detector_history *history, int64_t t_s, int hour_shift);

/* Count n requests of any kind; then, where the tick is clean, its latencies. */
void detector_history_count(struct detector_history *history, uint64_t n);
void detector_history_add(struct detector_history *history, const struct detector_cell *cells,
                          size_t count);

/* Requests of the 24 hours before the current one. */
uint64_t detector_history_day_requests(const struct detector_history *history);

/* Baselines. Each returns its number of requests (decayed ones are no integers). `smoothed` mixes
 * the hour's neighbours in, 1/4 1/2 1/4; `reference` covers `length_s` that ended `gap_s` before
 * t_s in whole blocks, reaching back up to 24 h for DETECTOR_REFERENCE_REQUESTS. */
double detector_history_smoothed(const struct detector_history *history, unsigned hour_of_day,
                                 double ret[DETECTOR_BUCKETS]);
double detector_history_pooled(const struct detector_history *history,
                               double ret[DETECTOR_BUCKETS]);
double detector_history_reference(const struct detector_history *history, int64_t t_s,
                                  int64_t length_s, int64_t gap_s, double ret[DETECTOR_BUCKETS]);

/* Requests in blocks that such a reference may reach back to. */
uint64_t detector_history_reach(const struct detector_history *history, int64_t t_s, int64_t gap_s);

/* How much more the slow requests of 5 minutes vary than independent ones would, at least 1, per
 * quantile. `edges`: the bucket beyond which a request is slow, per hour of day and quantile.
 * `young`: less than 48 h exist, and a floor by traffic holds. */
void detector_history_tempering(const struct detector_history *history, int64_t t_s, bool young,
                                int hour_shift,
                                const uint16_t edges[DETECTOR_HOURS][DETECTOR_QUANTILES],
                                double ret_phi[DETECTOR_QUANTILES]);

/* Hour of day of an hour counted since 1970. */
static inline unsigned
detector_hour_of_day(int64_t hour, int hour_shift)
{
	int64_t of_day = (hour + hour_shift) % DETECTOR_HOURS;

	return (unsigned)(of_day < 0 ? of_day + DETECTOR_HOURS : of_day);
}

#endif
