/* Incidents: list, one, accept. Deploys: list, mark. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/api_incidents.h"
#include "collector/incident.h"
#include "collector/reply.h"
#include "collector/watch.h"

#define LIMIT_DEFAULT 50
#define DEPLOY_BODY_MAX 4096
#define DEPLOY_FUTURE_S 60
#define DEPLOY_PAST_S (31 * 86400)
#define ACCEPT "/accept"

static void
reply_object(struct evhttp_request *request, int status, json_t *object)
{
	struct text body = {0};
	char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
	if (text != NULL)
		text_puts(&body, text);
	else
		body.failed = true;
	free(text);
	json_decref(object);
	reply_json(request, status, &body);
	text_free(&body);
}

/* Returns 0, or -1 where the query string cannot be read (answered). */
static int
parameters(struct evhttp_request *request, struct evkeyvalq *ret)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	const char *query = uri != NULL ? evhttp_uri_get_query(uri) : NULL;
	TAILQ_INIT(ret);
	if (query == NULL || query[0] == '\0' || evhttp_parse_query_str(query, ret) == 0)
		return 0;
	reply_error(request, 400, "bad_query", "the query string cannot be read", NULL);
	return -1;
}

static bool
is_get(struct evhttp_request *request)
{
	return evhttp_request_get_command(request) != EVHTTP_REQ_POST;
}

static void
reply_method(struct evhttp_request *request, const char *allow)
{
	evhttp_add_header(evhttp_request_get_output_headers(request), "Allow", allow);
	reply_error(request, 405, "method_not_allowed", "see Allow", NULL);
}

/* --- incidents --------------------------------------------------------------------------- */

void
api_incidents(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct evkeyvalq query;
	(void)rest;
	if (parameters(request, &query) != 0)
		return;
	const char *status = evhttp_find_header(&query, "status");
	const char *route = evhttp_find_header(&query, "route");
	const char *limit = evhttp_find_header(&query, "limit");
	enum incident_status wanted =
	    status != NULL ? incident_status_of(status) : INCIDENT_STATUSES;
	char *end = NULL;
	unsigned long most = limit != NULL ? strtoul(limit, &end, 10) : LIMIT_DEFAULT;
	const char *wrong = NULL;
	if (status != NULL && wanted == INCIDENT_STATUSES)
		wrong = "status is firing, resolved, accepted or merged";
	if (limit != NULL &&
	    (*limit < '0' || *limit > '9' || *end != '\0' || most < 1 || most > INCIDENTS_MAX))
		wrong = "limit is a number of 1 to 500";
	if (wrong != NULL)
		reply_error(request, 400, "bad_query", wrong, NULL);
	else
		reply_object(request, 200,
		             incidents_list(service->incidents, wanted,
		                            route != NULL && route[0] != '\0' ? route : NULL,
		                            most));
	evhttp_clear_headers(&query);
}

static void
reply_incident(struct service *service, struct evhttp_request *request, const char *id)
{
	json_t *incident = incidents_one(service->incidents, id);
	if (incident == NULL)
		reply_error(request, 404, "not_found", "no incident of that ID is kept", NULL);
	else
		reply_object(request, 200, incident);
}

void
api_incident(struct service *service, struct evhttp_request *request, const char *rest)
{
	size_t length = strlen(rest), suffix = strlen(ACCEPT);
	bool accept = length > suffix && strcmp(rest + length - suffix, ACCEPT) == 0;
	char id[INCIDENT_ID_SIZE] = "";
	if (accept == is_get(request)) {
		reply_method(request, accept ? "POST" : "GET, HEAD");
		return;
	}
	if (accept)
		length -= suffix;
	if (length == INCIDENT_ID_SIZE - 1)
		memcpy(id, rest, length);
	if (accept && incidents_accept(service->incidents, id) == -2) {
		reply_error(request, 409, "over", "this incident is over already", NULL);
		return;
	}
	reply_incident(service, request, id);
}

/* --- deploys ----------------------------------------------------------------------------- */

/* RFC 3339 ("2026-05-01T14:02:00Z", with a fraction or an offset) as unix time; -1 where it is no
 * such text. */
static int64_t
iso_seconds(const char *text)
{
	struct tm tm = {0};
	int hours, minutes, used = 0;
	const char *p = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (p == NULL)
		return -1;
	if (*p == '.') {
		size_t digits = strspn(p + 1, "0123456789");
		if (digits == 0)
			return -1;
		p += 1 + digits;
	}
	int64_t seconds = (int64_t)timegm(&tm);
	if (strcmp(p, "Z") == 0 || strcmp(p, "z") == 0)
		return seconds;
	if ((*p != '+' && *p != '-') || sscanf(p + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 ||
	    p[1 + used] != '\0' || used != 5)
		return -1;
	return seconds - (*p == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
}

static json_t *
deploy_json(const struct watch *watch, const char *version, int64_t at_s)
{
	char text[40];
	int64_t wall_s = watch_wall_s(watch, at_s);
	clock_format((uint64_t)wall_s * NS_PER_S, text, sizeof(text));
	strcpy(strchr(text, '.'), "Z");
	return json_pack("{s:s, s:s, s:I}", "version", version, "at", text, "t",
	                 (json_int_t)wall_s);
}

/* Returns null, or what is wrong, with the place of it. */
static const char *
read_deploy(json_t *body, int64_t now_s, const char **ret_version, int64_t *ret_wall_s,
            const char **ret_pointer)
{
	const json_t *version = json_object_get(body, "version"), *at = json_object_get(body, "at");
	const char *key;
	json_t *value;
	*ret_pointer = "";
	if (!json_is_object(body))
		return "the body is not a JSON object";
	*ret_pointer = "/version";
	if (!json_is_string(version) || json_string_length(version) == 0 ||
	    json_string_length(version) > WATCH_VERSION_MAX)
		return "version is a text of 1 to 128 bytes (required)";
	for (const char *p = json_string_value(version); *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return "version holds a control character";
	json_object_foreach(body, key, value)
	{
		*ret_pointer = "";
		if (strcmp(key, "version") != 0 && strcmp(key, "at") != 0)
			return "unknown key: allowed are version and at";
	}
	*ret_version = json_string_value(version);
	*ret_wall_s = now_s;
	*ret_pointer = "/at";
	if (at == NULL || json_is_null(at))
		return NULL;
	*ret_wall_s = json_is_string(at) ? iso_seconds(json_string_value(at)) : -1;
	if (*ret_wall_s < 0)
		return "at is a time such as 2026-05-01T14:02:00Z";
	if (*ret_wall_s > now_s + DEPLOY_FUTURE_S || *ret_wall_s < now_s - DEPLOY_PAST_S)
		return "at lies in the future, or more than 31 days ago";
	return NULL;
}

static void
post_deploy(struct service *service, struct evhttp_request *request)
{
	struct evbuffer *input = evhttp_request_get_input_buffer(request);
	size_t length = evbuffer_get_length(input);
	int64_t now_s = (int64_t)(clock_wall_ns() / NS_PER_S), wall_s = now_s;
	const char *version = "", *pointer = "", *wrong;
	json_error_t error;
	if (length > DEPLOY_BODY_MAX) {
		reply_error(request, 413, "too_large", "a deploy is at most 4096 bytes", NULL);
		return;
	}
	const char *bytes = (const char *)evbuffer_pullup(input, -1);
	json_t *body =
	    json_loadb(bytes != NULL ? bytes : "", length, JSON_REJECT_DUPLICATES, &error);
	if (body == NULL)
		wrong = "the body is not JSON";
	else
		wrong = read_deploy(body, now_s, &version, &wall_s, &pointer);
	if (wrong != NULL) {
		reply_error(request, 400, "bad_deploy", wrong, pointer);
	} else {
		/* Detector time differs by what the wall clock was stepped. */
		int64_t at_s = watch_now_s(service->watch) - (now_s - wall_s);
		watch_deploy(service->watch, version, at_s);
		reply_object(request, 201, deploy_json(service->watch, version, at_s));
	}
	json_decref(body);
}

/* Unix seconds; `missing` where the parameter is not there, -1 where it is wrong. */
static int64_t
seconds_of(const char *text, int64_t missing)
{
	char *end;
	if (text == NULL)
		return missing;
	long long value = strtoll(text, &end, 10);
	return *text < '0' || *text > '9' || *end != '\0' || value < 0 ? -1 : value;
}

static void
list_deploys(struct service *service, struct evhttp_request *request)
{
	struct evkeyvalq query;
	size_t count;
	const struct watch_deploy *deploys = watch_deploys(service->watch, &count);
	if (parameters(request, &query) != 0)
		return;
	int64_t from_s = seconds_of(evhttp_find_header(&query, "from"), 0);
	int64_t to_s = seconds_of(evhttp_find_header(&query, "to"), INT64_MAX);
	evhttp_clear_headers(&query);
	if (from_s < 0 || to_s < 0) {
		reply_error(request, 400, "bad_query", "from and to are unix seconds", NULL);
		return;
	}
	json_t *array = json_array();
	for (size_t i = 0; i < count; i++) {
		int64_t wall_s = watch_wall_s(service->watch, deploys[i].at_s);
		if (wall_s >= from_s && wall_s < to_s)
			json_array_append_new(array, deploy_json(service->watch, deploys[i].version,
			                                         deploys[i].at_s));
	}
	reply_object(request, 200, json_pack("{s:o}", "deploys", array));
}

void
api_deploys(struct service *service, struct evhttp_request *request, const char *rest)
{
	(void)rest;
	if (is_get(request))
		list_deploys(service, request);
	else
		post_deploy(service, request);
}
