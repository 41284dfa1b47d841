/* Sixteen e-processes and their mean. */
#include "model/detector_evidence.h"

#include <math.h>
#include <string.h>

const double detector_quantiles[DETECTOR_QUANTILES] = {0.5, 0.75, 0.95, 0.99};
const double detector_odds_ratios[DETECTOR_ODDS] = {1.25, 1.6, 2.5, 5.0};

void
detector_evidence_restart(struct detector_evidence *evidence)
{
	memset(evidence->w, 0, sizeof(evidence->w));
}

void
detector_evidence_add(struct detector_evidence *evidence, int64_t t_s,
                      const double gain_nats[DETECTOR_PROCESSES], bool clamped)
{
	double sum = 0, top;

	evidence->best = 0;
	for (unsigned i = 0; i < DETECTOR_PROCESSES; i++) {
		if (evidence->w[i] <= 0) {
			evidence->since_s[i] = t_s;
			if (clamped)
				evidence->w[i] = 0;
		}
		evidence->w[i] += gain_nats[i];
		if (evidence->w[i] > evidence->w[evidence->best])
			evidence->best = i;
	}
	top = evidence->w[evidence->best];
	for (unsigned i = 0; i < DETECTOR_PROCESSES; i++)
		sum += exp(evidence->w[i] - top);
	evidence->nats = top + log(sum / DETECTOR_PROCESSES);
}

double
detector_evidence_max(const struct detector_evidence *evidence)
{
	double top = evidence->w[0];

	for (unsigned i = 1; i < DETECTOR_PROCESSES; i++)
		if (evidence->w[i] > top)
			top = evidence->w[i];
	return top;
}

double
detector_evidence_quantile(const struct detector_evidence *evidence)
{
	return detector_quantiles[evidence->best / DETECTOR_ODDS];
}

int64_t
detector_evidence_since(const struct detector_evidence *evidence)
{
	return evidence->since_s[evidence->best];
}
