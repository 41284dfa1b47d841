/* evhttp on the control sockets: access, the table of endpoints, methods. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
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
#include "collector/deep_orders.h"
#include "collector/guard.h"
#include "collector/ingest.h"
#include "collector/live.h"
#include "collector/login.h"
#include "collector/metrics.h"
#include "collector/pages.h"
#include "collector/reply.h"
#include "collector/status.h"
#include "proxy/tls_server.h"

struct listener {
	struct control *control;
	char *text; /* owned; its address as written */
	enum config_role role;
	struct access_rule rule;
	struct guard_entrance entrance;    /* its tls is owned */
	struct evhttp *http;               /* owned */
	struct evhttp_bound_socket *bound; /* null = accepts no more (a reload took it away) */
};

struct control {
	struct service *service; /* borrowed */
	struct guard *guard;     /* owned */
	struct login *login;     /* owned */
	struct event_base *base;
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
    {"/api/v1/deep", GET | EVHTTP_REQ_POST, ADMIN, "GET, HEAD, POST", deep_request},
    {"/api/v1/live", EVHTTP_REQ_GET, ADMIN, "GET", live_request},
    {"/api/v1/status", GET, ADMIN, "GET, HEAD", status_request},
    {"/api/v1/config", GET, ADMIN, "GET, HEAD", status_config_request},
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

static bool
has_tls(const struct listener *listener)
{
	return listener->entrance.tls != NULL;
}

static const char *
authorization_of(struct evhttp_request *request)
{
	return evhttp_find_header(evhttp_request_get_input_headers(request), "Authorization");
}

static enum access_verdict
check(const struct listener *listener, struct evhttp_request *request)
{
	struct bufferevent *bev =
	    evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
	return access_check(&listener->rule, bufferevent_getfd(bev), authorization_of(request));
}

static void
forbid(struct evhttp_request *request)
{
	reply_error(request, 403, "forbidden", "this user is not allowed here", NULL);
}

/* Returns whether the request may go on; else it is answered. */
static bool
admit(struct listener *listener, struct evhttp_request *request, bool posts_profiles)
{
	struct service *service = listener->control->service;
	struct login *login = listener->control->login;
	const struct access_rule *rule = &listener->rule;
	const char *authorization = authorization_of(request);
	const char *bearer = rule->token != NULL ? access_bearer(authorization) : NULL;
	enum access_verdict verdict = check(listener, request);
	bool by_cookie = verdict == ACCESS_UNAUTHENTICATED && authorization == NULL &&
	                 login_by_cookie(login, rule, has_tls(listener), request);
	if (verdict == ACCESS_FORBIDDEN) {
		service->counters[SERVICE_BATCH_FORBIDDEN] += posts_profiles;
		forbid(request);
		return false;
	}
	if (bearer != NULL ? login_refuses_bearer(login, rule, bearer, request)
	                   : verdict == ACCESS_UNAUTHENTICATED && !by_cookie) {
		service->counters[SERVICE_BATCH_UNAUTHENTICATED] += posts_profiles;
		if (bearer == NULL)
			login_demand(request);
		return false;
	}
	return !login_refuses(login, rule, service->config, request, by_cookie);
}

/* Of a request that is answered for long: whether it would still be let in. */
static bool
still_admitted(void *arg, struct evhttp_request *request)
{
	struct control *control = arg;
	const struct evhttp *http =
	    evhttp_connection_get_server(evhttp_request_get_connection(request));
	struct listener *listener = control->listeners;
	while (listener->http != http)
		listener++;
	if (listener->role != CONFIG_ROLE_ADMIN)
		return false;
	enum access_verdict verdict = check(listener, request);
	return verdict == ACCESS_GRANTED ||
	       (verdict == ACCESS_UNAUTHENTICATED && authorization_of(request) == NULL &&
	        login_lives(control->login, &listener->rule, has_tls(listener), request));
}

/* Open to who has no token yet, but not to peers that may not even ask. */
static void
answer_login(struct listener *listener, struct evhttp_request *request, const char *path)
{
	struct login *login = listener->control->login;
	const struct config *config = listener->control->service->config;
	if (check(listener, request) == ACCESS_FORBIDDEN)
		forbid(request);
	else if (!login_refuses(login, &listener->rule, config, request, false))
		login_request(login, &listener->rule, has_tls(listener), request, path);
}

static void
dispatch(struct listener *listener, struct evhttp_request *request, const char *path)
{
	const char *rest = "";
	const struct endpoint *endpoint = find(path, &rest);
	/* The page itself is no secret, and has to come before its user can log in. */
	if (listener->role == CONFIG_ROLE_ADMIN && pages_have(path) &&
	    (evhttp_request_get_command(request) & (GET))) {
		pages_reply(request, path);
		return;
	}
	if (listener->role == CONFIG_ROLE_ADMIN && login_is_path(path)) {
		answer_login(listener, request, path);
		return;
	}
	if (!admit(listener, request, endpoint != NULL && endpoint->handle == post_profiles))
		return;
	if (endpoint == NULL || !(endpoint->roles & 1u << listener->role)) {
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

/* Fills a free place. Returns null, with nothing taken, where the rule cannot be made. */
static struct listener *
add_listener(struct control *control, const struct config *config, size_t index, char *why,
             size_t why_size)
{
	const struct config_control_listener *wanted = &config->control.listeners[index];
	struct listener *listener = &control->listeners[control->count];
	if (control->count == CONTROL_LISTENERS_MAX) {
		snprintf(why, why_size, "more than %d control listeners since the start",
		         CONTROL_LISTENERS_MAX);
		return NULL;
	}
	*listener = (struct listener){.control = control};
	if (access_rule_init(&listener->rule, config, wanted, why, why_size) != 0)
		return NULL;
	if (wanted->tls.on)
		listener->entrance.tls = tls_server_open(&wanted->tls, NULL, wanted->text);
	if (wanted->tls.on && listener->entrance.tls == NULL) {
		snprintf(why, why_size, "no TLS, and without it it stays closed");
		access_rule_clear(&listener->rule);
		return NULL;
	}
	listener->text = xstrdup(wanted->text);
	listener->role = wanted->role;
	control->count++;
	return listener;
}

struct control *
control_new(const struct config *config, struct service *service)
{
	struct control *control = xcalloc(1, sizeof(*control));
	char why[512];
	control->service = service;
	for (size_t i = 0; i < config->control.listener_count; i++)
		if (add_listener(control, config, i, why, sizeof(why)) == NULL)
			fatal("control: %s: %s", config->control.listeners[i].text, why);
	return control;
}

static void
listen_on(struct listener *listener, int fd)
{
	struct event_base *base = listener->control->base;
	listener->http = evhttp_new(base);
	struct evconnlistener *evl = evconnlistener_new(
	    base, NULL, NULL, LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_CLOSE_ON_FREE, 0, fd);
	if (listener->http != NULL && evl != NULL)
		listener->bound = evhttp_bind_listener(listener->http, evl);
	if (listener->bound == NULL)
		fatal("control: %s: cannot be served", listener->text);
	guard_watch(listener->control->guard, listener->http, evl, &listener->entrance);
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
	struct login_counters logins = {
	    .ok = &counters[SERVICE_LOGIN_OK],
	    .foreign = &counters[SERVICE_CONTROL_FOREIGN],
	    .wrong = {&counters[SERVICE_LOGIN_WRONG], &counters[SERVICE_BEARER_WRONG]},
	    .limited = {&counters[SERVICE_LOGIN_LIMITED], &counters[SERVICE_BEARER_LIMITED]}};
	control->guard = guard_new(base, &guarded);
	control->login = login_new(&logins);
	live_watch(control->service->live, still_admitted, control);
	control->base = base;
	if (count != control->count)
		fatal("control: %zu sockets for %zu listeners", count, control->count);
	for (size_t i = 0; i < control->count; i++)
		listen_on(&control->listeners[i], fds[i]);
}

/* Its open connections are answered on; the rest of it goes with the process. */
static void
retire(struct listener *listener)
{
	log_info("control: %s: accepts no more", listener->text);
	guard_unwatch(listener->control->guard, evhttp_bound_socket_get_listener(listener->bound));
	evhttp_del_accept_socket(listener->http, listener->bound);
	listener->bound = NULL;
}

static struct listener *
serving(struct control *control, const char *text)
{
	for (size_t i = 0; i < control->count; i++)
		if (control->listeners[i].bound != NULL &&
		    strcmp(control->listeners[i].text, text) == 0)
			return &control->listeners[i];
	return NULL;
}

/* Certificates are read anew, be it with this process's rights. -1 where they cannot be used. */
static int
renew_tls(struct listener *listener, const struct config_control_listener *wanted)
{
	struct tls_server *fresh = NULL;
	if (wanted->tls.on)
		fresh = tls_server_open(&wanted->tls, NULL, wanted->text);
	if (wanted->tls.on && fresh == NULL)
		return -1;
	tls_server_close(listener->entrance.tls);
	listener->entrance.tls = fresh;
	return 0;
}

static void
renew(struct listener *listener, const struct config *config,
      const struct config_control_listener *wanted)
{
	struct access_rule rule = {0};
	char why[512];
	if (renew_tls(listener, wanted) != 0) {
		log_error("control: %s: its old certificates and rule stay", wanted->text);
		return;
	}
	if (access_rule_init(&rule, config, wanted, why, sizeof(why)) != 0) {
		log_error("control: %s: %s; its old rule stays", wanted->text, why);
		return;
	}
	access_rule_clear(&listener->rule);
	listener->rule = rule;
	listener->role = wanted->role;
}

void
control_reconfigure(struct control *control, const struct config *config, const int *fds,
                    size_t count)
{
	char why[512];
	for (size_t i = 0; i < control->count; i++) {
		struct listener *listener = &control->listeners[i];
		bool wanted = false;
		for (size_t j = 0; j < config->control.listener_count; j++)
			wanted |= strcmp(config->control.listeners[j].text, listener->text) == 0;
		if (listener->bound != NULL && !wanted)
			retire(listener);
	}
	for (size_t i = 0; i < count && i < config->control.listener_count; i++) {
		const struct config_control_listener *wanted = &config->control.listeners[i];
		struct listener *listener = serving(control, wanted->text);
		if (listener != NULL) {
			renew(listener, config, wanted);
			close(fds[i]);
			continue;
		}
		listener = add_listener(control, config, i, why, sizeof(why));
		if (listener != NULL) {
			listen_on(listener, fds[i]);
			continue;
		}
		log_error("control: %s: %s; not served", wanted->text, why);
		close(fds[i]);
	}
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
		tls_server_close(control->listeners[i].entrance.tls);
		free(control->listeners[i].text);
	}
	guard_free(control->guard);
	login_free(control->login);
	free(control);
}
