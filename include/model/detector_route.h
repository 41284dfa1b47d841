/* One route's regression detector (docs/detector.md): what it learned, the tests that run on it,
 * its state. No I/O, no clock: t_s is the unix time at which a window starts, and never goes back.
 * Bounded. One thread. */
#ifndef TAILRACE_MODEL_DETECTOR_ROUTE_H
#define TAILRACE_MODEL_DETECTOR_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/detector_edges.h"
#include "model/detector_evidence.h"
#include "model/detector_history.h"

#define DETECTOR_PENDING_NATS 3.5
#define DETECTOR_REOPEN_S 1800 /* a firing this soon after a resolution reopens the incident */
#define DETECTOR_BASELINE_REQUESTS 1000
#define DETECTOR_PENDING_TICKS 3 /* pending needs evidence higher than this many ticks ago */
#define DETECTOR_HOUR_BLOCKS (DETECTOR_HOUR_S / DETECTOR_BLOCK_S)

/* The `alerts` section of the configuration. */
struct detector_params {
	double window_s;
	double min_duration_s; /* nothing shorter can page */
	int64_t reference_s;
	int64_t reference_gap_s;
	double false_alarm_budget; /* a month, over all routes */
	double min_effect;         /* 0.1 is 10 % */
	double min_effect_ms;
	unsigned
	    routes; /* R, for simulations of one route among many; 0: those that are compared */
};

enum detector_state {
	DETECTOR_LEARNING, /* nothing to compare with yet: static rules only */
	DETECTOR_OK,
	DETECTOR_PENDING,
	DETECTOR_FIRING,
	DETECTOR_RESOLVED,
	DETECTOR_ACCEPTED, /* the new level is being learned */
	DETECTOR_NO_DATA,  /* under 1 request per 10 minutes for 1 h, whatever lies beneath */
	DETECTOR_STATES
};

/* What ticks are compared with. */
enum detector_basis {
	DETECTOR_BASIS_NONE,
	DETECTOR_BASIS_TRAILING,
	DETECTOR_BASIS_HOUR_OF_DAY,
	DETECTOR_BASIS_POOLED,
	DETECTOR_BASIS_STATIC, /* too few requests a day: nothing */
	DETECTOR_BASES
};

struct detector_route;

/* A change of state, or a noted improvement. */
struct detector_event {
	const struct detector_route *route;
	int64_t t_s;
	enum detector_state state;
	int64_t since_s; /* when it began: of pending and firing the change time */
	double evidence_nats, threshold_nats; /* threshold 0 where the state needs none */
	double quantile;                      /* that speaks loudest; 0 where none does */
	bool reopened;                        /* firing again within DETECTOR_REOPEN_S */
	bool improved;  /* faster than the baseline; the state has not changed */
	bool by_deploy; /* a deploy's twin fired, and p holds */
	double p;
	const char *deploy; /* that the twin belongs to, borrowed; null without */
};

/* What all routes share at a tick. */
struct detector_frame {
	const struct detector_params *params;
	unsigned routes;       /* R */
	double threshold_nats; /* ln(1 / alpha) */
	int hour_shift;        /* hours that the wall clock is ahead of t_s */
	const char *deploy;    /* the newest */
	void (*on_event)(void *arg, const struct detector_event *event);
	void *arg;
};

struct detector_route {
	char *name;      /* owned */
	size_t index;    /* in the detector's table: what a caller keys its own by */
	int64_t block_s; /* of the history's blocks */
	enum detector_state state, shown;
	enum detector_basis basis;
	bool compared;            /* edges are there and ticks are held against them */
	int64_t first_s, renew_s; /* first request; when the trailing reference is renewed */
	int64_t last_s;           /* newest tick, -1 before the first */
	struct detector_history history;
	struct detector_edges edges;
	struct detector_evidence slower, back, faster, twin;
	int64_t twin_until_s; /* 0: there is no twin */
	double nats_before[DETECTOR_PENDING_TICKS];
	double given_back; /* nats by which the process that fired takes it back */
	int64_t given_since_s;
	unsigned fired_process;
	double fired_nats;                    /* threshold it fired at */
	int64_t fired_s, since_s, resolved_s; /* of the newest incident */
	int64_t improved_until_s;
	struct {
		int64_t block;
		uint64_t n;
	} recent[DETECTOR_HOUR_BLOCKS + 1]; /* all requests by block, for no_data */
};

/* A route without requests so far; its time begins with its first tick. `name` is copied. */
void detector_route_init(struct detector_route *route, const char *name, size_t index,
                         int64_t block_s);
void detector_route_clear(struct detector_route *route); /* frees what it owns, not itself */

/* What a window costs, in windows that compute no baseline. At an hour's end every route computes
 * its own: 5 ms against the 3 us of any other window. */
#define DETECTOR_WORK_TICK 1
#define DETECTOR_WORK_BASELINE 1000

/* One window with requests in it: cells of rising or any order, each bucket below
 * DETECTOR_BUCKETS. Returns what it cost. */
unsigned detector_route_tick(struct detector_route *route, const struct detector_frame *frame,
                             int64_t t_s, const struct detector_cell *cells, size_t count);

/* Time passes: no_data, the end of `resolved`, acceptance after 7 days. */
void detector_route_check(struct detector_route *route, const struct detector_frame *frame,
                          int64_t t_s);

/* A deploy at t_s: a fresh twin for 2 h. */
void detector_route_mark(struct detector_route *route, int64_t t_s);

/* The user says the new level is right: everything is learned anew. No effect unless firing. */
void detector_route_accept(struct detector_route *route, const struct detector_frame *frame,
                           int64_t t_s);

/* What a route that is compared with nothing has, needs, and when it is expected to have it (unix
 * time; 0 where nobody can say). */
struct detector_progress {
	uint64_t have_requests, need_requests;
	int64_t ready_s;
};
struct detector_progress detector_route_progress(const struct detector_route *route,
                                                 const struct detector_params *params, int64_t t_s);

/* What the route is compared with at t_s, as counts (decayed ones are no integers). Returns its
 * number of requests; 0 where it is compared with nothing. */
double detector_route_baseline(const struct detector_route *route,
                               const struct detector_frame *frame, int64_t t_s,
                               double ret[DETECTOR_BUCKETS]);

const char *detector_state_name(enum detector_state state);
const char *detector_basis_name(enum detector_basis basis);

#endif
