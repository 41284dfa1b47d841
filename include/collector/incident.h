/* Incidents: from what the detector or a rule says to a text that names the cause, its revisions
 * after 5 and 30 minutes, groups of routes with one cause, the end. Bounded: the newest
 * INCIDENTS_MAX are in memory, and as many in the store. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_INCIDENT_H
#define TAILRACE_COLLECTOR_INCIDENT_H

#include <jansson.h>
#include <stdbool.h>
#include "collector/service.h"
#include "collector/watch.h"

#define INCIDENTS_MAX 500
#define INCIDENT_ROUTES_MAX 64 /* of one group; more routes get incidents of their own */
#define INCIDENT_ID_SIZE 17    /* 16 hex digits */
#define INCIDENT_GROUP_MIN 3   /* routes with one cause within ... */
#define INCIDENT_GROUP_S 300
#define INCIDENT_REOPEN_S DETECTOR_REOPEN_S

enum incident_status {
	INCIDENT_FIRING,
	INCIDENT_RESOLVED,
	INCIDENT_ACCEPTED,
	INCIDENT_MERGED, /* is part of a group's incident now */
	INCIDENT_STATUSES
};
const char *incident_status_name(enum incident_status status);
/* The status of that name, or INCIDENT_STATUSES. */
enum incident_status incident_status_of(const char *name);

struct incidents;

/* What is to be told to receivers. `payload` is borrowed. `minor`: a revision that names no other
 * cause. `receivers`: null-terminated names; null = all. */
struct incident_sink {
	void *arg;
	void (*publish)(void *arg, const json_t *payload, bool minor, char *const *receivers);
	/* Alertmanager forgets what is not repeated. */
	void (*repeat)(void *arg, const json_t *payload, char *const *receivers);
};

/* Borrows the service. Owned. */
struct incidents *incidents_new(struct service *service, const struct incident_sink *sink);
void incidents_free(struct incidents *incidents); /* null-safe */

/* After watch_load(): what the store's file holds, and what of it is still going on. */
void incidents_load(struct incidents *incidents, const char *path);

/* The watch's events; `arg` is the struct incidents. */
void incidents_detected(void *arg, size_t route, const struct detector_event *event);
void incidents_ruled(void *arg, size_t route, const struct rule_track *track,
                     enum rule_change change, int64_t t_s);

/* About once a second: revisions that are due, repetitions. */
void incidents_tick(struct incidents *incidents);

/* The API's objects; new references. Null where there is none. `route` and `status` may be null and
 * INCIDENT_STATUSES. */
json_t *incidents_list(const struct incidents *incidents, enum incident_status status,
                       const char *route, size_t limit);
json_t *incidents_one(const struct incidents *incidents, const char *id);

/* The user says the new level is right. Returns 0, -1 where there is no such incident, -2 where it
 * is over. */
int incidents_accept(struct incidents *incidents, const char *id);

/* Incidents of a route that are going on. */
unsigned incidents_active(const struct incidents *incidents, size_t route);

/* Adds {id, since, until, status} of each incident of the route that touches [from_s, to_s) (unix
 * time) to the array. */
void incidents_of_route(const struct incidents *incidents, size_t route, int64_t from_s,
                        int64_t to_s, json_t *array);

#endif
