/* evhttp on the control sockets: access, the table of endpoints, methods. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include "base/log.h"
#include "base/xmem.h"
#include "collector/access.h"
#include "collector/api.h"
#include "collector/api_incidents.h"
#include "collector/control.h"
#include "collector/guard.h"
#include "collector/ingest.h"
#include "collector/metrics.h"
#include "collector/reply.h"
#include "proxy/tls_server.h"

struct listener {
	struct control *control;
	const struct config_control_listener *config; /* borrowed */
	struct access_rule rule;
	struct tls_server *tls; /* owned; null = in clear */
	struct evhttp *http;    /* owned */
};

struct control {
	struct service *service; /* borrowed */
	struct guard *guard;     /* owned */
	struct listener listeners[CONTROL_LISTENERS_MAX];
	size_t count;
};

/* --- endpoints -------------------------------------------------------------------- */

static void
post_profiles(struct service *service, struct evhttp_request *request, const char *rest)
{
	(void)rest;
	ingest_request(service, request);
}

#define GET (EVHTTP_REQ_GET | EVHTTP_REQ_HEAD)
#define ADMIN (1u << CONFIG_ROLE_ADMIN)
#define INGEST (1u << CONFIG_ROLE_INGEST)
#define PROBE (1u << CONFIG_ROLE_PROBE)

static const struct endpoint {
	const char *path; /* a final "/" takes a rest */
	unsigned methods, roles;
	const char *allow;
	void (*handle)(struct service *service, struct evhttp_request *request, const char *rest);
} endpoints[] = {
    {"/v1/profiles", EVHTTP_REQ_POST, ADMIN | INGEST, "POST", post_profiles},
    {"/api/v1/requests", GET, ADMIN, "GET, HEAD", api_requests},
    {"/api/v1/requests/", GET, ADMIN, "GET, HEAD", api_request},
    {"/api/v1/routes", GET, ADMIN, "GET, HEAD", api_routes},
    {"/api/v1/routes/", GET, ADMIN, "GET, HEAD", api_route},
    {"/api/v1/incidents", GET, ADMIN, "GET, HEAD", api_incidents},
    {"/api/v1/incidents/", GET | EVHTTP_REQ_POST, ADMIN, "GET, HEAD, POST", api_incident},
    {"/api/v1/deploys", GET | EVHTTP_REQ_POST, ADMIN, "GET, HEAD, POST", api_deploys},
    {"/healthz", GET, ADMIN | PROBE, "GET, HEAD", api_healthz},
    {"/readyz", GET, ADMIN | PROBE, "GET, HEAD", api_readyz},
    {"/metrics", GET, ADMIN | PROBE, "GET, HEAD", metrics_request},
};

static const struct endpoint *
find(const char *path, const char **ret_rest)
{
	for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++) {
		size_t length = strlen(endpoints[i].path);
		bool prefix = endpoints[i].path[length - 1] == '/';
		if (prefix ? strncmp(path, endpoints[i].path, length) == 0 && path[length] != '\0'
		           : strcmp(path, endpoints[i].path) == 0) {
			*ret_rest = path + length;
			return &endpoints[i];
		}
	}
	return NULL;
}

/* --- access -------------------------------------------------------------------------- */

/* Returns whether the request may go on; else it is answered. */
static bool
admit(struct listener *listener, struct evhttp_request *request, bool posts_profiles)
{
	struct service *service = listener->control->service;
	struct bufferevent *bev =
	    evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
	const char *authorization =
	    evhttp_find_header(evhttp_request_get_input_headers(request), "Authorization");
	switch (access_check(&listener->rule, bufferevent_getfd(bev), authorization)) {
	case ACCESS_GRANTED:
		return true;
	case ACCESS_UNAUTHENTICATED:
		service->counters[SERVICE_BATCH_UNAUTHENTICATED] += posts_profiles;
		evhttp_add_header(evhttp_request_get_output_headers(request), "WWW-Authenticate",
		                  "Bearer");
		reply_error(request, 401, "unauthenticated", "token missing or wrong", NULL);
		return false;
	case ACCESS_FORBIDDEN:
		break;
	}
	service->counters[SERVICE_BATCH_FORBIDDEN] += posts_profiles;
	reply_error(request, 403, "forbidden", "this user is not allowed here", NULL);
	return false;
}

static void
dispatch(struct listener *listener, struct evhttp_request *request, const char *path)
{
	const char *rest = "";
	const struct endpoint *endpoint = find(path, &rest);
	if (!admit(listener, request, endpoint != NULL && endpoint->handle == post_profiles))
		return;
	if (endpoint == NULL || !(endpoint->roles & 1u << listener->config->role)) {
		reply_error(request, 404, "not_found", "this listener has no such endpoint", NULL);
		return;
	}
	if (!(endpoint->methods & evhttp_request_get_command(request))) {
		evhttp_add_header(evhttp_request_get_output_headers(request), "Allow",
		                  endpoint->allow);
		reply_error(request, 405, "method_not_allowed", "see Allow", NULL);
		return;
	}
	endpoint->handle(listener->control->service, request, rest);
}

static void
on_request(struct evhttp_request *request, void *arg)
{
	struct listener *listener = arg;
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
	guard_arrived(listener->control->guard, request);
	listener->control->service->counters[SERVICE_CONTROL_REQUESTS]++;
	dispatch(listener, request, path != NULL ? path : "");
}

/* --- life ------------------------------------------------------------------------------ */

struct control *
control_new(const struct config *config, struct service *service)
{
	struct control *control = xcalloc(1, sizeof(*control));
	char why[512];
	control->service = service;
	control->count = config->control.listener_count;
	if (control->count > CONTROL_LISTENERS_MAX)
		fatal("control: more than %d listeners", CONTROL_LISTENERS_MAX);
	for (size_t i = 0; i < control->count; i++) {
		struct listener *listener = &control->listeners[i];
		listener->control = control;
		listener->config = &config->control.listeners[i];
		if (access_rule_init(&listener->rule, config, listener->config, why, sizeof(why)) !=
		    0)
			fatal("control: %s: %s", listener->config->text, why);
		if (!listener->config->tls.on)
			continue;
		listener->tls =
		    tls_server_open(&listener->config->tls, NULL, listener->config->text);
		if (listener->tls == NULL)
			fatal("control: %s: no TLS, and without it it stays closed",
			      listener->config->text);
	}
	return control;
}

static void
listen_on(struct listener *listener, struct event_base *base, int fd)
{
	listener->http = evhttp_new(base);
	struct evconnlistener *evl = evconnlistener_new(
	    base, NULL, NULL, LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_CLOSE_ON_FREE, 0, fd);
	if (listener->http == NULL || evl == NULL ||
	    evhttp_bind_listener(listener->http, evl) == NULL)
		fatal("control: %s: cannot be served", listener->config->text);
	guard_watch(listener->control->guard, listener->http, evl, listener->tls);
	evhttp_set_max_headers_size(listener->http, CONTROL_HEADERS_MAX);
	evhttp_set_max_body_size(listener->http, CONTROL_BODY_MAX);
	evhttp_set_timeout(listener->http, CONTROL_TIMEOUT_S);
	evhttp_set_allowed_methods(
	    listener->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT |
	                        EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
	evhttp_set_gencb(listener->http, on_request, listener);
}

void
control_start(struct control *control, struct event_base *base, const int *fds, size_t count)
{
	uint64_t *counters = control->service->counters;
	struct guard_counters guarded = {.pauses = &counters[SERVICE_CONTROL_PAUSES],
	                                 .timeouts = &counters[SERVICE_CONTROL_TIMEOUTS],
	                                 .oversized = &counters[SERVICE_BATCH_OVERSIZED]};
	control->guard = guard_new(base, &guarded);
	if (count != control->count)
		fatal("control: %zu sockets for %zu listeners", count, control->count);
	for (size_t i = 0; i < control->count; i++)
		listen_on(&control->listeners[i], base, fds[i]);
}

void
control_tick(struct control *control, uint64_t now_ns)
{
	guard_tick(control->guard, now_ns);
}

void
control_close_listeners(struct control *control)
{
	guard_close_listeners(control->guard);
}

size_t
control_connections(const struct control *control)
{
	return guard_connections(control->guard);
}

void
control_free(struct control *control)
{
	if (control == NULL)
		return;
	for (size_t i = 0; i < control->count; i++) {
		if (control->listeners[i].http != NULL)
			evhttp_free(control->listeners[i].http);
		access_rule_clear(&control->listeners[i].rule);
		tls_server_close(control->listeners[i].tls);
	}
	guard_free(control->guard);
	free(control);
}
