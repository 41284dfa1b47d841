/* What the incident modules share: nobody else's. */
#ifndef TAILRACE_COLLECTOR_INCIDENT_INSIDE_H
#define TAILRACE_COLLECTOR_INCIDENT_INSIDE_H

#include "collector/incident.h"

#define INCIDENT_FRAME_MAX 512

struct incident {
	char id[INCIDENT_ID_SIZE];
	enum incident_status status;
	const struct config_rule *rule; /* borrowed; null = the detector, or a rule that is gone */
	bool by_rule;
	size_t routes[INCIDENT_ROUTES_MAX]; /* the first is the one that fired first */
	bool active[INCIDENT_ROUTES_MAX];
	size_t route_count;
	int64_t since_s, fired_s, ended_s; /* detector time */
	int64_t repeated_s;
	double quantile;   /* that spoke loudest; 0 = none */
	unsigned revision; /* of the payload; 0 = not published yet */
	unsigned stage;    /* revisions done: 0 none, 1 after 5 min, 2 after 30 min */
	bool asking;       /* the cause is being computed */
	bool again;        /* just because it could not be named the last time */
	int64_t asked_s;
	bool saturation;
	char top[INCIDENT_FRAME_MAX + 1];      /* what adds most to the growth; "" = not known */
	char told_top[INCIDENT_FRAME_MAX + 1]; /* as last published */
	char frame[INCIDENT_FRAME_MAX + 1];    /* the same where it has a frame; "" = it has none */
	char deploy[WATCH_VERSION_MAX + 1];    /* that overlaps; "" = none */
	json_t *payload;                       /* owned, like those below */
	json_t *history;                       /* what was told, oldest first */
	json_t *distributions;                 /* before, after */
};

struct incidents {
	struct service *service;
	struct incident_sink sink;
	struct incident *list[INCIDENTS_MAX]; /* owned; oldest first */
	size_t count;
	uint64_t asks; /* number of the newest question to the history */
};

/* --- incident.c */
struct incident *incident_find(const struct incidents *incidents, const char *id);
/* The cause has been computed, or cannot be: tell it. */
void incident_answered(struct incidents *incidents, struct incident *incident);
void incident_publish(struct incidents *incidents, struct incident *incident, bool minor);

/* --- incident_facts.c: what the payload says beside the cause */
void incident_facts_detected(struct incidents *incidents, struct incident *incident,
                             const struct detector_event *event);
void incident_facts_ruled(struct incidents *incidents, struct incident *incident,
                          const struct rule_track *track);
/* Quantiles, requests and distributions as they are now. */
void incident_facts_refresh(struct incidents *incidents, struct incident *incident);
/* Times, status, routes. */
void incident_facts_head(struct incidents *incidents, struct incident *incident);
/* "2026-05-01T14:02:00Z" of detector time; `size` >= 21. */
void incident_time(const struct incidents *incidents, int64_t t_s, char *buf, size_t size);

/* --- incident_cause.c: asks the history, and puts what it answers into the payload */
void incident_ask(struct incidents *incidents, struct incident *incident);

/* --- incident_text.c: title and text from the rest of the payload */
void incident_text(struct incidents *incidents, struct incident *incident);

/* --- incident_keep.c */
void incident_keep(struct incidents *incidents, const struct incident *incident);
/* From the stored form; null where that cannot be used. Owned. */
struct incident *incident_restored(struct incidents *incidents, const char *bytes, size_t size);
void incident_free(struct incident *incident); /* null-safe */

#endif
