/* What a tick is compared with, per hour of day and quantile: the edges beyond which a request is
 * slow (`slower`: up by the effect, a regression; `back`: by half, its end; `faster`: down, an
 * improvement), and what requests and slow ones add to the sixteen processes. Pure. */
#ifndef TAILRACE_MODEL_DETECTOR_EDGES_H
#define TAILRACE_MODEL_DETECTOR_EDGES_H

#include <stdint.h>

#include "model/detector_evidence.h"
#include "model/detector_scale.h"

/* gain = slow requests * per_slow + requests * per_request, in nats, before the cap. */
struct detector_gains {
	double per_slow[DETECTOR_PROCESSES];
	double per_request[DETECTOR_PROCESSES];
};

struct detector_edges {
	uint16_t slower[DETECTOR_HOURS][DETECTOR_QUANTILES];
	uint16_t back[DETECTOR_HOURS][DETECTOR_QUANTILES];
	uint16_t faster[DETECTOR_HOURS][DETECTOR_QUANTILES];
	double share[DETECTOR_HOURS]
	            [DETECTOR_QUANTILES]; /* baseline's share beyond its unshifted edge */
	double requests[DETECTOR_HOURS];  /* of the baseline */
	double phi[DETECTOR_QUANTILES];
	/* Of one hour alone, being as large as all the rest: for odds that grew, and that shrank. */
	struct detector_gains up, down;
	int weighed; /* that hour; -1: to be computed */
};

/* Place the edges of one hour by its baseline of `requests` > 0. effect: 0.1 is 10 %. */
void detector_edges_place(struct detector_edges *edges, unsigned hour_of_day,
                          const double baseline[DETECTOR_BUCKETS], double requests, double effect,
                          double effect_ms);

/* As hour `from`, where all hours share one baseline. */
void detector_edges_copy(struct detector_edges *edges, unsigned hour_of_day, unsigned from);

/* Gains of that hour by shares, requests and phi, unless they are there. Who changes one of those
 * sets `weighed` to -1. */
void detector_edges_weigh(struct detector_edges *edges, unsigned hour_of_day);

/* Whether more of `now` (n requests) lie beyond the baseline's quantile detector_quantiles[q], its
 * edge not moved, than its share there, known to two standard errors, lets expect: 1, fewer: -1; 0
 * where that is not certain: under DETECTOR_CLEAR_NATS of likelihood ratio, divided by phi. One
 * look at one moment, no e-process: for what is only shown. requests, n > 0. */
#define DETECTOR_CLEAR_NATS 4.5 /* three standard errors */
int detector_edges_differ(const double baseline[DETECTOR_BUCKETS], double requests,
                          const double now[DETECTOR_BUCKETS], double n, unsigned q, double phi);

#endif
