/* Browsers at the control listeners: a token becomes a cookie, and what another site's page makes a
 * browser send changes nothing. Guesses at tokens, in a log-in or a header, are few. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_LOGIN_H
#define TAILRACE_COLLECTOR_LOGIN_H

#include <stdbool.h>
#include <stdint.h>
#include "collector/access.h"

#define LOGIN_BODY_MAX 8192 /* bytes */

struct config;
struct evhttp_request;
struct login;

/* How a token is told. */
enum login_way { LOGIN_BY_PAGE, LOGIN_BY_BEARER, LOGIN_WAYS };

/* What became of log-ins and tokens; borrowed. */
struct login_counters {
	uint64_t *ok, *foreign;
	uint64_t *wrong[LOGIN_WAYS], *limited[LOGIN_WAYS];
};

struct login *login_new(const struct login_counters *counters); /* owned */
void login_free(struct login *login);                           /* null-safe */

/* Whether the path is /login or /logout. */
bool login_is_path(const char *path);

/* Answers it. `tls`: the listener speaks TLS. */
void login_request(struct login *login, const struct access_rule *rule, bool tls,
                   struct evhttp_request *request, const char *path);

/* Whether the request's cookie is a session got with this rule's token. */
bool login_by_cookie(struct login *login, const struct access_rule *rule, bool tls,
                     struct evhttp_request *request);

/* The same, but the session does not count as used by it. */
bool login_lives(const struct login *login, const struct access_rule *rule, bool tls,
                 struct evhttp_request *request);

/* Of a rule with a token: whether the token of a request's Authorization header is refused, for it is
 * wrong or was not even looked at after too many wrong ones. Then it is answered 401 or 429. */
bool login_refuses_bearer(struct login *login, const struct access_rule *rule, const char *token,
                          struct evhttp_request *request);

/* Answers 401: a token is wanted. */
void login_demand(struct evhttp_request *request);

/* Whether a page of another site may have made a browser send this, or a name that is not ours was
 * made to lead here. Then it is answered 403, and true is returned. `by_cookie`: nothing but the
 * cookie let it in. */
bool login_refuses(struct login *login, const struct access_rule *rule, const struct config *config,
                   struct evhttp_request *request, bool by_cookie);

#endif
