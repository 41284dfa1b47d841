/* Regression detection over all routes (docs/detector.md): finds a route's detector by name, keeps
 * the false-alarm budget over those that are compared, hands out deploys. No I/O, no clock: times
 * are unix seconds in rising order. Bounded by DETECTOR_ROUTES_MAX. One thread. */
#ifndef TAILRACE_MODEL_DETECTOR_H
#define TAILRACE_MODEL_DETECTOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "model/detector_route.h"
#include "model/route.h"

#define DETECTOR_ROUTES_MAX (ROUTES_MAX + 1) /* as many as the gateway tells apart, and `other` */
#define DETECTOR_DEPLOY_MAX 128              /* bytes of a version; longer ones are cut */

struct detector;

void detector_params_default(struct detector_params *ret);
void detector_params_configured(struct detector_params *ret, const struct config_alerts *alerts);

/* `on_event` is called from within the calls below; it must not call back into the detector.
 * Owned, freed with detector_free(). */
struct detector *detector_new(const struct detector_params *params,
                              void (*on_event)(void *arg, const struct detector_event *event),
                              void *arg);
void detector_free(struct detector *detector);

/* The route's detector, made where there is none; null where there are DETECTOR_ROUTES_MAX others.
 * Lives as long as the detector. */
struct detector_route *detector_route_at(struct detector *detector, const char *name);

/* One window of one route. All routes' windows in order of time. Returns what it cost. */
unsigned detector_tick(struct detector *detector, struct detector_route *route, int64_t t_s,
                       const struct detector_cell *cells, size_t count);

/* Time has come to t_s, whoever had requests: no_data, resolved, accepted. Cheap unless 5 minutes
 * ended. */
void detector_advance(struct detector *detector, int64_t t_s);

/* A deploy: for 2 h every route known is also tested from this moment on. */
void detector_mark(struct detector *detector, int64_t t_s, const char *version);

/* After a restart: the version that restored twins belong to. */
void detector_name_deploy(struct detector *detector, const char *version);

/* The user accepts the route's new level. */
void detector_accept(struct detector *detector, struct detector_route *route, int64_t t_s);

/* Hours that the wall clock is ahead of the time given to the calls above (detector_clock.h). */
void detector_shift_hours(struct detector *detector, int hours);

size_t detector_count(const struct detector *detector);
struct detector_route *detector_route_by_index(struct detector *detector, size_t index);
const struct detector_params *detector_params(const struct detector *detector);

/* ln(1 / alpha), and R: routes compared with something at the last full hour, at least 1. */
double detector_threshold(const struct detector *detector);
unsigned detector_compared(const struct detector *detector);

/* What the route is compared with at t_s, as detector_route_baseline(). */
double detector_baseline(const struct detector *detector, const struct detector_route *route,
                         int64_t t_s, double ret[DETECTOR_BUCKETS]);

#endif
