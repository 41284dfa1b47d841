/* POST /login, POST /logout, cookies, and the checks against forged requests. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <openssl/crypto.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/log_limit.h"
#include "base/xmem.h"
#include "collector/login.h"
#include "collector/reply.h"
#include "collector/sessions.h"

#define HOST_MAX 256

struct login {
	struct sessions *sessions; /* owned */
	struct login_counters counters;
	struct log_limit refusals;
	/* A browser sends a host's cookies to all of its ports: the name keeps gateways apart. */
	char suffix[9];
};

struct login *
login_new(const struct login_counters *counters)
{
	struct login *login = xcalloc(1, sizeof(*login));
	uint32_t random;
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		fatal("getrandom: %s", strerror(errno));
	snprintf(login->suffix, sizeof(login->suffix), "%08x", random);
	login->sessions = sessions_new();
	login->counters = *counters;
	return login;
}

void
login_free(struct login *login)
{
	if (login == NULL)
		return;
	sessions_free(login->sessions);
	free(login);
}

bool
login_is_path(const char *path)
{
	return strcmp(path, "/login") == 0 || strcmp(path, "/logout") == 0;
}

static const char *
header(struct evhttp_request *request, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(request), name);
}

static void
set_header(struct evhttp_request *request, const char *name, const char *value)
{
	evhttp_add_header(evhttp_request_get_output_headers(request), name, value);
}

/* --- cookies -------------------------------------------------------------------------------- */

/* RFC 6265bis 4.1.3.2: "__Host-" is taken by browsers over TLS alone, for this host alone. */
static void
cookie_name(const struct login *login, bool tls, char *buf, size_t size)
{
	snprintf(buf, size, "%stailrace_%s", tls ? "__Host-" : "", login->suffix);
}

/* The session's ID of a Cookie header; false where there is none. */
static bool
cookie_id(const struct login *login, bool tls, struct evhttp_request *request,
          char ret[SESSION_ID_SIZE])
{
	char name[64];
	const char *at = header(request, "Cookie");
	cookie_name(login, tls, name, sizeof(name));
	size_t length = strlen(name);
	for (; at != NULL; at = strchr(at, ';')) {
		at += strspn(at, "; \t");
		if (strncmp(at, name, length) != 0 || at[length] != '=')
			continue;
		at += length + 1;
		if (strcspn(at, "; \t") != SESSION_ID_SIZE - 1)
			continue;
		memcpy(ret, at, SESSION_ID_SIZE - 1);
		ret[SESSION_ID_SIZE - 1] = '\0';
		return true;
	}
	return false;
}

static void
set_cookie(const struct login *login, bool tls, const char *id, int life_s,
           struct evhttp_request *request)
{
	char name[64], value[256];
	cookie_name(login, tls, name, sizeof(name));
	snprintf(value, sizeof(value), "%s=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Strict%s",
	         name, id, life_s, tls ? "; Secure" : "");
	set_header(request, "Set-Cookie", value);
}

bool
login_by_cookie(struct login *login, const struct access_rule *rule, bool tls,
                struct evhttp_request *request)
{
	char id[SESSION_ID_SIZE];
	uint8_t token[ACCESS_DIGEST_SIZE];
	if (rule->token == NULL || !cookie_id(login, tls, request, id))
		return false;
	access_digest(rule->token, token);
	return sessions_use(login->sessions, id, token, clock_now_ns(), NULL);
}

bool
login_lives(const struct login *login, const struct access_rule *rule, bool tls,
            struct evhttp_request *request)
{
	char id[SESSION_ID_SIZE];
	uint8_t token[ACCESS_DIGEST_SIZE];
	if (rule->token == NULL || !cookie_id(login, tls, request, id))
		return false;
	access_digest(rule->token, token);
	return sessions_lives(login->sessions, id, token, clock_now_ns());
}

/* --- forged requests ------------------------------------------------------------------------- */

static bool
changes_state(struct evhttp_request *request)
{
	return !(evhttp_request_get_command(request) & (EVHTTP_REQ_GET | EVHTTP_REQ_HEAD));
}

/* Whether Origin ("https://host:port") names the host that was asked. */
static bool
same_host(const char *origin, const char *host)
{
	const char *named = strstr(origin, "://");
	return named != NULL && host != NULL && strcasecmp(named + 3, host) == 0;
}

/* Browsers say where a request comes from (Fetch Metadata), or at least its origin (RFC 6454). */
static bool
is_cross_site(struct evhttp_request *request)
{
	const char *site = header(request, "Sec-Fetch-Site"), *origin = header(request, "Origin");
	if (site != NULL && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)
		return true;
	return origin != NULL && !same_host(origin, header(request, "Host"));
}

/* What a form of another site cannot send without asking first. */
static bool
says_ours(struct evhttp_request *request)
{
	static const char json[] = "application/json";
	const char *type = header(request, "Content-Type");
	return header(request, "X-Tailrace-Page") != NULL ||
	       (type != NULL && strncasecmp(type, json, sizeof(json) - 1) == 0);
}

/* The host of "name:port" or "[v6]:port", without brackets. */
static void
host_only(const char *text, char *buf, size_t size)
{
	size_t length = strcspn(text, ":/?#");
	if (text[0] == '[') {
		text++;
		length = strcspn(text, "]");
	}
	snprintf(buf, size, "%.*s", length < HOST_MAX ? (int)length : HOST_MAX, text);
}

/* Names that a stranger cannot make lead here (DNS rebinding): addresses, names without a dot,
 * localhost, and the one people were told. */
static bool
is_our_name(const struct config *config, const char *text)
{
	char host[HOST_MAX + 1], ours[HOST_MAX + 1];
	struct in6_addr address;
	const char *url = config->alerts.dashboard_url;
	host_only(text, host, sizeof(host));
	const char *dot = strrchr(host, '.');
	if (dot == NULL || strcasecmp(dot, ".localhost") == 0 ||
	    inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1)
		return true;
	if (url == NULL || strstr(url, "://") == NULL)
		return false;
	host_only(strstr(url, "://") + 3, ours, sizeof(ours));
	return strcasecmp(host, ours) == 0;
}

static bool
refuse(struct login *login, struct evhttp_request *request, const char *code, const char *message)
{
	++*login->counters.foreign;
	reply_error(request, 403, code, message, NULL);
	return true;
}

bool
login_refuses(struct login *login, const struct access_rule *rule, const struct config *config,
              struct evhttp_request *request, bool by_cookie)
{
	const char *host = header(request, "Host");
	/* Where no token is asked for, the name is all that tells a rebound page from ours. */
	if (rule->token == NULL && !rule->open && host != NULL && !is_our_name(config, host))
		return refuse(login, request, "foreign_host",
		              "not a name of this gateway: ask by address or as localhost, or set "
		              "alerts.dashboard_url");
	if (!changes_state(request))
		return false;
	if (is_cross_site(request))
		return refuse(login, request, "cross_site", "sent by a page of another site");
	if (by_cookie && !says_ours(request))
		return refuse(login, request, "cross_site",
		              "with a cookie: say X-Tailrace-Page, or send JSON");
	return false;
}

/* --- guesses at tokens ------------------------------------------------------------------------ */

static void
peer_of(struct evhttp_request *request, struct net_address *ret)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	struct bufferevent *bev =
	    evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
	*ret = (struct net_address){0};
	if (getpeername(bufferevent_getfd(bev), (struct sockaddr *)(void *)&address, &length) == 0)
		net_address_from((struct sockaddr *)(void *)&address, length, ret);
}

static void
log_refusal(struct login *login, enum login_way way, const struct net_address *from,
            const char *reason, uint64_t now_ns)
{
	static const char *const ways[LOGIN_WAYS] = {"log-in", "bearer"};
	char text[NET_ADDRESS_TEXT_SIZE], more[LOG_LEFT_OUT_SIZE];
	uint64_t left_out;
	net_address_format(from, text, sizeof(text));
	if (log_limit_allows(&login->refusals, now_ns, &left_out))
		log_warn("control: %s of %s refused: %s%s", ways[way], text, reason,
		         log_left_out(left_out, more));
}

/* Whether its address has told too many wrong tokens to be heard now. Then it is answered. */
static bool
is_limited(struct login *login, const struct access_rule *rule, enum login_way way,
           struct evhttp_request *request, uint64_t now_ns)
{
	struct net_address from;
	uint8_t token[ACCESS_DIGEST_SIZE];
	uint64_t wait_s = 1;
	char wait[24];
	peer_of(request, &from);
	access_digest(rule->token, token);
	if (sessions_may_try(login->sessions, &from, token, now_ns, &wait_s))
		return false;
	++*login->counters.limited[way];
	log_refusal(login, way, &from, "too_many_tries", now_ns);
	snprintf(wait, sizeof(wait), "%llu", (unsigned long long)wait_s);
	set_header(request, "Retry-After", wait);
	reply_error(request, 429, "too_many_tries", "too many wrong tokens: wait", NULL);
	return true;
}

/* Remembers a wrong token. The caller answers. */
static void
note_wrong(struct login *login, const struct access_rule *rule, enum login_way way,
           const char *told, struct evhttp_request *request, uint64_t now_ns)
{
	struct net_address from;
	uint8_t token[ACCESS_DIGEST_SIZE], wrong[ACCESS_DIGEST_SIZE];
	peer_of(request, &from);
	access_digest(rule->token, token);
	access_digest(told, wrong);
	sessions_failed(login->sessions, &from, token, wrong, now_ns);
	++*login->counters.wrong[way];
	log_refusal(login, way, &from, "wrong_token", now_ns);
}

bool
login_refuses_bearer(struct login *login, const struct access_rule *rule, const char *token,
                     struct evhttp_request *request)
{
	uint64_t now_ns = clock_now_ns();
	if (is_limited(login, rule, LOGIN_BY_BEARER, request, now_ns))
		return true;
	if (access_token_right(rule, token))
		return false;
	note_wrong(login, rule, LOGIN_BY_BEARER, token, request, now_ns);
	login_demand(request);
	return true;
}

void
login_demand(struct evhttp_request *request)
{
	set_header(request, "WWW-Authenticate", "Bearer");
	reply_error(request, 401, "unauthenticated", "token missing or wrong", NULL);
}

/* --- /login, /logout -------------------------------------------------------------------------- */

/* "token=…" of a form, or {"token": "…"}; owned, or null. */
static char *
token_of(const char *body, size_t length, bool form)
{
	char *token = NULL;
	if (form) {
		struct evkeyvalq fields;
		TAILQ_INIT(&fields);
		if (evhttp_parse_query_str(body, &fields) != 0)
			return NULL;
		const char *told = evhttp_find_header(&fields, "token");
		token = told != NULL ? xstrdup(told) : NULL;
		evhttp_clear_headers(&fields);
		return token;
	}
	json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL);
	const char *told = json_string_value(json_object_get(root, "token"));
	token = told != NULL ? xstrdup(told) : NULL;
	json_decref(root);
	return token;
}

static char *
read_token(struct evhttp_request *request)
{
	static const char form[] = "application/x-www-form-urlencoded";
	char body[LOGIN_BODY_MAX + 1];
	const char *type = header(request, "Content-Type");
	struct evbuffer *input = evhttp_request_get_input_buffer(request);
	ev_ssize_t length = evbuffer_remove(input, body, LOGIN_BODY_MAX);
	if (length <= 0 || evbuffer_get_length(input) > 0)
		return NULL;
	body[length] = '\0';
	char *token = token_of(body, (size_t)length,
	                       type != NULL && strncasecmp(type, form, sizeof(form) - 1) == 0);
	OPENSSL_cleanse(body, sizeof(body));
	return token;
}

static void
log_in(struct login *login, const struct access_rule *rule, bool tls,
       struct evhttp_request *request)
{
	uint64_t now_ns = clock_now_ns();
	uint8_t digest[ACCESS_DIGEST_SIZE];
	char id[SESSION_ID_SIZE];
	if (rule->token == NULL) { /* nobody need */
		reply_empty(request, 204);
		return;
	}
	if (is_limited(login, rule, LOGIN_BY_PAGE, request, now_ns))
		return;
	char *token = read_token(request);
	if (token == NULL) {
		reply_error(request, 400, "malformed", "a JSON object or a form with a token",
		            "/token");
		return;
	}
	bool right = access_token_right(rule, token);
	if (!right)
		note_wrong(login, rule, LOGIN_BY_PAGE, token, request, now_ns);
	OPENSSL_cleanse(token, strlen(token));
	free(token);
	if (!right) {
		reply_error(request, 401, "wrong_token", "that is not the token of this listener",
		            NULL);
		return;
	}
	access_digest(rule->token, digest);
	sessions_open(login->sessions, digest, now_ns, id);
	++*login->counters.ok;
	set_cookie(login, tls, id, SESSION_LIFE_S, request);
	reply_empty(request, 204);
}

/* What the page has to know before it asks anything: whether a token is wanted, and is there. */
static void
tell(struct login *login, const struct access_rule *rule, bool tls, struct evhttp_request *request)
{
	struct text body = {0};
	char id[SESSION_ID_SIZE];
	uint8_t token[ACCESS_DIGEST_SIZE];
	uint64_t left_s = 0;
	bool in = rule->token == NULL;
	if (!in && cookie_id(login, tls, request, id)) {
		access_digest(rule->token, token);
		in = sessions_use(login->sessions, id, token, clock_now_ns(), &left_s);
	}
	text_printf(&body, "{\"needed\":%s,\"in\":%s,\"ends_in_s\":",
	            rule->token != NULL ? "true" : "false", in ? "true" : "false");
	if (left_s > 0)
		text_u64(&body, left_s);
	else
		text_puts(&body, "null");
	text_puts(&body, "}");
	reply_json(request, 200, &body);
	text_free(&body);
}

static void
log_out(struct login *login, bool tls, struct evhttp_request *request)
{
	char id[SESSION_ID_SIZE];
	if (cookie_id(login, tls, request, id))
		sessions_end(login->sessions, id);
	set_cookie(login, tls, "", 0, request);
	reply_empty(request, 204);
}

void
login_request(struct login *login, const struct access_rule *rule, bool tls,
              struct evhttp_request *request, const char *path)
{
	bool in = strcmp(path, "/login") == 0;
	if (evhttp_request_get_command(request) == EVHTTP_REQ_POST) {
		if (in)
			log_in(login, rule, tls, request);
		else
			log_out(login, tls, request);
		return;
	}
	if (in && !changes_state(request)) {
		tell(login, rule, tls, request);
		return;
	}
	set_header(request, "Allow", in ? "GET, HEAD, POST" : "POST");
	reply_error(request, 405, "method_not_allowed", "see Allow", NULL);
}
