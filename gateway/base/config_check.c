/* Checks between keys, and the defaults that depend on who starts the program. */
#include "base/config_check.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/config_check_alerts.h"
#include "base/config_check_tls.h"
#include "base/config_table.h"
#include "base/xmem.h"

#define TOKEN_CHARACTERS \
	"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/* Tells a fault of one key, its place given as printf does. */
#define FAULT(place, text, ...) config_place_error_at((place), (text), __VA_ARGS__)

static bool
same_address(const struct net_address *a, const struct net_address *b)
{
	return a->length > 0 && a->length == b->length && memcmp(&a->sa, &b->sa, a->length) == 0;
}

static void
check_listeners(struct config *config, struct config_place *place)
{
	static const char twice[] = "this address is listened on twice";

	for (size_t i = 0; i < config->listener_count; i++)
		for (size_t j = 0; j < i; j++)
			if (same_address(&config->listeners[i].address,
			                 &config->listeners[j].address))
				FAULT(place, twice, "/listeners/%zu/address", i);
	for (size_t i = 0; i < config->control.listener_count; i++) {
		const struct net_address *own = &config->control.listeners[i].address;

		for (size_t j = 0; j < i; j++)
			if (same_address(own, &config->control.listeners[j].address))
				FAULT(place, twice, "/control/listeners/%zu/address", i);
		for (size_t j = 0; j < config->listener_count; j++)
			if (same_address(own, &config->listeners[j].address))
				FAULT(place,
				      "nothing of the control plane is ever served on a public "
				      "listener: this address is one",
				      "/control/listeners/%zu/address", i);
	}
}

const char *
config_file_fault(const char *path)
{
	char byte;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd == -1 ? -1 : read(fd, &byte, 1);
	const char *fault = n == -1 ? strerror(errno) : n == 0 ? "the file is empty" : NULL;

	if (fd != -1)
		close(fd);
	return fault;
}

static void
check_control(struct config *config, struct config_place *place, bool on_host)
{
	for (size_t i = 0; i < config->control.listener_count; i++) {
		const struct config_control_listener *own = &config->control.listeners[i];
		bool tcp = own->address.sa.sa_family != AF_UNIX && own->address.length > 0;
		bool beyond = tcp && !net_address_is_loopback(&own->address);
		const char *fault;

		if (beyond && !own->tls.on)
			FAULT(place,
			      "found nothing, allowed: certificates, as this address is beyond "
			      "loopback (or use unix:/path or a loopback address)",
			      "/control/listeners/%zu/tls", i);
		if (tcp && own->role != CONFIG_ROLE_PROBE && own->token_file == NULL)
			FAULT(place,
			      "found nothing, allowed: a file with a token (required on TCP)",
			      "/control/listeners/%zu/token_file", i);
		if (tcp && own->allow_user_count > 0)
			FAULT(place, "only peers of a unix socket have a user",
			      "/control/listeners/%zu/allow_users", i);
		fault =
		    on_host && own->token_file != NULL ? config_file_fault(own->token_file) : NULL;
		if (fault != NULL)
			FAULT(place, fault, "/control/listeners/%zu/token_file", i);
	}
}

static void
check_methods(const struct config_route *route, size_t index, struct config_place *place)
{
	for (size_t i = 0; route->methods != NULL && route->methods[i] != NULL; i++)
		if (route->methods[i][strspn(route->methods[i], TOKEN_CHARACTERS)] != '\0')
			FAULT(place, "a method is a token such as GET", "/routes/%zu/methods/%zu",
			      index, i);
}

static void
check_routes(struct config *config, struct config_place *place)
{
	if (config->route_count == 0 && config->upstream_count > 1)
		FAULT(place,
		      "found nothing, allowed: at least one route, as there are several "
		      "upstreams",
		      "/routes");
	for (size_t i = 0; i < config->route_count; i++) {
		struct config_route *route = &config->routes[i];

		for (char *p = route->host; p != NULL && *p != '\0'; p++)
			*p = (char)tolower((unsigned char)*p);
		if (route->host != NULL && strpbrk(route->host, ":/ ") != NULL &&
		    route->host[0] != '[')
			FAULT(place, "a host name without port is meant", "/routes/%zu/host", i);
		if (route->path_prefix != NULL && route->path_prefix[0] != '/')
			FAULT(place, "a path begins with /", "/routes/%zu/path_prefix", i);
		check_methods(route, i, place);
		if (route->path_prefix == NULL)
			route->path_prefix = xstrdup("");
		if (route->name == NULL)
			route->name = xstrdup(route->path_prefix);
	}
}

/* A path as it may stand in a request line (RFC 9112 3.2.1). */
static bool
path_fits(const char *path)
{
	for (const char *p = path; *p != '\0'; p++)
		if (*p < 0x21 || *p > 0x7e || *p == '#')
			return false;
	return path[0] == '/';
}

static void
check_servers(const struct config_upstream *upstream, struct config_place *place)
{
	for (size_t i = 0; i < upstream->server_count; i++)
		for (size_t j = 0; j < i; j++)
			if (upstream->servers[i].text != NULL &&
			    upstream->servers[j].text != NULL &&
			    strcmp(upstream->servers[i].text, upstream->servers[j].text) == 0)
				FAULT(place,
				      "this server is listed twice: give it a weight instead",
				      "/upstreams/%s/servers/%zu", upstream->name, i);
}

/* The port of the app and the port of the gateway are easily taken for each other. */
static void
check_circles(const struct config *config, const struct config_upstream *upstream,
              struct config_place *place)
{
	for (size_t i = 0; i < upstream->server_count; i++)
		for (size_t j = 0; j < config->listener_count; j++)
			if (same_address(&upstream->servers[i].address,
			                 &config->listeners[j].address))
				FAULT(
				    place,
				    "the gateway itself listens there: requests would go round in "
				    "circles; the app's address is meant",
				    "/upstreams/%s/servers/%zu", upstream->name, i);
}

static void
check_upstreams(struct config *config, struct config_place *place)
{
	for (size_t i = 0; i < config->upstream_count; i++) {
		const struct config_upstream *upstream = &config->upstreams[i];
		const struct config_health *health = &upstream->health;

		check_servers(upstream, place);
		check_circles(config, upstream, place);
		if (health->path != NULL && !path_fits(health->path))
			FAULT(place,
			      "a path begins with / and has only visible ASCII characters but #",
			      "/upstreams/%s/health/path", upstream->name);
	}
}

/* What a route does not say holds as for its upstream. */
static void
fill_bounds(struct config *config)
{
	const struct config_limits *limits = &config->limits;

	for (size_t i = 0; i < config->upstream_count; i++) {
		struct config_upstream *upstream = &config->upstreams[i];

		upstream->bounds = (struct config_bounds){
		    .body_bytes = limits->body_bytes,
		    .body_idle_timeout_ms = limits->body_idle_timeout_ms,
		    .response_timeout_ms = upstream->response_timeout_ms,
		};
	}
	for (size_t i = 0; i < config->route_count; i++) {
		struct config_bounds *own = &config->routes[i].bounds;
		size_t upstream = config->routes[i].upstream;
		const struct config_bounds *base;

		if (upstream >= config->upstream_count)
			continue; /* its name is at fault, and was told so */
		base = &config->upstreams[upstream].bounds;
		if (own->body_bytes == CONFIG_INHERITED)
			own->body_bytes = base->body_bytes;
		if (own->body_idle_timeout_ms == CONFIG_INHERIT)
			own->body_idle_timeout_ms = base->body_idle_timeout_ms;
		if (own->response_timeout_ms == CONFIG_INHERIT)
			own->response_timeout_ms = base->response_timeout_ms;
	}
}

/* Fields that decide framing, routing, rights or what a message means may not come behind it (RFC
 * 9110 6.5.1); a name that ends by `-` stands for all that begin so. */
static bool
trailer_forbidden(const char *name)
{
	static const char *const forbidden[] = {"age",
	                                        "authorization",
	                                        "cache-control",
	                                        "connection",
	                                        "content-",
	                                        "cookie",
	                                        "date",
	                                        "expect",
	                                        "expires",
	                                        "forwarded",
	                                        "host",
	                                        "if-",
	                                        "keep-alive",
	                                        "location",
	                                        "max-forwards",
	                                        "pragma",
	                                        "proxy-",
	                                        "range",
	                                        "retry-after",
	                                        "set-cookie",
	                                        "te",
	                                        "tracestate",
	                                        "traceparent",
	                                        "trailer",
	                                        "transfer-encoding",
	                                        "upgrade",
	                                        "vary",
	                                        "via",
	                                        "www-authenticate",
	                                        "x-forwarded-",
	                                        "x-real-ip",
	                                        "x-request-start",
	                                        "x-tailrace",
	                                        "x-tailrace-",
	                                        "x-trace-id"};

	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
		size_t n = strlen(forbidden[i]);

		if (strncmp(name, forbidden[i], n) == 0 &&
		    (name[n] == '\0' || forbidden[i][n - 1] == '-'))
			return true;
	}
	return strchr(name, '_') != NULL;
}

static void
check_trailers(struct config *config, struct config_place *place)
{
	char **names = config->limits.trailers;

	for (size_t i = 0; names != NULL && names[i] != NULL; i++) {
		for (char *p = names[i]; *p != '\0'; p++)
			*p = (char)tolower((unsigned char)*p);
		if (names[i][strspn(names[i], TOKEN_CHARACTERS)] != '\0')
			FAULT(place, "a field name is a token", "/limits/trailers/%zu", i);
		else if (trailer_forbidden(names[i]))
			FAULT(place,
			      "this field may not stand in a trailer section (RFC 9110 6.5.1)",
			      "/limits/trailers/%zu", i);
	}
}

static const char *
error_page_fault(const char *path)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *fault = NULL;

	if (fd == -1 || fstat(fd, &status) == -1)
		fault = strerror(errno);
	else if (!S_ISREG(status.st_mode))
		fault = "no regular file";
	else if (status.st_size > CONFIG_ERROR_PAGE_BYTES_MAX)
		fault = "longer than 65536 bytes";
	if (fd != -1)
		close(fd);
	return fault;
}

static void
check_error_pages(struct config *config, struct config_place *place, bool on_host)
{
	for (size_t i = 0; i < config->error_page_count; i++) {
		const struct config_error_page *page = &config->error_pages[i];
		const char *name = page->name;
		bool digits = isdigit((unsigned char)name[0]) && strlen(name) == 3 &&
		              isdigit((unsigned char)name[1]) && isdigit((unsigned char)name[2]);
		const char *fault;

		if ((name[0] != '4' && name[0] != '5') || (!digits && strcmp(name + 1, "xx") != 0))
			FAULT(place, "allowed: a status from 400 to 599, \"4xx\" or \"5xx\"",
			      "/error_pages/%s", name);
		fault = on_host && page->file != NULL ? error_page_fault(page->file) : NULL;
		if (fault != NULL)
			FAULT(place, fault, "/error_pages/%s/file", name);
	}
}

static void
check_process(struct config *config, struct config_place *place)
{
	const struct passwd *user = NULL;
	const struct group *group = NULL;

	config->process.uid = (uid_t)-1;
	config->process.gid = (gid_t)-1;
	if (config->process.user != NULL) {
		user = getpwnam(config->process.user);
		if (user == NULL)
			FAULT(place, "no user of this system", "/process/user");
		else if (geteuid() != 0 && user->pw_uid != geteuid())
			FAULT(place, "only root can become another user", "/process/user");
	}
	if (user != NULL) {
		config->process.uid = user->pw_uid;
		config->process.gid = user->pw_gid;
	}
	if (config->process.group != NULL) {
		group = getgrnam(config->process.group);
		if (group == NULL)
			FAULT(place, "no group of this system", "/process/group");
		else if (geteuid() != 0 && group->gr_gid != getegid())
			FAULT(place, "only root can become another group", "/process/group");
		else
			config->process.gid = group->gr_gid;
	}
}

/* $name/rest, or $HOME/home_rest/rest where $name is not set, or null. Owned by the caller. */
static char *
path_under(const char *name, const char *home_rest, const char *rest)
{
	const char *base = getenv(name);
	const char *home = getenv("HOME");
	char *path = NULL;
	int n = -1;

	if (base != NULL && base[0] == '/')
		n = asprintf(&path, "%s/%s", base, rest);
	else if (home_rest != NULL && home != NULL && home[0] == '/')
		n = asprintf(&path, "%s/%s/%s", home, home_rest, rest);
	return n == -1 ? NULL : path;
}

int
config_default_control(char *buf, size_t size)
{
	char *path = geteuid() == 0 ? xstrdup("/run/tailrace/control.sock")
	                            : path_under("XDG_RUNTIME_DIR", NULL, "tailrace/control.sock");
	int n = path != NULL ? snprintf(buf, size, "unix:%s", path) : -1;

	free(path);
	return n >= 0 && (size_t)n < size ? 0 : -1;
}

static void
default_control(struct config *config, struct config_place *place)
{
	char text[NET_ADDRESS_TEXT_SIZE];
	struct config_control_listener *one;
	const char *why;

	one = xcalloc(1, sizeof(*one));
	one->role = CONFIG_ROLE_ADMIN;
	config->control.listeners = one;
	config->control.listener_count = 1;
	if (config_default_control(text, sizeof(text)) == -1 ||
	    net_address_parse(text, &one->address, &why) == -1)
		FAULT(place,
		      "found nothing, allowed: at least one, as there is no default place for "
		      "its socket (XDG_RUNTIME_DIR is not set); such as "
		      "[{\"address\": \"unix:/tmp/tailrace.sock\"}]",
		      "/control/listeners");
	else
		one->text = xstrdup(text);
}

static void
default_store(struct config *config, struct config_place *place)
{
	config->store.path =
	    geteuid() == 0 ? xstrdup("/var/lib/tailrace/tailrace.db")
	                   : path_under("XDG_STATE_HOME", ".local/state", "tailrace/tailrace.db");
	if (config->store.path == NULL)
		FAULT(place,
		      "found nothing, allowed: a file, as there is no default place for it "
		      "(neither XDG_STATE_HOME nor HOME is set)",
		      "/store/path");
}

static void
check_logs(struct config *config, struct config_place *place)
{
	static const char relative[] = "a path begins with /";

	if (config->log.error_path != NULL && config->log.error_path[0] != '/')
		FAULT(place, relative, "/log/error/path");
	if (config->log.access.path != NULL && config->log.access.path[0] != '/' &&
	    strcmp(config->log.access.path, "-") != 0)
		FAULT(place, "a path begins with /; - is standard output", "/log/access/path");
}

void
config_check(struct config *config, struct config_place *place, bool on_host)
{
	if (config->control.listener_count == 0)
		default_control(config, place);
	if (config->store.path == NULL)
		default_store(config, place);
	check_listeners(config, place);
	check_control(config, place, on_host);
	check_upstreams(config, place);
	check_routes(config, place);
	check_trailers(config, place);
	check_error_pages(config, place, on_host);
	check_process(config, place);
	config_check_tls(config, place, on_host);
	config_check_alerts(config, place, on_host);
	check_logs(config, place);
	fill_bounds(config);
	/* The line is part of the head: who lowers the head's limit alone means both. */
	if (config->limits.request_line_bytes > config->limits.head_bytes)
		config->limits.request_line_bytes = config->limits.head_bytes;
}
