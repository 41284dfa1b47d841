/* config: defaults, every kind of value, positions of syntax errors, all semantic errors at
 * once, limits at and beyond their maximum, overrides from the environment, bytes that children
 * read again. */
#include "config_kit.h"

#include <unistd.h>
#include "base/config_env.h"
#include "base/config_errors.h"
#include "base/config_table.h"
#include "base/config_text.h"

static void
test_defaults(void **state)
{
	struct config *config = load("{" BASE "}");

	(void)state;
	assert_int_equal(config->listener_count, 1);
	assert_string_equal(config->listeners[0].text, "127.0.0.1:8080");
	assert_int_equal(config->listeners[0].trusted_proxies.mode, CONFIG_NEVER);
	assert_false(config->listeners[0].half_close);
	assert_int_equal(config->upstream_count, 1);
	assert_string_equal(config->upstreams[0].name, "app");
	assert_int_equal(config->upstreams[0].max_connections, 256);
	assert_int_equal(config->upstreams[0].connect_timeout_ms, 1000);
	assert_int_equal(config->upstreams[0].response_timeout_ms, 60000);
	assert_int_equal(config->upstreams[0].idle_timeout_ms, 4000);
	assert_int_equal(config->upstreams[0].retries, 1);
	assert_int_equal(config->route_count, 0);
	assert_int_equal(config->limits.request_line_bytes, 8192);
	assert_int_equal(config->limits.head_bytes, 32768);
	assert_int_equal(config->limits.headers, 100);
	assert_int_equal(config->limits.body_bytes, 0);
	assert_int_equal(config->limits.head_timeout_ms, 10000);
	assert_int_equal(config->limits.body_idle_timeout_ms, 60000);
	assert_int_equal(config->limits.keepalive_timeout_ms, 60000);
	assert_int_equal(config->limits.connections, 10000);
	assert_int_equal(config->limits.requests_per_connection, 0);
	assert_int_equal(config->trace.trust.mode, CONFIG_NEVER);
	assert_true(config->trace.response_header);
	assert_int_equal(config->trace.server_timing.mode, CONFIG_NEVER);
	assert_int_equal(config->control.listeners[0].role, CONFIG_ROLE_ADMIN);
	assert_int_equal(config->profile.join_timeout_ms, 10000);
	assert_non_null(config->store.path);
	assert_int_equal(config->worker.threads, 1);
	assert_int_equal(config->worker.shutdown_timeout_ms, 30000);
	assert_int_equal(config->log.level, LOG_LEVEL_INFO);
	assert_int_equal(config->process.uid, (uid_t)-1);
	assert_int_equal(config->process.gid, (gid_t)-1);
	config_free(config);
}

static void
test_every_kind(void **state)
{
	struct config *config = load(
	    "{\"$schema\": \"x\", \"listeners\": [{\"address\": \"[::1]:81\", \"half_close\": true,"
	    "\"trusted_proxies\": [\"10.0.0.0/8\", \"::1\"]}, {\"address\": \"unix:/tmp/l\"}],"
	    "\"upstreams\": {\"b\": {\"servers\": [{\"address\": \"unix:/tmp/a\"}, \"1.2.3.4:5\"]},"
	    "\"a\": {\"servers\": [\"127.0.0.1:1\"], \"retries\": 0}},"
	    "\"routes\": [{\"upstream\": \"a\", \"host\": \"EXAMPLE.org\", \"path_prefix\": \"/x\","
	    "\"methods\": [\"GET\", \"POST\"]}, {\"name\": \"rest\", \"upstream\": \"b\"}],"
	    "\"limits\": {\"body_bytes\": 9223372036854775807, \"head_bytes\": 4096},"
	    "\"trace\": {\"trust\": \"always\", \"response_header\": false,"
	    "\"server_timing\": [\"127.0.0.1\"]},"
	    "\"control\": {\"listeners\": [{\"address\": \"127.0.0.1:9\", \"role\": \"probe\"},"
	    "{\"address\": \"unix:/tmp/i\", \"role\": \"ingest\", \"allow_users\": [\"root\"]}]},"
	    "\"log\": {\"error\": {\"level\": \"debug\"}}, \"store\": {\"path\": \"x.db\"}}");
	struct net_address peer;
	const char *why;

	(void)state;
	assert_int_equal(config->listener_count, 2);
	assert_true(config->listeners[0].half_close);
	assert_int_equal(config->listeners[0].trusted_proxies.cidr_count, 2);
	net_address_parse("10.1.1.1:1", &peer, &why);
	assert_true(config_peers_match(&config->listeners[0].trusted_proxies, &peer));
	assert_true(config_peers_match(&config->trace.trust, &peer));
	assert_false(config_peers_match(&config->trace.server_timing, &peer));
	assert_false(config_peers_match(&config->listeners[1].trusted_proxies, &peer));
	assert_string_equal(config->upstreams[0].name, "b");
	assert_int_equal(config->upstreams[0].server_count, 2);
	assert_int_equal(config->upstreams[0].servers[0].address.sa.sa_family, AF_UNIX);
	assert_string_equal(config->upstreams[0].servers[1].text, "1.2.3.4:5");
	assert_int_equal(config->upstreams[1].retries, 0);
	assert_int_equal(config->routes[0].upstream, 1);
	assert_string_equal(config->routes[0].host, "example.org");
	assert_string_equal(config->routes[0].name, "/x");
	assert_string_equal(config->routes[0].methods[1], "POST");
	assert_null(config->routes[0].methods[2]);
	assert_string_equal(config->routes[1].name, "rest");
	assert_string_equal(config->routes[1].path_prefix, "");
	assert_null(config->routes[1].host);
	assert_null(config->routes[1].methods);
	assert_int_equal(config->limits.body_bytes, INT64_MAX);
	assert_int_equal(config->limits.request_line_bytes, 4096); /* a part of the head */
	assert_false(config->trace.response_header);
	assert_int_equal(config->control.listeners[0].role, CONFIG_ROLE_PROBE);
	assert_int_equal(config->control.listeners[1].role, CONFIG_ROLE_INGEST);
	assert_int_equal(config->control.listeners[1].allow_user_count, 1);
	assert_int_equal(config->control.listeners[1].allow_users[0], 0);
	assert_int_equal(config->log.level, LOG_LEVEL_DEBUG);
	assert_string_equal(config->store.path, "x.db");
	config_free(config);
}

static void
test_syntax_errors_have_places(void **state)
{
	(void)state;
	assert_refused("{\n \"a\": 1,\n \"a\": 2}", "t:3:4: duplicate object key");
	assert_refused("{\n \"a\": 1 // \" {\n \"b\": 2}", "t:3:4: ");
	assert_refused("{\"a\": 1}x", "t:1:9: ");
	assert_refused("", "t:1:0: ");
	assert_refused("5", "t:1:1: ");
	assert_refused("{\"a\": \"\xff\"}", "t:1:");
	assert_refused("{\"a\": \"x\\u0000\"}", "t:1:");
}

static void
test_comments_keep_positions(void **state)
{
	char text[] = "{ // \"x\n\"a//b\": \"\\\"//\", //\n\"c\": 1} // end";
	const char want[] = "{      \n\"a//b\": \"\\\"//\",   \n\"c\": 1}       ";

	(void)state;
	config_text_blank(text, strlen(text));
	assert_string_equal(text, want);
	config_free(load("// first\n{" HEAD ", // \"\n" APP ", " CONTROL "}// last"));
}

static void
test_semantic_errors(void **state)
{
	(void)state;
	assert_refused("{" BASE ", \"x/~\": 1}", "t: /x~1~0: unknown key, allowed: upstreams, ");
	assert_refused("{" BASE ", \"stor\": 1}", "t: /stor: unknown key; is \"store\" meant? ");
	assert_refused("{" BASE ", \"lgo\": 1}", "t: /lgo: unknown key; is \"log\" meant? ");
	assert_refused("{" BASE ", \"tracy\": 1}", "t: /tracy: unknown key; is \"trace\" meant? ");
	assert_refused("{" BASE ", \"lo\": 1}", "t: /lo: unknown key; is \"log\" meant? ");
	assert_refused("{" BASE ", \"sotrn\": 1}", "t: /sotrn: unknown key, ");
	assert_refused("{" BASE ", \"$schema\": 1, \"export\": {}}",
	               "t: /export: not in this version");
	assert_refused("{" APP ", " CONTROL "}", "t: /listeners: found nothing, allowed: ");
	assert_refused("{" HEAD ", " CONTROL "}", "t: /upstreams: found nothing, allowed: ");
	assert_refused("{" BASE ", \"limits\": 5}", "t: /limits: found 5, allowed: an object");
	assert_refused("{" BASE ", \"limits\": {\"headers\": 1.0}}",
	               "/limits/headers: found 1.0, allowed: an integer from 1 to 256");
	assert_refused("{" BASE ", \"limits\": {\"headers\": null}}",
	               "found null, allowed: an integer");
	assert_refused("{" BASE ", \"limits\": {\"head_timeout_ms\": 0}}", "from 1 to 3600000 ms");
	assert_refused("{" BASE ", \"limits\": {\"body_bytes\": -1}}", "found -1, allowed");
	assert_refused("{" BASE ", \"worker\": {\"threads\": 9}}",
	               "/worker/threads: found 9, allowed: an integer from 1 to 8");
	assert_refused("{" BASE ", \"trace\": {\"trust\": \"sometimes\"}}",
	               "\"never\", \"always\" or");
	assert_refused("{" BASE ", \"trace\": {\"trust\": [\"10.0.0.0/40\"]}}",
	               "/trace/trust/0: found");
	assert_refused("{" BASE ", \"trace\": {\"response_header\": 1}}", "true or false");
	assert_refused("{" BASE ", \"log\": {\"error\": {\"level\": \"all\"}}}",
	               "error|warn|info|debug");
	assert_refused("{" BASE ", \"store\": {\"path\": \"\"}}", "a text of 1 to 4095 bytes");
	assert_refused("{" BASE ", \"store\": {\"path\": \"a\\nb\"}}",
	               "without control characters");
	assert_refused("{" BASE ", \"process\": {\"user\": \"no-such-user\"}}", "/process/user: ");
	assert_refused("{" BASE ", \"process\": {\"group\": \"no-such-group\"}}",
	               "/process/group: ");
	assert_refused("{" BASE ", \"routes\": [{\"path_prefix\": \"x\"}]}",
	               "a path begins with /");
	assert_refused("{" BASE ", \"routes\": [{\"host\": \"a:80\"}]}", "/routes/0/host: ");
	assert_refused("{" BASE ", \"routes\": [{\"upstream\": \"b\"}]}",
	               "/routes/0/upstream: found \"b\"");
	assert_refused("{" BASE ", \"routes\": [{\"methods\": [\"G T\"]}]}",
	               "/routes/0/methods/0: ");
	assert_refused("{" BASE ", \"routes\": [{\"methods\": []}]}", "a list of 1 to 32 texts");
	assert_refused("{" HEAD ", " CONTROL
	               ", \"upstreams\": {\"a b\": {\"servers\": [\"1.1.1.1:1\"]}}}",
	               "/upstreams/a b: the name must be");
	assert_refused("{" HEAD ", " CONTROL ", \"upstreams\": {\"a\": {\"servers\": []}}}",
	               "/upstreams/a/servers: found [], allowed: a list of 1 to 64");
	assert_refused("{" HEAD ", " CONTROL
	               ", \"upstreams\": {\"a\": {\"servers\": [\"1.1.1.1:0\"]}}}",
	               "a port from 1 to 65535");
}

static void
test_places_conflict(void **state)
{
	(void)state;
	assert_refused("{" APP ", " CONTROL ", \"listeners\": [{\"address\": \"1.1.1.1:1\"},"
	               "{\"address\": \"1.1.1.1:1\"}]}",
	               "/listeners/1/address: this address is listened on twice");
	assert_refused("{\"listeners\": [{\"address\": \"127.0.0.1:7\"}], " CONTROL
	               ", \"upstreams\": {\"app\": {\"servers\": [\"127.0.0.1:8\","
	               "\"127.0.0.1:7\"]}}}",
	               "/upstreams/app/servers/1: the gateway itself listens there");
	assert_refused("{" HEAD ", " APP
	               ", \"control\": {\"listeners\": [{\"address\": \"127.0.0.1:8080\","
	               "\"role\": \"probe\"}]}}",
	               "/control/listeners/0/address: nothing of the control plane");
	assert_refused("{" HEAD ", " APP
	               ", \"control\": {\"listeners\": [{\"address\": \"0.0.0.0:1\","
	               "\"role\": \"probe\"}]}}",
	               "/control/listeners/0/tls: found nothing, allowed: certificates");
	assert_refused("{" HEAD ", " APP
	               ", \"control\": {\"listeners\": [{\"address\": \"0.0.0.0:1\","
	               "\"tls\": {\"certificates\": [{"
	               "\"certificate_file\": \"c\", \"key_file\": \"k\"}]}}]}}",
	               "/control/listeners/0/token_file: found nothing");
	assert_refused("{" HEAD ", " APP
	               ", \"control\": {\"listeners\": [{\"address\": \"unix:/x\","
	               "\"tls\": {\"certificates\": [{\"certificate_file\": \"c\","
	               "\"key_file\": \"k\"}]}}]}}",
	               "/control/listeners/0/tls: a unix socket never leaves");
	assert_refused("{" HEAD ", " APP
	               ", \"control\": {\"listeners\": [{\"address\": \"127.0.0.1:1\"}]}}",
	               "/control/listeners/0/token_file: found nothing");
	assert_refused("{" HEAD ", " CONTROL
	               ", \"upstreams\": {\"a\": {\"servers\": [\"1.1.1.1:1\"]},"
	               "\"b\": {\"servers\": [\"1.1.1.1:1\"]}}}",
	               "/routes: found nothing, allowed: at least one");
	assert_refused("{" HEAD ", " CONTROL
	               ", \"upstreams\": {\"a\": {\"servers\": [\"1.1.1.1:1\"]},"
	               "\"b\": {\"servers\": [\"1.1.1.1:1\"]}}, \"routes\": [{}]}",
	               "/routes/0/upstream: found nothing");
}

/* Every key that is agreed and not here yet is refused by that name, not as unknown. */
static void
test_later_keys(void **state)
{
	static const char *const sections[][2] = {{"export", ""}};
	char text[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
		const char *section = sections[i][0], *key = sections[i][1];

		if (key[0] == '\0')
			snprintf(text, sizeof(text), "{" BASE ", \"%s\": {}}", section);
		else
			snprintf(text, sizeof(text), "{" BASE ", \"%s\": {\"%s\": 1}}", section,
			         key);
		assert_refused(text, "not in this version");
	}
}

static void
test_all_errors_come_at_once(void **state)
{
	const char *text =
	    "{\"listeners\": [{}, 5, {\"address\": \"x\", \"tls\": 1}], \"upstreams\": {},"
	    "\"limits\": {\"headers\": 0, \"head_bytes\": \"x\"}, \"y\": 1," CONTROL "}";
	static const char *const parts[] = {
	    "t: /y: unknown key",
	    "t: /upstreams: found {}",
	    "t: /listeners/0/address: found",
	    "t: /listeners/1: found 5",
	    "t: /listeners/2/address",
	    "t: /listeners/2/tls: found 1, allowed: an object",
	    "t: /limits/head_bytes: found \"x\"",
	    "t: /limits/headers: found 0",
	};
	struct config_errors errs = {0};
	struct config *config;

	(void)state;
	assert_int_equal(config_load_bytes("t", text, strlen(text), &config, &errs), -1);
	assert_int_equal(errs.count, sizeof(parts) / sizeof(parts[0]));
	for (size_t i = 0; i < errs.count; i++)
		if (strstr(errs.lines[i], parts[i]) == NULL)
			fail_msg("line %zu: %s", i, errs.lines[i]);
	config_errors_free(&errs);
}

static void
test_errors_are_bounded(void **state)
{
	struct config_errors errs = {0};

	(void)state;
	for (int i = 0; i < CONFIG_ERRORS_MAX + 5; i++)
		config_errors_add(&errs, "error %d", i);
	assert_int_equal(errs.count, CONFIG_ERRORS_MAX);
	assert_string_equal(errs.lines[CONFIG_ERRORS_MAX - 2], "error 98");
	assert_non_null(strstr(errs.lines[CONFIG_ERRORS_MAX - 1], "and more errors"));
	config_errors_free(&errs);
}

/* `count` copies of `item` between head and tail; %zu in it is the number. */
static char *
repeat(const char *head, const char *item, size_t count, const char *tail)
{
	size_t size = strlen(head) + count * (strlen(item) + 24) + strlen(tail) + 1, n;
	char *text = malloc(size);

	n = (size_t)snprintf(text, size, "%s", head);
	for (size_t i = 0; i < count; i++) {
		const char *mark = strchr(item, '#');

		n += (size_t)snprintf(text + n, size - n, "%s%.*s%zu%s", i > 0 ? "," : "",
		                      (int)(mark - item), item, i + 1, mark + 1);
	}
	snprintf(text + n, size - n, "%s", tail);
	return text;
}

static void
assert_limit(const char *head, const char *item, size_t max, const char *tail, const char *part)
{
	char *text = repeat(head, item, max, tail);

	config_free(load(text));
	free(text);
	text = repeat(head, item, max + 1, tail);
	assert_refused(text, part);
	free(text);
}

static void
test_lists_at_their_limits(void **state)
{
	(void)state;
	assert_limit("{" APP "," CONTROL ", \"listeners\": [", "{\"address\": \"127.0.0.1:#\"}",
	             CONFIG_LISTENERS_MAX, "]}", "/listeners: found");
	assert_limit("{" HEAD "," CONTROL
	             ", \"routes\": [{\"upstream\": \"a1\"}], \"upstreams\": {",
	             "\"a#\": {\"servers\": [\"127.0.0.1:1\"]}", CONFIG_UPSTREAMS_MAX, "}}",
	             "/upstreams: found");
	assert_limit("{" HEAD "," CONTROL ", \"upstreams\": {\"a\": {\"servers\": [",
	             "\"127.0.0.1:#\"", CONFIG_SERVERS_MAX, "]}}}", "/upstreams/a/servers: found");
	assert_limit("{" BASE ", \"routes\": [", "{\"name\": \"r#\"}", CONFIG_ROUTES_MAX, "]}",
	             "/routes: found");
	assert_limit("{" BASE ", \"trace\": {\"trust\": [", "\"10.0.0.#\"", CONFIG_CIDRS_MAX, "]}}",
	             "/trace/trust: found");
	assert_limit("{" HEAD "," APP ", \"control\": {\"listeners\": [",
	             "{\"address\": \"unix:/tmp/#\"}", CONFIG_LISTENERS_MAX, "]}}",
	             "/control/listeners: found");
}

/* Of every number in the table: the ends of its range are taken, one beyond is not. */
static void
test_numbers_at_their_limits(void **state)
{
	static const struct {
		enum config_object object;
		const char *before, *after;
	} places[] = {
	    {CONFIG_OBJECT_LIMITS, BASE ", \"limits\": {", "}"},
	    {CONFIG_OBJECT_OVERLAYS, BASE ", \"overlays\": {", "}"},
	    {CONFIG_OBJECT_PROFILE, BASE ", \"profile\": {", "}"},
	    {CONFIG_OBJECT_DEEP, BASE ", \"profile\": {\"deep\": {", "}}"},
	    {CONFIG_OBJECT_STORE, BASE ", \"store\": {", "}"},
	    {CONFIG_OBJECT_WORKER, BASE ", \"worker\": {", "}"},
	    {CONFIG_OBJECT_UPSTREAM,
	     HEAD ", " CONTROL ", \"upstreams\": {\"a\": {\"servers\": [\"127.0.0.1:1\"], ", "}}"},
	    {CONFIG_OBJECT_SERVER,
	     HEAD ", " CONTROL
	          ", \"upstreams\": {\"a\": {\"servers\": [{\"address\": \"1.1.1.1:1\", ",
	     "}]}}"},
	    {CONFIG_OBJECT_HEALTH,
	     HEAD ", " CONTROL ", \"upstreams\": {\"a\": {\"servers\": [\"1.1.1.1:1\"], "
	          "\"health\": {\"path\": \"/\", ",
	     "}}}"},
	    {CONFIG_OBJECT_ROUTE, BASE ", \"routes\": [{", "}]"},
	    {CONFIG_OBJECT_ALERTS, BASE ", \"alerts\": {", "}"},
	    {CONFIG_OBJECT_RULE,
	     BASE ", \"alerts\": {\"rules\": [{\"metric\": \"p95\", \"above_ms\": 5, ", "}]}"},
	    {CONFIG_OBJECT_RECEIVER,
	     BASE
	     ", \"alerts\": {\"receivers\": {\"a\": {\"type\": \"slack\", \"url\": \"http://h\", ",
	     "}}}"},
	};
	size_t seen = 0, all = 0;
	char text[1024];

	(void)state;
	for (const struct config_key *key = config_keys; key->name != NULL; key++)
		all += key->kind == CONFIG_KIND_NUMBER;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const struct config_key *key = config_object_keys(places[i].object);

		for (; key->object == places[i].object; key++) {
			const uint64_t values[] = {key->min, key->max, key->min - 1, key->max + 1};

			if (key->kind != CONFIG_KIND_NUMBER)
				continue;
			seen++;
			if (key->fallback <= key->max) /* else another key stands in */
				assert_in_range(key->fallback, key->min, key->max);
			for (size_t j = 0; j < 4; j++) {
				snprintf(text, sizeof(text), "{%s\"%s\": %lld%s}", places[i].before,
				         key->name, (long long)values[j], places[i].after);
				if (values[j] > (uint64_t)INT64_MAX && j == 3)
					continue; /* no JSON integer of ours holds it */
				if (j < 2)
					config_free(load(text));
				else
					assert_refused(text, key->name);
			}
		}
	}
	assert_int_equal(seen, all);
}

static json_t *
with_environment(const char *text, char **environment, struct config_errors *errs)
{
	char *copy = strdup(text);
	json_t *root = config_text_parse("t", copy, strlen(copy), errs);

	free(copy);
	config_env_apply(root, environment, errs);
	return root;
}

static void
test_environment(void **state)
{
	char number[] = "TAILRACE_CONF__LIMITS__HEADERS=7";
	char truth[] = "TAILRACE_CONF__TRACE__RESPONSE_HEADER=false";
	char deep[] = "TAILRACE_CONF__LOG__ERROR__LEVEL=warn";
	char upstream[] = "TAILRACE_CONF__UPSTREAMS__MY_APP__MAX_CONNECTIONS=9";
	char server[] = "TAILRACE_CONF__UPSTREAMS__MY_APP__SERVERS__0__ADDRESS=127.0.0.1:77";
	char listener[] = "TAILRACE_CONF__LISTENERS__0__ADDRESS=127.0.0.1:66";
	char text[] = "TAILRACE_CONF__STORE__PATH=12";
	char other[] = "TAILRACE_TOKEN=x", unrelated[] = "PATH=/bin";
	char *environment[] = {number,   truth, deep,  upstream,  server,
	                       listener, text,  other, unrelated, NULL};
	struct config_errors errs = {0};
	json_t *root =
	    with_environment("{" HEAD ", " CONTROL ", \"upstreams\": {\"My_App\": {\"servers\":"
	                     "[\"127.0.0.1:1\"]}}}",
	                     environment, &errs);
	char *bytes = json_dumps(root, 0);
	struct config *config = load(bytes);

	(void)state;
	assert_int_equal(errs.count, 0);
	assert_int_equal(config->limits.headers, 7);
	assert_false(config->trace.response_header);
	assert_int_equal(config->log.level, LOG_LEVEL_WARN);
	assert_int_equal(config->upstreams[0].max_connections, 9);
	assert_string_equal(config->upstreams[0].servers[0].text, "127.0.0.1:77");
	assert_string_equal(config->listeners[0].text, "127.0.0.1:66");
	assert_string_equal(config->store.path, "12");
	config_free(config);
	free(bytes);
	json_decref(root);
}

static void
test_environment_unknown(void **state)
{
	static char names[][80] = {
	    "TAILRACE_CONF__=1",
	    "TAILRACE_CONF__FOO=1",
	    "TAILRACE_CONF__LIMITS=1",
	    "TAILRACE_CONF__LIMITS__FOO=1",
	    "TAILRACE_CONF__LIMITS__HEADERS__X=1",
	    "TAILRACE_CONF____HEADERS=1",
	    "TAILRACE_CONF__UPSTREAMS__NOBODY__RETRIES=1",
	    "TAILRACE_CONF__UPSTREAMS__APP=1",
	    "TAILRACE_CONF__UPSTREAMS__APP__SERVERS=127.0.0.1:1",
	    "TAILRACE_CONF__LISTENERS__1__ADDRESS=127.0.0.1:1",
	    "TAILRACE_CONF__LISTENERS__X__ADDRESS=127.0.0.1:1",
	};
	char *environment[sizeof(names) / sizeof(names[0]) + 1] = {0};
	size_t count = sizeof(names) / sizeof(names[0]);
	struct config_errors errs = {0};
	json_t *root;

	(void)state;
	for (size_t i = 0; i < count; i++)
		environment[i] = names[i];
	root = with_environment("{" BASE "}", environment, &errs);
	assert_int_equal(errs.count, count);
	for (size_t i = 0; i < count; i++) {
		*strchr(names[i], '=') = '\0';
		if (strstr(errs.lines[i], names[i]) == NULL)
			fail_msg("line %zu: %s", i, errs.lines[i]);
	}
	config_errors_free(&errs);
	json_decref(root);
}

/* What children get says the same as the file, also where names and the starter's environment
 * were needed. */
static void
test_bytes_for_children(void **state)
{
	char path[] = "/tmp/tailrace-unit-XXXXXX";
	const char *text =
	    "{\"listeners\": [{\"address\": \"localhost:8080\"}], \"upstreams\": {\"app\":"
	    "{\"servers\": [\"localhost:8000\", {\"address\": \"localhost:8001\"}]}}}";
	struct config_errors errs = {0};
	struct config *config, *again;
	int fd = mkstemp(path);
	size_t length;
	char *bytes;

	(void)state;
	setenv("XDG_RUNTIME_DIR", "/tmp", 1);
	setenv("HOME", "/tmp", 1);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(config_load_file(path, &config, &bytes, &length, &errs), 0);
	assert_int_equal(strlen(bytes), length);
	setenv("XDG_RUNTIME_DIR", "/elsewhere", 1);
	setenv("HOME", "/elsewhere", 1);
	assert_int_equal(config_load_bytes("bytes", bytes, length, &again, &errs), 0);
	assert_string_equal(again->store.path, config->store.path);
	assert_string_equal(again->control.listeners[0].text, config->control.listeners[0].text);
	assert_memory_equal(&again->upstreams[0].servers[1].address,
	                    &config->upstreams[0].servers[1].address, sizeof(struct net_address));
	assert_string_equal(again->upstreams[0].servers[0].text, "localhost:8000");
	assert_int_equal(again->upstreams[0].servers[0].weight, 1);
	config_free(again);
	/* A child starts while the name of a server has no address any more. */
	for (char *p; (p = strstr(bytes, "localhost")) != NULL;)
		memcpy(p, "no.inval.", 9);
	assert_int_equal(config_load_bytes("bytes", bytes, length, &again, &errs), 0);
	assert_memory_equal(&again->upstreams[0].servers[0].address,
	                    &config->upstreams[0].servers[0].address, sizeof(struct net_address));
	config_free(config);
	config_free(again);
	free(bytes);
	close(fd);
	unlink(path);
}

static void
test_file_cannot_be_read(void **state)
{
	struct config_errors errs = {0};
	struct config *config;
	size_t length;
	char *bytes;

	(void)state;
	assert_int_equal(config_load_file("/nonexistent/x", &config, &bytes, &length, &errs), -1);
	assert_string_equal(errs.lines[0],
	                    "/nonexistent/x: cannot be read: No such file or directory");
	config_errors_free(&errs);
	assert_int_equal(config_load_file("/dev/zero", &config, &bytes, &length, &errs), -1);
	assert_string_equal(errs.lines[0], "/dev/zero: longer than 1048576 bytes");
	config_errors_free(&errs);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_every_kind),
	    cmocka_unit_test(test_syntax_errors_have_places),
	    cmocka_unit_test(test_comments_keep_positions),
	    cmocka_unit_test(test_semantic_errors),
	    cmocka_unit_test(test_places_conflict),
	    cmocka_unit_test(test_later_keys),
	    cmocka_unit_test(test_all_errors_come_at_once),
	    cmocka_unit_test(test_errors_are_bounded),
	    cmocka_unit_test(test_lists_at_their_limits),
	    cmocka_unit_test(test_numbers_at_their_limits),
	    cmocka_unit_test(test_environment),
	    cmocka_unit_test(test_environment_unknown),
	    cmocka_unit_test(test_bytes_for_children),
	    cmocka_unit_test(test_file_cannot_be_read),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
