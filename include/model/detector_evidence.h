/* The sixteen e-processes of one test, four quantiles by four odds ratios: W = ln of the e-value
 * that the share of slow requests changed. A CUSUM's W starts again from 0 when it is negative; a
 * deploy twin's never does, which alone makes its largest e-value a p-value. Pure. */
#ifndef TAILRACE_MODEL_DETECTOR_EVIDENCE_H
#define TAILRACE_MODEL_DETECTOR_EVIDENCE_H

#include <stdbool.h>
#include <stdint.h>

#define DETECTOR_QUANTILES 4
#define DETECTOR_ODDS 4
#define DETECTOR_PROCESSES \
	(DETECTOR_QUANTILES * DETECTOR_ODDS) /* process = quantile * 4 + odds ratio */

extern const double detector_quantiles[DETECTOR_QUANTILES];
extern const double detector_odds_ratios[DETECTOR_ODDS];

struct detector_evidence {
	double w[DETECTOR_PROCESSES]; /* nats */
	int64_t since_s
	    [DETECTOR_PROCESSES]; /* last tick at which W was not positive before its update */
	double nats;              /* ln of the mean e-value */
	unsigned best;            /* the process with the largest W */
};

/* All W to 0; what the last tick said (nats, best, since_s) stays readable until the next. */
void detector_evidence_restart(struct detector_evidence *evidence);

/* One tick at t_s. `clamped`: a CUSUM. */
void detector_evidence_add(struct detector_evidence *evidence, int64_t t_s,
                           const double gain_nats[DETECTOR_PROCESSES], bool clamped);

double detector_evidence_max(const struct detector_evidence *evidence); /* largest W */
double detector_evidence_quantile(const struct detector_evidence *evidence);
int64_t detector_evidence_since(const struct detector_evidence *evidence); /* change time */

#endif
