/* Edges from a baseline, and the log likelihood ratios of requests beyond them. */
#include "model/detector_edges.h"

#include <math.h>
#include <string.h>

#define SHARE_MIN 1e-5
#define SHARE_MAX 0.9
#define LAST_EDGE (DETECTOR_BUCKETS - 1)

/* `at` moved up by `effect`, further until it moved by effect_ms. */
static uint16_t
moved_up(unsigned at, double effect, double effect_ms)
{
	unsigned moved = at + (unsigned)ceil(HISTOGRAM_PER_OCTAVE * log2(1 + effect));
	unsigned by_ms = detector_bucket(detector_edge_ms(at) + effect_ms);

	if (moved < by_ms)
		moved = by_ms;
	return (uint16_t)(moved < LAST_EDGE ? moved : LAST_EDGE);
}

/* The mirror image; 0 where the effect is larger than the edge. */
static uint16_t
moved_down(unsigned at, double effect, double effect_ms)
{
	unsigned steps = (unsigned)ceil(HISTOGRAM_PER_OCTAVE * log2(1 + effect));
	unsigned moved = at > steps ? at - steps : 0;
	double below_ms = detector_edge_ms(at) - effect_ms;

	while (moved > 0 && detector_edge_ms(moved) > below_ms)
		moved--;
	return (uint16_t)moved;
}

void
detector_edges_place(struct detector_edges *edges, unsigned h,
                     const double baseline[DETECTOR_BUCKETS], double requests, double effect,
                     double effect_ms)
{
	double below = 0;
	unsigned q = 0;

	edges->requests[h] = requests;
	for (unsigned at = 0; at < DETECTOR_BUCKETS && q < DETECTOR_QUANTILES; at++) {
		below += baseline[at];
		while (q < DETECTOR_QUANTILES &&
		       (below / requests >= detector_quantiles[q] || at == LAST_EDGE)) {
			edges->share[h][q] = fmax(1 - below / requests, 0);
			edges->slower[h][q] = moved_up(at, effect, effect_ms);
			edges->back[h][q] = moved_up(at, effect / 2, effect_ms / 2);
			edges->faster[h][q] = moved_down(at, effect, effect_ms);
			q++;
		}
	}
}

void
detector_edges_copy(struct detector_edges *edges, unsigned h, unsigned from)
{
	edges->requests[h] = edges->requests[from];
	memcpy(edges->share[h], edges->share[from], sizeof(edges->share[h]));
	memcpy(edges->slower[h], edges->slower[from], sizeof(edges->slower[h]));
	memcpy(edges->back[h], edges->back[from], sizeof(edges->back[h]));
	memcpy(edges->faster[h], edges->faster[from], sizeof(edges->faster[h]));
}

static double
clipped(double share)
{
	return fmin(fmax(share, SHARE_MIN), SHARE_MAX);
}

/* One process: odds p0/(1-p0) against `ratio` times them. */
static void
weigh(struct detector_gains *gains, unsigned process, double p0, double ratio, double phi)
{
	double odds = p0 / (1 - p0) * ratio, p1 = odds / (1 + odds);
	double slow = log(p1 / p0) / phi, fast = log((1 - p1) / (1 - p0)) / phi;

	gains->per_slow[process] = slow - fast;
	gains->per_request[process] = fast;
}

void
detector_edges_weigh(struct detector_edges *edges, unsigned h)
{
	if (edges->weighed == (int)h)
		return;
	edges->weighed = (int)h;
	for (unsigned process = 0; process < DETECTOR_PROCESSES; process++) {
		unsigned q = process / DETECTOR_ODDS;
		double ratio = detector_odds_ratios[process % DETECTOR_ODDS];
		double p = edges->share[h][q], n = edges->requests[h];
		/* The share is known to two standard errors only: what speaks for a change is
		 * counted from the far end of them. */
		double off = 2 * sqrt(p * (1 - p) / n) + 1 / n;

		weigh(&edges->up, process, clipped(p + off), ratio, edges->phi[q]);
		weigh(&edges->down, process, clipped(p - off), 1 / ratio, edges->phi[q]);
	}
}

/* a ln(a / b), 0 where there is none. */
static double
gained(double a, double b)
{
	return a > 0 ? a * log(a / b) : 0;
}

int
detector_edges_differ(const double baseline[DETECTOR_BUCKETS], double requests,
                      const double now[DETECTOR_BUCKETS], double n, unsigned q, double phi)
{
	double below = 0, fast = 0;
	for (unsigned at = 0; at <= LAST_EDGE && below < detector_quantiles[q] * requests; at++) {
		below += baseline[at];
		fast += now[at];
	}
	double p = fmin(fmax(1 - below / requests, 0), 1), share = 1 - fast / n;
	double off = 2 * sqrt(p * (1 - p) / requests) + 1 / requests;
	int way = share > p ? 1 : -1;
	double p0 = p + way * off; /* the end of what is known that lies nearer */
	if (p0 <= 0 || p0 >= 1 || (share - p0) * way <= 0)
		return 0;
	double nats = gained(n * share, n * p0) + gained(n * (1 - share), n * (1 - p0));
	return nats >= DETECTOR_CLEAR_NATS * phi ? way : 0;
}
