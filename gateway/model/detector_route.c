/* A route's tick: what it is compared with, the tests, the states. The text it follows:
 * docs/detector.md. */
#include "model/detector_route.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"

#define CAP_TICKS 13.0 /* ticks at the cap that make a page at the default budget */
#define POOLED_EFFECT 0.20
#define FROZEN_W 2.0 /* the trailing reference is not renewed while a W is this high */
#define TWIN_S 7200
#define TWIN_ODDS 1000.0
#define BACK_NATS 4.605170185988092 /* ln 100 */
#define BACK_MIN_S 300
#define BACK_MIN_WINDOWS 30 /* of windows shorter than 10 s */
#define GIVEN_BACK_ENOUGH 2 /* times what it took to fire */
#define ACCEPT_S (7 * DETECTOR_DAY_S)
#define IMPROVED_QUIET_S DETECTOR_DAY_S
#define NO_DATA_REQUESTS 6 /* per hour */
#define YOUNG_S (2 * DETECTOR_DAY_S)

static const char *const state_names[DETECTOR_STATES] = {
    "learning", "ok", "pending", "firing", "resolved", "accepted", "no_data"};
static const char *const basis_names[DETECTOR_BASES] = {"learning", "trailing", "hour_of_day",
                                                        "pooled", "static"};

const char *
detector_state_name(enum detector_state state)
{
	return state_names[state];
}

const char *
detector_basis_name(enum detector_basis basis)
{
	return basis_names[basis];
}

/* Nothing is known about latency; the name, the newest incident and the recent traffic stay. */
static void
start_learning(struct detector_route *route, int64_t t_s)
{
	detector_history_init(&route->history, t_s, route->block_s);
	route->basis = DETECTOR_BASIS_NONE;
	route->compared = false;
	route->first_s = t_s;
	route->renew_s = 0;
	route->twin_until_s = 0;
	memset(&route->slower, 0, sizeof(route->slower));
	memset(&route->back, 0, sizeof(route->back));
	memset(&route->faster, 0, sizeof(route->faster));
	memset(&route->twin, 0, sizeof(route->twin));
	memset(route->nats_before, 0, sizeof(route->nats_before));
}

void
detector_route_init(struct detector_route *route, const char *name, size_t index, int64_t block_s)
{
	memset(route, 0, sizeof(*route));
	route->block_s = block_s;
	route->name = xstrdup(name);
	route->index = index;
	route->state = DETECTOR_LEARNING;
	route->shown = DETECTOR_STATES; /* so that the first tick tells the first state */
	route->last_s = -1;
	route->resolved_s = -1;
	for (size_t i = 0; i <= DETECTOR_HOUR_BLOCKS; i++)
		route->recent[i].block = -1;
	start_learning(route, 0);
}

void
detector_route_clear(struct detector_route *route)
{
	detector_history_clear(&route->history);
	free(route->name);
	route->name = NULL;
}

/* --- events ---------------------------------------------------------------- */

static void
tell(struct detector_route *route, const struct detector_frame *frame, struct detector_event *event)
{
	event->route = route;
	route->shown = event->state;
	if (frame->on_event != NULL)
		frame->on_event(frame->arg, event);
}

/* Go to `state`, telling it where it can be seen. */
static void
enter(struct detector_route *route, const struct detector_frame *frame, int64_t t_s,
      enum detector_state state)
{
	struct detector_event event = {.t_s = t_s, .state = state, .since_s = t_s};

	route->state = state;
	if (route->shown == DETECTOR_NO_DATA || route->shown == state)
		return;
	if (state == DETECTOR_PENDING) {
		event.since_s = detector_evidence_since(&route->slower);
		event.evidence_nats = route->slower.nats;
		event.threshold_nats = DETECTOR_PENDING_NATS;
		event.quantile = detector_evidence_quantile(&route->slower);
	} else if (state == DETECTOR_RESOLVED && route->back.nats >= BACK_NATS) {
		event.since_s = detector_evidence_since(&route->back);
		event.evidence_nats = route->back.nats;
		event.threshold_nats = BACK_NATS;
		event.quantile = detector_evidence_quantile(&route->back);
	} else if (state == DETECTOR_RESOLVED) {
		event.since_s = route->given_since_s;
		event.evidence_nats = route->given_back;
		event.threshold_nats = GIVEN_BACK_ENOUGH * route->fired_nats;
		event.quantile = detector_quantiles[route->fired_process / DETECTOR_ODDS];
	}
	tell(route, frame, &event);
}

/* --- what ticks are compared with ------------------------------------------ */

static void
compare(struct detector_route *route, int64_t t_s, int hour_shift, enum detector_basis basis)
{
	struct detector_edges *edges = &route->edges;

	route->basis = basis;
	route->compared = true;
	detector_history_tempering(&route->history, t_s, t_s - route->first_s < YOUNG_S, hour_shift,
	                           edges->slower, edges->phi);
	edges->weighed = -1;
}

/* The same baseline at every hour of day. */
static void
compare_with_one(struct detector_route *route, const struct detector_frame *frame, int64_t t_s,
                 enum detector_basis basis, const double baseline[DETECTOR_BUCKETS],
                 double requests, double effect)
{
	detector_edges_place(&route->edges, 0, baseline, requests, effect,
	                     frame->params->min_effect_ms);
	for (unsigned h = 1; h < DETECTOR_HOURS; h++)
		detector_edges_copy(&route->edges, h, 0);
	compare(route, t_s, frame->hour_shift, basis);
}

static void
use_static_rules(struct detector_route *route)
{
	route->basis = DETECTOR_BASIS_STATIC;
	route->compared = false;
	route->twin_until_s = 0;
	memset(&route->slower, 0, sizeof(route->slower));
	memset(&route->faster, 0, sizeof(route->faster));
}

static void
use_baseline(struct detector_route *route, const struct detector_frame *frame, int64_t t_s)
{
	double baseline[DETECTOR_BUCKETS], requests, effect = frame->params->min_effect;
	bool by_hour = true;

	/* An incident is not dropped because its route has become quiet: no_data says that. */
	if (detector_history_day_requests(&route->history) < DETECTOR_BASELINE_REQUESTS) {
		if (route->state != DETECTOR_FIRING)
			use_static_rules(route);
		return;
	}
	for (unsigned h = 0; h < DETECTOR_HOURS && by_hour; h++)
		by_hour = detector_history_smoothed(&route->history, h, baseline) >=
		          DETECTOR_BASELINE_REQUESTS;
	if (!by_hour) {
		requests = detector_history_pooled(&route->history, baseline);
		/* After an incident that began on the first day there is little else. */
		if (requests >= DETECTOR_REFERENCE_REQUESTS)
			compare_with_one(route, frame, t_s, DETECTOR_BASIS_POOLED, baseline,
			                 requests, fmax(effect, POOLED_EFFECT));
		return;
	}
	for (unsigned h = 0; h < DETECTOR_HOURS; h++) {
		requests = detector_history_smoothed(&route->history, h, baseline);
		detector_edges_place(&route->edges, h, baseline, requests, effect,
		                     frame->params->min_effect_ms);
	}
	compare(route, t_s, frame->hour_shift, DETECTOR_BASIS_HOUR_OF_DAY);
}

static void
use_reference(struct detector_route *route, const struct detector_frame *frame, int64_t t_s)
{
	const struct detector_params *params = frame->params;
	double baseline[DETECTOR_BUCKETS], requests;

	if (route->state == DETECTOR_FIRING || detector_evidence_max(&route->slower) >= FROZEN_W ||
	    (route->twin_until_s > 0 && detector_evidence_max(&route->twin) >= FROZEN_W) ||
	    t_s - route->first_s < params->reference_s + params->reference_gap_s)
		return;
	requests = detector_history_reference(&route->history, t_s, params->reference_s,
	                                      params->reference_gap_s, baseline);
	if (requests >= DETECTOR_REFERENCE_REQUESTS)
		compare_with_one(route, frame, t_s, DETECTOR_BASIS_TRAILING, baseline, requests,
		                 params->min_effect);
}

/* Returns what it cost. */
static unsigned
turn(struct detector_route *route, const struct detector_frame *frame, int64_t t_s)
{
	int64_t gap_s = frame->params->reference_gap_s;
	unsigned work = DETECTOR_WORK_TICK;

	if (detector_history_turn(&route->history, t_s, frame->hour_shift) &&
	    t_s - route->first_s >= DETECTOR_DAY_S) {
		use_baseline(route, frame, t_s);
		work = DETECTOR_WORK_BASELINE;
	}
	if ((route->basis == DETECTOR_BASIS_NONE || route->basis == DETECTOR_BASIS_TRAILING) &&
	    t_s >= route->renew_s) {
		route->renew_s = t_s - t_s % gap_s + gap_s;
		use_reference(route, frame, t_s);
		work = DETECTOR_WORK_BASELINE;
	}
	return work;
}

/* --- the tests ------------------------------------------------------------- */

struct tick {
	const struct detector_frame *frame;
	int64_t t_s;
	unsigned hour_of_day;
	double n, cap_nats;
	double slower[DETECTOR_QUANTILES], back[DETECTOR_QUANTILES], faster[DETECTOR_QUANTILES];
};

static void
count_slow(const struct detector_edges *edges, struct tick *tick, const struct detector_cell *cells,
           size_t count)
{
	unsigned h = tick->hour_of_day;

	for (size_t i = 0; i < count; i++) {
		double n = (double)cells[i].count;

		tick->n += n;
		for (unsigned q = 0; q < DETECTOR_QUANTILES; q++) {
			tick->slower[q] += cells[i].bucket > edges->slower[h][q] ? n : 0;
			tick->back[q] += cells[i].bucket > edges->back[h][q] ? n : 0;
			tick->faster[q] += cells[i].bucket > edges->faster[h][q] ? n : 0;
		}
	}
}

/* sign: 1, or -1 for evidence of the contrary. */
static void
gains_of(const struct detector_gains *gains, const struct tick *tick,
         const double slow[DETECTOR_QUANTILES], double sign, double ret[DETECTOR_PROCESSES])
{
	for (unsigned i = 0; i < DETECTOR_PROCESSES; i++) {
		double gain =
		    slow[i / DETECTOR_ODDS] * gains->per_slow[i] + tick->n * gains->per_request[i];

		ret[i] = fmin(sign * gain, tick->cap_nats);
	}
}

/* A firing that starts; crossings of a route that fires already are part of it. */
static void
fire(struct detector_route *route, const struct tick *tick, const struct detector_event *crossing,
     const struct detector_evidence *by)
{
	struct detector_event event = *crossing;
	bool merged = route->state == DETECTOR_FIRING;

	detector_evidence_restart(&route->slower);
	detector_evidence_restart(&route->back);
	route->given_back = 0;
	route->twin_until_s = 0;
	route->fired_process = by->best;
	route->fired_nats = crossing->threshold_nats;
	if (merged)
		return;
	event.t_s = tick->t_s;
	event.state = DETECTOR_FIRING;
	event.quantile = detector_evidence_quantile(by);
	event.evidence_nats = by->nats;
	event.reopened =
	    route->resolved_s >= 0 && tick->t_s - route->resolved_s <= DETECTOR_REOPEN_S;
	event.since_s = event.reopened ? route->since_s : detector_evidence_since(by);
	route->since_s = event.since_s;
	route->fired_s = tick->t_s;
	route->state = DETECTOR_FIRING;
	tell(route, tick->frame, &event);
}

static void
judge_slower(struct detector_route *route, const struct tick *tick)
{
	const struct detector_frame *frame = tick->frame;
	struct detector_event event = {.threshold_nats = frame->threshold_nats};
	const struct detector_evidence *by = NULL;
	double gain[DETECTOR_PROCESSES], twin_nats = log(TWIN_ODDS * frame->routes);

	gains_of(&route->edges.up, tick, tick->slower, 1, gain);
	memmove(route->nats_before + 1, route->nats_before,
	        sizeof(route->nats_before) - sizeof(route->nats_before[0]));
	route->nats_before[0] = route->slower.nats;
	detector_evidence_add(&route->slower, tick->t_s, gain, true);
	if (route->slower.nats >= frame->threshold_nats)
		by = &route->slower;
	if (tick->t_s >= route->twin_until_s)
		route->twin_until_s = 0;
	if (route->twin_until_s > 0) {
		detector_evidence_add(&route->twin, tick->t_s, gain, false);
		if (route->twin.nats >= twin_nats) {
			by = &route->twin;
			event.threshold_nats = twin_nats;
			event.by_deploy = true;
			event.deploy = frame->deploy;
			event.p = fmin(1, frame->routes * exp(-route->twin.nats));
		}
	}
	if (by != NULL)
		fire(route, tick, &event, by);
}

/* Whether the incident may end by its evidence. The very process that fired must have taken back
 * what it took to fire: else a median that never rose would end the incident of a tail. Twice that
 * is enough alone: a level that drifts within half the effect would keep the other test waiting. */
static bool
is_back(const struct detector_route *route)
{
	if (route->given_back < route->fired_nats || route->slower.nats >= DETECTOR_PENDING_NATS)
		return false;
	return route->back.nats >= BACK_NATS ||
	       route->given_back >= GIVEN_BACK_ENOUGH * route->fired_nats;
}

static void
judge_back(struct detector_route *route, const struct tick *tick)
{
	double gain[DETECTOR_PROCESSES];

	gains_of(&route->edges.up, tick, tick->slower, -1, gain);
	if (route->given_back <= 0) {
		route->given_back = 0;
		route->given_since_s = tick->t_s;
	}
	route->given_back += gain[route->fired_process];
	gains_of(&route->edges.down, tick, tick->back, 1, gain);
	detector_evidence_add(&route->back, tick->t_s, gain, true);
	if ((double)(tick->t_s - route->fired_s) <
	        fmin(BACK_MIN_S, BACK_MIN_WINDOWS * tick->frame->params->window_s) ||
	    !is_back(route))
		return;
	route->resolved_s = tick->t_s;
	enter(route, tick->frame, tick->t_s, DETECTOR_RESOLVED);
}

static void
judge_faster(struct detector_route *route, const struct tick *tick)
{
	struct detector_event event = {.t_s = tick->t_s, .improved = true};
	double gain[DETECTOR_PROCESSES];
	bool known = tick->t_s < route->improved_until_s;

	gains_of(&route->edges.down, tick, tick->faster, 1, gain);
	detector_evidence_add(&route->faster, tick->t_s, gain, true);
	if (route->faster.nats < tick->frame->threshold_nats)
		return;
	event.state = route->state;
	event.since_s = detector_evidence_since(&route->faster);
	event.evidence_nats = route->faster.nats;
	event.threshold_nats = tick->frame->threshold_nats;
	event.quantile = detector_evidence_quantile(&route->faster);
	detector_evidence_restart(&route->faster);
	route->improved_until_s = tick->t_s + IMPROVED_QUIET_S;
	if (!known)
		tell(route, tick->frame, &event);
}

/* learning, ok and pending, by whether there is a comparison and by its evidence. */
static void
settle(struct detector_route *route, const struct tick *tick)
{
	double nats = route->slower.nats;

	if (route->state == DETECTOR_FIRING)
		return;
	if (!route->compared) {
		if (route->state != DETECTOR_ACCEPTED)
			enter(route, tick->frame, tick->t_s, DETECTOR_LEARNING);
	} else if (route->state == DETECTOR_PENDING) {
		if (nats < DETECTOR_PENDING_NATS)
			enter(route, tick->frame, tick->t_s, DETECTOR_OK);
	} else if (nats >= DETECTOR_PENDING_NATS &&
	           nats > route->nats_before[DETECTOR_PENDING_TICKS - 1]) {
		enter(route, tick->frame, tick->t_s, DETECTOR_PENDING);
	} else if (route->state != DETECTOR_RESOLVED) {
		enter(route, tick->frame, tick->t_s, DETECTOR_OK);
	}
}

/* --- traffic and time ------------------------------------------------------ */

static void
count_recent(struct detector_route *route, int64_t t_s, uint64_t n)
{
	int64_t block = t_s / DETECTOR_BLOCK_S;
	size_t slot = (size_t)(block % (DETECTOR_HOUR_BLOCKS + 1));

	if (route->recent[slot].block != block) {
		route->recent[slot].block = block;
		route->recent[slot].n = 0;
	}
	route->recent[slot].n += n;
}

/* Requests of the last hour in whole blocks, and of the current block. */
static uint64_t
requests_recent(const struct detector_route *route, int64_t t_s)
{
	int64_t block = t_s / DETECTOR_BLOCK_S;
	uint64_t sum = 0;

	for (size_t i = 0; i <= DETECTOR_HOUR_BLOCKS; i++)
		if (route->recent[i].block >= block - DETECTOR_HOUR_BLOCKS &&
		    route->recent[i].block <= block)
			sum += route->recent[i].n;
	return sum;
}

static void
show_silence(struct detector_route *route, const struct detector_frame *frame, int64_t t_s)
{
	bool silent = t_s - route->first_s >= DETECTOR_HOUR_S &&
	              requests_recent(route, t_s) < NO_DATA_REQUESTS;
	struct detector_event event = {.t_s = t_s, .since_s = t_s};

	if (silent == (route->shown == DETECTOR_NO_DATA))
		return;
	event.state = silent ? DETECTOR_NO_DATA : route->state;
	if (event.state == DETECTOR_FIRING)
		event.since_s = route->since_s;
	tell(route, frame, &event);
}

void
detector_route_check(struct detector_route *route, const struct detector_frame *frame, int64_t t_s)
{
	if (route->last_s < 0)
		return;
	if (route->state == DETECTOR_FIRING && t_s - route->fired_s >= ACCEPT_S)
		detector_route_accept(route, frame, t_s);
	if (route->state == DETECTOR_RESOLVED && t_s - route->resolved_s > DETECTOR_REOPEN_S)
		enter(route, frame, t_s, DETECTOR_OK);
	show_silence(route, frame, t_s);
}

unsigned
detector_route_tick(struct detector_route *route, const struct detector_frame *frame, int64_t t_s,
                    const struct detector_cell *cells, size_t count)
{
	const struct detector_params *params = frame->params;
	struct tick tick = {.frame = frame, .t_s = t_s};
	bool clean = true;
	uint64_t n = 0;

	for (size_t i = 0; i < count; i++)
		n += cells[i].count;
	if (n == 0)
		return DETECTOR_WORK_TICK;
	if (route->last_s < 0)
		start_learning(route, t_s);
	unsigned work = turn(route, frame, t_s);
	count_recent(route, t_s, n);
	route->last_s = t_s;
	if (route->compared) {
		tick.hour_of_day = detector_hour_of_day(route->history.hour, frame->hour_shift);
		tick.cap_nats = CAP_TICKS * params->window_s / params->min_duration_s;
		detector_edges_weigh(&route->edges, tick.hour_of_day);
		count_slow(&route->edges, &tick, cells, count);
		judge_slower(route, &tick);
		clean =
		    route->slower.nats < DETECTOR_PENDING_NATS && route->state != DETECTOR_FIRING;
		if (route->state == DETECTOR_FIRING)
			judge_back(route, &tick);
		else
			judge_faster(route, &tick);
	}
	settle(route, &tick);
	detector_history_count(&route->history, n);
	if (clean)
		detector_history_add(&route->history, cells, count);
	detector_route_check(route, frame, t_s);
	return work;
}

void
detector_route_mark(struct detector_route *route, int64_t t_s)
{
	memset(&route->twin, 0, sizeof(route->twin));
	route->twin_until_s = t_s + TWIN_S;
}

void
detector_route_accept(struct detector_route *route, const struct detector_frame *frame, int64_t t_s)
{
	if (route->state != DETECTOR_FIRING)
		return;
	detector_history_clear(&route->history);
	start_learning(route, t_s);
	enter(route, frame, t_s, DETECTOR_ACCEPTED);
}

struct detector_progress
detector_route_progress(const struct detector_route *route, const struct detector_params *params,
                        int64_t t_s)
{
	struct detector_progress progress = {0};
	int64_t age_s = t_s - route->first_s, earliest_s, block_s;

	if (route->compared)
		return progress;
	if (route->basis == DETECTOR_BASIS_STATIC) {
		progress.have_requests = detector_history_day_requests(&route->history);
		progress.need_requests = DETECTOR_BASELINE_REQUESTS;
		return progress;
	}
	progress.have_requests =
	    detector_history_reach(&route->history, t_s, params->reference_gap_s);
	progress.need_requests = DETECTOR_REFERENCE_REQUESTS;
	earliest_s = route->first_s + params->reference_s + params->reference_gap_s;
	/* At least one whole block, which is longer than a very short reference. */
	block_s = (route->first_s / route->block_s + 1) * route->block_s;
	if (earliest_s < block_s + params->reference_gap_s)
		earliest_s = block_s + params->reference_gap_s;
	if (earliest_s % params->reference_gap_s != 0)
		earliest_s += params->reference_gap_s - earliest_s % params->reference_gap_s;
	/* Requests are expected to go on coming as they came; the gap is not in what counts. */
	if (progress.have_requests > 0 && age_s > params->reference_gap_s) {
		double per_s =
		    (double)progress.have_requests / (double)(age_s - params->reference_gap_s);
		double missing = progress.need_requests > progress.have_requests
		                     ? (double)(progress.need_requests - progress.have_requests)
		                     : 0;

		progress.ready_s = t_s + (int64_t)ceil(missing / per_s);
	}
	if (progress.ready_s < earliest_s)
		progress.ready_s = earliest_s;
	return progress;
}

double
detector_route_baseline(const struct detector_route *route, const struct detector_frame *frame,
                        int64_t t_s, double ret[DETECTOR_BUCKETS])
{
	const struct detector_params *params = frame->params;

	switch (route->basis) {
	case DETECTOR_BASIS_HOUR_OF_DAY:
		return detector_history_smoothed(
		    &route->history, detector_hour_of_day(t_s / DETECTOR_HOUR_S, frame->hour_shift),
		    ret);
	case DETECTOR_BASIS_POOLED:
		return detector_history_pooled(&route->history, ret);
	case DETECTOR_BASIS_TRAILING:
		return detector_history_reference(&route->history, t_s, params->reference_s,
		                                  params->reference_gap_s, ret);
	default:
		memset(ret, 0, DETECTOR_BUCKETS * sizeof(*ret));
		return 0;
	}
}
