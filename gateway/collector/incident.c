/* The life of incidents: begun, told, revised, grouped, ended. */
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/xmem.h"
#include "collector/incident_inside.h"
#include "collector/store_notes.h"

#define REPEAT_S 60
#define ASK_AGAIN_S 15 /* while there are not enough requests to name a cause */

static const int64_t revisions_s[] = {300, 1800};
#define REVISIONS (sizeof(revisions_s) / sizeof(revisions_s[0]))

static const char *const status_names[INCIDENT_STATUSES] = {"firing", "resolved", "accepted",
                                                            "merged"};

const char *
incident_status_name(enum incident_status status)
{
	return status_names[status];
}

enum incident_status
incident_status_of(const char *name)
{
	unsigned status = 0;
	while (status < INCIDENT_STATUSES && strcmp(status_names[status], name) != 0)
		status++;
	return (enum incident_status)status;
}

struct incidents *
incidents_new(struct service *service, const struct incident_sink *sink)
{
	struct incidents *incidents = xcalloc(1, sizeof(*incidents));
	incidents->service = service;
	incidents->sink = *sink;
	return incidents;
}

void
incidents_free(struct incidents *incidents)
{
	if (incidents == NULL)
		return;
	for (size_t i = 0; i < incidents->count; i++)
		incident_free(incidents->list[i]);
	free(incidents);
}

/* --- the table --------------------------------------------------------------------------- */

/* The oldest one that is over goes; where all are going on, the oldest. */
static void
make_room(struct incidents *incidents)
{
	size_t victim = 0;
	if (incidents->count < INCIDENTS_MAX)
		return;
	for (size_t i = 0; i < incidents->count; i++) {
		if (incidents->list[i]->status != INCIDENT_FIRING && !incidents->list[i]->asking) {
			victim = i;
			break;
		}
	}
	incident_free(incidents->list[victim]);
	incidents->count--;
	memmove(&incidents->list[victim], &incidents->list[victim + 1],
	        (incidents->count - victim) * sizeof(incidents->list[0]));
}

static struct incident *
begin(struct incidents *incidents, size_t route, const struct config_rule *rule)
{
	unsigned char bytes[(INCIDENT_ID_SIZE - 1) / 2];
	struct incident *incident = xcalloc(1, sizeof(*incident));
	make_room(incidents);
	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		fatal("no random bytes");
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(incident->id + 2 * i, 3, "%02x", bytes[i]);
	incident->routes[0] = route;
	incident->active[0] = true;
	incident->route_count = 1;
	incident->rule = rule;
	incident->by_rule = rule != NULL;
	incident->payload = json_object();
	incident->history = json_array();
	incidents->list[incidents->count++] = incident;
	return incident;
}

struct incident *
incident_find(const struct incidents *incidents, const char *id)
{
	for (size_t i = 0; i < incidents->count; i++)
		if (strcmp(incidents->list[i]->id, id) == 0)
			return incidents->list[i];
	return NULL;
}

static bool
has_route(const struct incident *incident, size_t route)
{
	for (size_t i = 0; i < incident->route_count; i++)
		if (incident->routes[i] == route && incident->active[i])
			return true;
	return false;
}

/* The newest one of a route by this rule (null: by the detector) that is going on. */
static struct incident *
open_of(const struct incidents *incidents, size_t route, const struct config_rule *rule)
{
	for (size_t i = incidents->count; i > 0; i--) {
		struct incident *incident = incidents->list[i - 1];
		if (incident->status == INCIDENT_FIRING && incident->rule == rule &&
		    incident->by_rule == (rule != NULL) && has_route(incident, route))
			return incident;
	}
	return NULL;
}

/* The newest one of that route alone that ended not long ago. */
static struct incident *
closed_of(const struct incidents *incidents, size_t route, const struct config_rule *rule,
          int64_t t_s)
{
	for (size_t i = incidents->count; i > 0; i--) {
		struct incident *incident = incidents->list[i - 1];
		if (incident->status == INCIDENT_RESOLVED && incident->rule == rule &&
		    incident->by_rule == (rule != NULL) && incident->routes[0] == route &&
		    t_s - incident->ended_s <= INCIDENT_REOPEN_S)
			return incident;
	}
	return NULL;
}

/* --- telling ----------------------------------------------------------------------------- */

static char *const *
receivers_of(const struct incident *incident)
{
	return incident->rule != NULL ? incident->rule->receivers : NULL;
}

void
incident_publish(struct incidents *incidents, struct incident *incident, bool minor)
{
	char now[32];
	incident->revision++;
	incident->repeated_s = watch_now_s(incidents->service->watch);
	incident_facts_head(incidents, incident);
	incident_text(incidents, incident);
	incident_time(incidents, incident->repeated_s, now, sizeof(now));
	json_array_append_new(
	    incident->history,
	    json_pack("{s:s, s:s, s:i, s:s, s:O}", "t", now, "status",
	              incident_status_name(incident->status), "revision", (int)incident->revision,
	              "title", json_string_value(json_object_get(incident->payload, "title")),
	              "text", json_object_get(incident->payload, "text")));
	snprintf(incident->told_top, sizeof(incident->told_top), "%s", incident->top);
	incident_keep(incidents, incident);
	if (incidents->sink.publish != NULL)
		incidents->sink.publish(incidents->sink.arg, incident->payload, minor,
		                        receivers_of(incident));
}

/* --- groups ------------------------------------------------------------------------------ */

/* Whether two incidents of the last minutes have one cause: the same named frame, or the same
 * deploy. */
static bool
one_cause(const struct incident *a, const struct incident *b)
{
	if (a == b || a->by_rule || b->by_rule || b->status != INCIDENT_FIRING ||
	    llabs(a->fired_s - b->fired_s) > INCIDENT_GROUP_S)
		return false;
	return (a->frame[0] != '\0' && strcmp(a->frame, b->frame) == 0) ||
	       (a->deploy[0] != '\0' && strcmp(a->deploy, b->deploy) == 0);
}

static void
merge(struct incidents *incidents, struct incident *into, struct incident *from)
{
	bool told = from->revision > 0;
	for (size_t i = 0; i < from->route_count && into->route_count < INCIDENT_ROUTES_MAX; i++) {
		into->routes[into->route_count] = from->routes[i];
		into->active[into->route_count++] = from->active[i];
	}
	from->status = INCIDENT_MERGED;
	from->ended_s = watch_now_s(incidents->service->watch);
	json_object_set_new(from->payload, "merged_into", json_string(into->id));
	/* What was never told of is not told to be over. */
	if (told)
		incident_publish(incidents, from, false);
	else
		incident_keep(incidents, from);
}

/* Makes one incident of three or more with one cause. Returns the one to tell of. */
static struct incident *
grouped(struct incidents *incidents, struct incident *incident)
{
	struct incident *same[INCIDENTS_MAX], *group = incident;
	size_t count = 0, routes = incident->route_count;
	for (size_t i = 0; i < incidents->count; i++) {
		struct incident *other = incidents->list[i];
		if (!one_cause(incident, other) ||
		    routes + other->route_count > INCIDENT_ROUTES_MAX)
			continue;
		same[count++] = other;
		routes += other->route_count;
		if (other->route_count > group->route_count ||
		    (group == incident && other->fired_s <= group->fired_s))
			group = other;
	}
	if (routes < INCIDENT_GROUP_MIN)
		return incident;
	for (size_t i = 0; i < count; i++)
		if (same[i] != group)
			merge(incidents, group, same[i]);
	if (group != incident)
		merge(incidents, group, incident);
	return group;
}

/* --- what happens ------------------------------------------------------------------------ */

void
incident_answered(struct incidents *incidents, struct incident *incident)
{
	incident->asking = false;
	if (incident->status == INCIDENT_MERGED)
		return;
	bool same = strcmp(incident->top, incident->told_top) == 0;
	bool minor = incident->revision > 0 && same;
	/* The cause was looked for again and is as unknown as before: nobody need hear of that. */
	if (incident->again && incident->status == INCIDENT_FIRING && same)
		return;
	if (incident->status == INCIDENT_FIRING && !minor)
		incident = grouped(incidents, incident);
	incident_publish(incidents, incident, minor);
}

static void
ask(struct incidents *incidents, struct incident *incident, bool again)
{
	incident->again = again;
	incident->asked_s = watch_now_s(incidents->service->watch);
	incident_facts_refresh(incidents, incident);
	incident_ask(incidents, incident);
}

static void
fire(struct incidents *incidents, struct incident *incident, int64_t t_s)
{
	incident->status = INCIDENT_FIRING;
	incident->fired_s = t_s;
	incident->ended_s = 0;
	incident->stage = 0;
	ask(incidents, incident, false);
}

/* One route of it is over; with the last one it ends. */
static void
end_route(struct incidents *incidents, struct incident *incident, size_t route,
          enum incident_status status, int64_t t_s)
{
	bool any = false;
	for (size_t i = 0; i < incident->route_count; i++) {
		if (incident->routes[i] == route)
			incident->active[i] = false;
		any = any || incident->active[i];
	}
	if (any) {
		incident_keep(incidents, incident);
		return;
	}
	/* Its quantiles stay those of before it got better. */
	incident->status = status;
	incident->ended_s = t_s;
	/* Its cause is on the way: then both are told at once. */
	if (!incident->asking)
		incident_publish(incidents, incident, false);
}

static void
detected_firing(struct incidents *incidents, size_t route, const struct detector_event *event)
{
	struct incident *incident = open_of(incidents, route, NULL);
	if (incident != NULL)
		return; /* seen again after a silence */
	if (event->reopened)
		incident = closed_of(incidents, route, NULL, event->t_s);
	if (incident == NULL)
		incident = begin(incidents, route, NULL);
	for (size_t i = 0; i < incident->route_count; i++)
		incident->active[i] = incident->active[i] || incident->routes[i] == route;
	incident->since_s = event->since_s;
	incident->quantile = event->quantile;
	incident_facts_detected(incidents, incident, event);
	fire(incidents, incident, event->t_s);
}

void
incidents_detected(void *arg, size_t route, const struct detector_event *event)
{
	struct incidents *incidents = arg;
	const char *name = event->route->name;
	if (event->improved) {
		log_info("%s got faster, quantile %g, since %lld", name, event->quantile,
		         (long long)event->since_s);
		return;
	}
	log_debug("%s is %s", name, detector_state_name(event->state));
	if (event->state == DETECTOR_FIRING) {
		if (event->threshold_nats > 0)
			detected_firing(incidents, route, event);
		return;
	}
	if (event->state == DETECTOR_NO_DATA || event->state == DETECTOR_PENDING)
		return;
	struct incident *incident = open_of(incidents, route, NULL);
	if (incident != NULL)
		end_route(incidents, incident, route,
		          event->state == DETECTOR_ACCEPTED ? INCIDENT_ACCEPTED : INCIDENT_RESOLVED,
		          event->t_s);
}

void
incidents_ruled(void *arg, size_t route, const struct rule_track *track, enum rule_change change,
                int64_t t_s)
{
	struct incidents *incidents = arg;
	struct incident *incident = open_of(incidents, route, track->rule);
	if (change == RULE_ENDED) {
		if (incident != NULL)
			end_route(incidents, incident, route, INCIDENT_RESOLVED, t_s);
		return;
	}
	if (incident != NULL)
		return;
	incident = closed_of(incidents, route, track->rule, t_s);
	if (incident == NULL) {
		incident = begin(incidents, route, track->rule);
		incident->since_s = track->since_s;
	}
	incident->active[0] = true;
	incident_facts_ruled(incidents, incident, track);
	fire(incidents, incident, t_s);
}

void
incidents_tick(struct incidents *incidents)
{
	int64_t now_s = watch_now_s(incidents->service->watch);
	for (size_t i = 0; i < incidents->count; i++) {
		struct incident *incident = incidents->list[i];
		if (incident->status != INCIDENT_FIRING || incident->asking)
			continue;
		if (incident->stage < REVISIONS &&
		    now_s - incident->fired_s >= revisions_s[incident->stage]) {
			incident->stage++;
			ask(incidents, incident, false);
		} else if (incident->stage == 0 && incident->top[0] == '\0' &&
		           now_s - incident->asked_s >= ASK_AGAIN_S) {
			ask(incidents, incident, true);
		} else if (now_s - incident->repeated_s >= REPEAT_S) {
			incident->repeated_s = now_s;
			if (incidents->sink.repeat != NULL)
				incidents->sink.repeat(incidents->sink.arg, incident->payload,
				                       receivers_of(incident));
		}
	}
}

int
incidents_accept(struct incidents *incidents, const char *id)
{
	struct incident *incident = incident_find(incidents, id);
	if (incident == NULL)
		return -1;
	if (incident->status != INCIDENT_FIRING)
		return -2;
	int64_t now_s = watch_now_s(incidents->service->watch);
	size_t count = incident->route_count;
	for (size_t i = 0; i < count; i++) {
		size_t route = incident->routes[i];
		bool active = incident->active[i];
		if (active && !incident->by_rule)
			watch_accept(incidents->service->watch, route); /* ends by the event */
		if (active && incident->status == INCIDENT_FIRING && incident->active[i])
			end_route(incidents, incident, route, INCIDENT_ACCEPTED, now_s);
	}
	return 0;
}

/* --- questions --------------------------------------------------------------------------- */

unsigned
incidents_active(const struct incidents *incidents, size_t route)
{
	unsigned active = 0;
	for (size_t i = 0; i < incidents->count; i++)
		active += incidents->list[i]->status == INCIDENT_FIRING &&
		          has_route(incidents->list[i], route);
	return active;
}

static bool
names_route(const struct incidents *incidents, const struct incident *incident, const char *route)
{
	for (size_t i = 0; i < incident->route_count; i++)
		if (strcmp(routes_name(incidents->service->routes, incident->routes[i]), route) ==
		    0)
			return true;
	return false;
}

json_t *
incidents_list(const struct incidents *incidents, enum incident_status status, const char *route,
               size_t limit)
{
	json_t *array = json_array();
	for (size_t i = incidents->count; i > 0 && json_array_size(array) < limit; i--) {
		const struct incident *incident = incidents->list[i - 1];
		if (incident->revision == 0 ||
		    (status != INCIDENT_STATUSES && incident->status != status) ||
		    (route != NULL && !names_route(incidents, incident, route)))
			continue;
		json_array_append(array, incident->payload);
	}
	return json_pack("{s:o}", "incidents", array);
}

json_t *
incidents_one(const struct incidents *incidents, const char *id)
{
	const struct incident *incident = incident_find(incidents, id);
	if (incident == NULL || incident->revision == 0)
		return NULL;
	json_t *object = json_copy(incident->payload);
	json_object_set(object, "history", incident->history);
	if (incident->distributions != NULL)
		json_object_set(object, "distributions", incident->distributions);
	return object;
}

void
incidents_of_route(const struct incidents *incidents, size_t route, int64_t from_s, int64_t to_s,
                   json_t *array)
{
	const struct watch *watch = incidents->service->watch;
	for (size_t i = 0; i < incidents->count; i++) {
		const struct incident *incident = incidents->list[i];
		int64_t since_s = watch_wall_s(watch, incident->since_s);
		int64_t until_s =
		    incident->ended_s > 0 ? watch_wall_s(watch, incident->ended_s) : 0;
		bool touches = since_s < to_s && (until_s == 0 || until_s >= from_s);
		bool about = false;
		for (size_t r = 0; r < incident->route_count; r++)
			about = about || incident->routes[r] == route;
		if (!touches || !about || incident->revision == 0)
			continue;
		json_array_append_new(
		    array, json_pack("{s:s, s:I, s:o, s:s}", "id", incident->id, "since",
		                     (json_int_t)since_s, "until",
		                     until_s > 0 ? json_integer((json_int_t)until_s) : json_null(),
		                     "status", incident_status_name(incident->status)));
	}
}

/* --- back from the store ----------------------------------------------------------------- */

static void
on_stored(void *arg, const struct store_note *note)
{
	struct incidents *incidents = arg;
	struct incident *incident = incident_restored(incidents, note->bytes, note->size);
	if (incident == NULL) {
		log_warn("incident %s: its stored form cannot be used", note->key);
		return;
	}
	make_room(incidents);
	incidents->list[incidents->count++] = incident;
}

/* Whether whoever began it goes on with it: the detector's state may have been lost, the rule may
 * be gone. Then nobody would end it. */
static bool
goes_on(const struct incidents *incidents, const struct incident *incident, size_t route)
{
	struct watch *watch = incidents->service->watch;
	const struct detector_route *detector = watch_route(watch, route);
	if (incident->by_rule)
		return incident->rule != NULL && watch_resume_rule(watch, route, incident->rule);
	return detector != NULL && detector->state == DETECTOR_FIRING;
}

void
incidents_load(struct incidents *incidents, const char *path)
{
	int64_t now_s = watch_now_s(incidents->service->watch);
	store_notes_load(path, STORE_NOTE_INCIDENT, on_stored, incidents);
	for (size_t i = 0; i < incidents->count; i++) {
		struct incident *incident = incidents->list[i];
		for (size_t r = 0; r < incident->route_count; r++)
			if (incident->status == INCIDENT_FIRING && incident->active[r] &&
			    !goes_on(incidents, incident, incident->routes[r]))
				end_route(incidents, incident, incident->routes[r],
				          INCIDENT_RESOLVED, now_s);
	}
}
