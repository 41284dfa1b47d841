/* Incidents as the store keeps them: the payload, what was told, and what only we need. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "collector/incident_inside.h"
#include "collector/store.h"
#include "collector/store_notes.h"

void
incident_free(struct incident *incident)
{
	if (incident == NULL)
		return;
	json_decref(incident->payload);
	json_decref(incident->history);
	json_decref(incident->distributions);
	free(incident);
}

void
incident_keep(struct incidents *incidents, const struct incident *incident)
{
	const struct routes *names = incidents->service->routes;
	json_t *routes = json_array();
	for (size_t i = 0; i < incident->route_count; i++)
		json_array_append_new(routes,
		                      json_pack("[s, b]", routes_name(names, incident->routes[i]),
		                                (int)incident->active[i]));
	json_t *object = json_pack(
	    "{s:s, s:s, s:b, s:s?, s:o, s:I, s:I, s:I, s:f, s:i, s:i, s:s, s:s, s:O, s:O}", "id",
	    incident->id, "status", incident_status_name(incident->status), "by_rule",
	    (int)incident->by_rule, "rule", incident->rule != NULL ? incident->rule->name : NULL,
	    "routes", routes, "since_s", (json_int_t)incident->since_s, "fired_s",
	    (json_int_t)incident->fired_s, "ended_s", (json_int_t)incident->ended_s, "quantile",
	    incident->quantile, "revision", (int)incident->revision, "stage", (int)incident->stage,
	    "frame", incident->frame, "deploy", incident->deploy, "payload", incident->payload,
	    "history", incident->history);
	json_object_set_new(object, "top", json_string(incident->top));
	json_object_set_new(object, "saturation", json_boolean(incident->saturation));
	if (incident->distributions != NULL)
		json_object_set(object, "distributions", incident->distributions);
	struct store_note note = {.kind = STORE_NOTE_INCIDENT,
	                          .key = xstrdup(incident->id),
	                          .number = incident->since_s,
	                          .bytes = json_dumps(object, JSON_COMPACT)};
	json_decref(object);
	if (note.bytes == NULL)
		fatal("no memory for an incident");
	note.size = strlen(note.bytes);
	store_put_note(incidents->service->store, &note);
}

/* --- back -------------------------------------------------------------------------------- */

static const struct config_rule *
rule_named(const struct config *config, const char *name)
{
	for (size_t i = 0; name != NULL && i < config->alerts.rule_count; i++)
		if (strcmp(config->alerts.rules[i].name, name) == 0)
			return &config->alerts.rules[i];
	return NULL;
}

static void
restore_routes(struct incidents *incidents, struct incident *incident, const json_t *routes)
{
	size_t i;
	json_t *pair;
	json_array_foreach(routes, i, pair)
	{
		const char *name = json_string_value(json_array_get(pair, 0));
		if (name == NULL || incident->route_count == INCIDENT_ROUTES_MAX)
			continue;
		incident->routes[incident->route_count] =
		    routes_index(incidents->service->routes, name);
		incident->active[incident->route_count++] = json_is_true(json_array_get(pair, 1));
	}
}

static const char *
text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text != NULL ? text : "";
}

static int64_t
number_of(const json_t *object, const char *key)
{
	return (int64_t)json_integer_value(json_object_get(object, key));
}

static struct incident *
restored(struct incidents *incidents, const json_t *object)
{
	struct incident *incident = xcalloc(1, sizeof(*incident));
	snprintf(incident->id, sizeof(incident->id), "%s", text_of(object, "id"));
	incident->status = incident_status_of(text_of(object, "status"));
	incident->by_rule = json_is_true(json_object_get(object, "by_rule"));
	incident->rule = rule_named(incidents->service->config,
	                            json_string_value(json_object_get(object, "rule")));
	restore_routes(incidents, incident, json_object_get(object, "routes"));
	incident->since_s = number_of(object, "since_s");
	incident->fired_s = number_of(object, "fired_s");
	incident->ended_s = number_of(object, "ended_s");
	incident->quantile = json_number_value(json_object_get(object, "quantile"));
	incident->revision = (unsigned)number_of(object, "revision");
	incident->stage = (unsigned)number_of(object, "stage");
	snprintf(incident->frame, sizeof(incident->frame), "%s", text_of(object, "frame"));
	snprintf(incident->top, sizeof(incident->top), "%s", text_of(object, "top"));
	snprintf(incident->told_top, sizeof(incident->told_top), "%s", incident->top);
	incident->saturation = json_is_true(json_object_get(object, "saturation"));
	snprintf(incident->deploy, sizeof(incident->deploy), "%s", text_of(object, "deploy"));
	incident->payload = json_incref(json_object_get(object, "payload"));
	incident->history = json_incref(json_object_get(object, "history"));
	incident->distributions = json_incref(json_object_get(object, "distributions"));
	if (strlen(incident->id) == INCIDENT_ID_SIZE - 1 && incident->route_count > 0 &&
	    incident->status != INCIDENT_STATUSES && json_is_object(incident->payload) &&
	    json_is_array(incident->history))
		return incident;
	incident_free(incident);
	return NULL;
}

struct incident *
incident_restored(struct incidents *incidents, const char *bytes, size_t size)
{
	json_t *object = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, NULL);
	struct incident *incident = json_is_object(object) ? restored(incidents, object) : NULL;
	json_decref(object);
	return incident;
}
