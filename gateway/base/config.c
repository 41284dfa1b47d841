/* Loads a configuration: text, environment, reading, checking; and the bytes that children get. */
#include "base/config.h"

#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <unistd.h>
#include "base/config_check.h"
#include "base/config_env.h"
#include "base/config_errors.h"
#include "base/config_read.h"
#include "base/config_text.h"
#include "base/xmem.h"

bool
config_peers_match(const struct config_peers *peers, const struct net_address *peer)
{
	if (peers->mode != CONFIG_LIST)
		return peers->mode == CONFIG_ALWAYS;
	for (size_t i = 0; i < peers->cidr_count; i++)
		if (net_cidr_match(&peers->cidrs[i], peer))
			return true;
	return false;
}

/* Null where anything was wrong. */
static struct config *
build(const char *name, json_t *root, bool on_host, struct config_errors *errs)
{
	struct config_place place = {.file = name, .errs = errs};
	struct config *config = xcalloc(1, sizeof(*config));

	config_read(root, config, &place, !on_host);
	config_check(config, &place, on_host);
	if (errs->count == 0)
		return config;
	config_free(config);
	return NULL;
}

/* Replaces the address an object has, or is, by the numeric one. */
static void
fix_address(json_t *list, size_t index, const struct net_address *address)
{
	char text[NET_ADDRESS_TEXT_SIZE];
	json_t *item = json_array_get(list, index);

	net_address_format(address, text, sizeof(text));
	if (json_is_object(item))
		json_object_set_new(item, "address", json_string(text));
	else
		json_array_set_new(list, index, json_string(text));
}

/* Notes the numeric address ("": none yet) beside a server's name, which is looked up again. */
static void
note_address(json_t *list, size_t index, const struct config_server *server)
{
	char text[NET_ADDRESS_TEXT_SIZE] = "";
	json_t *item = json_array_get(list, index);
	struct net_address ignored;
	const char *why;

	if (net_address_parse(server->text, &ignored, &why) == 0)
		return;
	if (json_is_string(item)) {
		item = json_pack("{s:O}", "address", item);
		json_array_set_new(list, index, item);
	}
	if (server->address.length > 0)
		net_address_format(&server->address, text, sizeof(text));
	json_object_set_new(item, CONFIG_SETTLED_KEY, json_string(text));
}

static json_t *
section(json_t *root, const char *name)
{
	json_t *found = json_object_get(root, name);

	if (found == NULL) {
		found = json_object();
		json_object_set_new(root, name, found);
	}
	return found;
}

/* What depended on this moment (names of hosts, the starter's environment) is written down, so
 * that a child started hours later reads the same configuration. */
static void
settle(json_t *root, const struct config *config)
{
	json_t *list = json_object_get(root, "listeners");
	json_t *control = section(root, "control");

	for (size_t i = 0; i < config->listener_count; i++)
		fix_address(list, i, &config->listeners[i].address);
	for (size_t i = 0; i < config->upstream_count; i++) {
		const struct config_upstream *upstream = &config->upstreams[i];

		list = json_object_get(json_object_get(root, "upstreams"), upstream->name);
		list = json_object_get(list, "servers");
		for (size_t j = 0; j < upstream->server_count; j++)
			note_address(list, j, &upstream->servers[j]);
	}
	list = json_object_get(control, "listeners");
	if (json_array_size(list) == 0) {
		list = json_pack("[{}]");
		json_object_set_new(control, "listeners", list);
	}
	for (size_t i = 0; i < config->control.listener_count; i++)
		fix_address(list, i, &config->control.listeners[i].address);
	json_object_set_new(section(root, "store"), "path", json_string(config->store.path));
}

int
config_load_file(const char *path, struct config **ret, char **ret_bytes, size_t *ret_length,
                 struct config_errors *errs)
{
	size_t length;
	char *text = config_text_read(path, &length, errs), *bytes = NULL;
	json_t *root = text != NULL ? config_text_parse(path, text, length, errs) : NULL;
	struct config *config = NULL;

	free(text);
	if (root == NULL)
		return -1;
	config_env_apply(root, environ, errs);
	config = build(path, root, true, errs);
	if (config != NULL) {
		settle(root, config);
		bytes = json_dumps(root, JSON_COMPACT);
		if (bytes == NULL)
			fatal("out of memory (configuration)");
	}
	json_decref(root);
	if (config == NULL)
		return -1;
	*ret = config;
	*ret_bytes = bytes;
	*ret_length = strlen(bytes);
	return 0;
}

int
config_load_bytes(const char *name, const char *bytes, size_t length, struct config **ret,
                  struct config_errors *errs)
{
	char *text = xcalloc(length + 1, 1);
	json_t *root;

	memcpy(text, bytes, length);
	root = config_text_parse(name, text, length, errs);
	free(text);
	if (root == NULL)
		return -1;
	*ret = build(name, root, false, errs);
	json_decref(root);
	return *ret != NULL ? 0 : -1;
}

bool
config_same_servers(const struct config *a, const struct config *b)
{
	if (a->upstream_count != b->upstream_count)
		return false;
	for (size_t i = 0; i < a->upstream_count; i++) {
		const struct config_upstream *x = &a->upstreams[i], *y = &b->upstreams[i];

		if (x->server_count != y->server_count || strcmp(x->name, y->name) != 0)
			return false;
		for (size_t j = 0; j < x->server_count; j++)
			if (strcmp(x->servers[j].text, y->servers[j].text) != 0)
				return false;
	}
	return true;
}

static void
free_tls(struct config_tls *tls)
{
	for (size_t i = 0; i < tls->certificate_count; i++) {
		free(tls->certificates[i].certificate_file);
		free(tls->certificates[i].key_file);
	}
	free(tls->certificates);
	free(tls->client_ca_file);
}

static void
free_upstream(struct config_upstream *upstream)
{
	for (size_t i = 0; i < upstream->server_count; i++) {
		free(upstream->servers[i].text);
		free(upstream->servers[i].tls_name);
	}
	free(upstream->servers);
	free(upstream->tls.ca_file);
	free(upstream->tls.name);
	free(upstream->name);
	free(upstream->health.path);
}

static void
free_texts(char **texts)
{
	for (size_t i = 0; texts != NULL && texts[i] != NULL; i++)
		free(texts[i]);
	free(texts);
}

static void
free_alerts(struct config_alerts *alerts)
{
	for (size_t i = 0; i < alerts->rule_count; i++) {
		free(alerts->rules[i].name);
		free(alerts->rules[i].route);
		free_texts(alerts->rules[i].receivers);
	}
	free(alerts->rules);
	for (size_t i = 0; i < alerts->receiver_count; i++) {
		free(alerts->receivers[i].name);
		free(alerts->receivers[i].url);
		free(alerts->receivers[i].url_file);
		free(alerts->receivers[i].token_file);
		free(alerts->receivers[i].ca_file);
	}
	free(alerts->receivers);
	free(alerts->dashboard_url);
}

static void
free_route(struct config_route *route)
{
	free_texts(route->methods);
	free(route->name);
	free(route->host);
	free(route->path_prefix);
}

static void
free_listeners(struct config *config)
{
	for (size_t i = 0; i < config->listener_count; i++) {
		free(config->listeners[i].text);
		free(config->listeners[i].trusted_proxies.cidrs);
		free_tls(&config->listeners[i].tls);
	}
	free(config->listeners);
	for (size_t i = 0; i < config->control.listener_count; i++) {
		free(config->control.listeners[i].text);
		free(config->control.listeners[i].token_file);
		free(config->control.listeners[i].allow_users);
		free_tls(&config->control.listeners[i].tls);
	}
	free(config->control.listeners);
}

void
config_free(struct config *config)
{
	if (config == NULL)
		return;
	free_listeners(config);
	for (size_t i = 0; i < config->upstream_count; i++)
		free_upstream(&config->upstreams[i]);
	free(config->upstreams);
	for (size_t i = 0; i < config->route_count; i++)
		free_route(&config->routes[i]);
	free(config->routes);
	free_alerts(&config->alerts);
	for (size_t i = 0; i < config->error_page_count; i++) {
		free(config->error_pages[i].name);
		free(config->error_pages[i].file);
	}
	free(config->error_pages);
	free_texts(config->limits.trailers);
	free(config->trace.trust.cidrs);
	free(config->trace.server_timing.cidrs);
	free(config->profile.deep.token_file);
	free(config->store.path);
	free(config->log.error_path);
	free(config->log.access.path);
	free(config->process.user);
	free(config->process.group);
	free(config);
}

static bool
had_address(const struct config *config, const char *text)
{
	for (size_t i = 0; i < config->upstream_count; i++)
		for (size_t j = 0; j < config->upstreams[i].server_count; j++) {
			const struct config_server *server = &config->upstreams[i].servers[j];

			if (server->address.length > 0 && strcmp(server->text, text) == 0)
				return true;
		}
	return false;
}

size_t
config_check_names(const char *file, const struct config *config, const struct config *before,
                   struct config_errors *errs)
{
	size_t count = 0;

	for (size_t i = 0; i < config->upstream_count; i++)
		for (size_t j = 0; j < config->upstreams[i].server_count; j++) {
			const struct config_server *server = &config->upstreams[i].servers[j];

			if (server->address.length > 0 ||
			    (before != NULL && !had_address(before, server->text)))
				continue;
			config_errors_add(errs,
			                  "%s: /upstreams/%s/servers/%zu: found \"%s\", allowed: a "
			                  "name that can be resolved",
			                  file, config->upstreams[i].name, j, server->text);
			count++;
		}
	return count;
}
