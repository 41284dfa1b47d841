/* TLS contexts by listener and upstream. */
#include "proxy/tls_contexts.h"

#include <stdlib.h>
#include "base/xmem.h"
#include "proxy/tls_client.h"
#include "proxy/tls_server.h"

struct tls_contexts *
tls_contexts_open(const struct config *config, const struct ticket_keys *tickets)
{
	struct tls_contexts *contexts = xcalloc(1, sizeof *contexts);
	bool good = true;

	contexts->config = config;
	contexts->listeners = xcalloc(config->listener_count, sizeof(struct tls_server *));
	contexts->upstreams = xcalloc(config->upstream_count, sizeof(struct tls_client *));
	for (size_t i = 0; i < config->listener_count; i++) {
		const struct config_listener *own = &config->listeners[i];

		if (own->tls.on)
			contexts->listeners[i] = tls_server_open(&own->tls, tickets, own->text);
		good = good && (!own->tls.on || contexts->listeners[i]);
	}
	for (size_t i = 0; i < config->upstream_count; i++) {
		if (config->upstreams[i].tls.on)
			contexts->upstreams[i] = tls_client_open(&config->upstreams[i]);
		good = good && (!config->upstreams[i].tls.on || contexts->upstreams[i]);
	}
	if (good)
		return contexts;
	tls_contexts_close(contexts);
	return NULL;
}

void
tls_contexts_close(struct tls_contexts *contexts)
{
	if (!contexts)
		return;
	for (size_t i = 0; i < contexts->config->listener_count; i++)
		tls_server_close(contexts->listeners[i]);
	for (size_t i = 0; i < contexts->config->upstream_count; i++)
		tls_client_close(contexts->upstreams[i]);
	free(contexts->listeners);
	free(contexts->upstreams);
	free(contexts);
}

struct tls_server *
tls_contexts_listener(const struct tls_contexts *contexts, const struct config_listener *listener)
{
	return contexts ? contexts->listeners[listener - contexts->config->listeners] : NULL;
}

struct tls_client *
tls_contexts_upstream(const struct tls_contexts *contexts, const struct config_upstream *upstream)
{
	return contexts ? contexts->upstreams[upstream - contexts->config->upstreams] : NULL;
}
