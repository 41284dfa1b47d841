/* Checks of the TLS sections. */
#include "base/config_check_tls.h"

#include <stdio.h>
#include <string.h>
#include "base/pem.h"
#include "base/xmem.h"

/* Tells a fault of the key at `pointer`, which begins at the root. */
static void
fault_at(struct config_place *place, const char *pointer, const char *text)
{
	size_t before = place->length;

	snprintf(place->pointer, sizeof(place->pointer), "%s", pointer);
	place->length = strlen(place->pointer);
	config_place_error(place, "%s", text);
	config_place_pop(place, before);
}

/* One listener's files; `pointer` is that of its tls section. */
static void
check_files(const struct config_tls *tls, struct config_place *place, const char *pointer)
{
	char fault[PEM_FAULT_SIZE], below[160];

	for (size_t i = 0; i < tls->certificate_count; i++) {
		const struct config_certificate *own = &tls->certificates[i];

		if (own->certificate_file == NULL || own->key_file == NULL)
			continue; /* told already */
		snprintf(below, sizeof(below), "%s/certificates/%zu/certificate_file", pointer, i);
		if (pem_check_certificate(own->certificate_file, fault) != 0) {
			fault_at(place, below, fault);
			continue;
		}
		snprintf(below, sizeof(below), "%s/certificates/%zu/key_file", pointer, i);
		if (pem_check_key(own->key_file, own->certificate_file, fault) != 0)
			fault_at(place, below, fault);
	}
	snprintf(below, sizeof(below), "%s/client_ca_file", pointer);
	if (tls->client_ca_file != NULL && pem_check_authorities(tls->client_ca_file, fault) != 0)
		fault_at(place, below, fault);
}

/* The host of "host:port" or "[v6]:port", owned by the caller; null for a unix socket. */
static char *
host_of(const char *text)
{
	const char *colon = strrchr(text, ':');

	if (strncmp(text, "unix:", 5) == 0 || colon == NULL)
		return NULL;
	if (text[0] == '[' && colon > text + 1)
		return xstrndup(text + 1, (size_t)(colon - text) - 2);
	return xstrndup(text, (size_t)(colon - text));
}

static void
check_upstream(struct config_upstream *upstream, struct config_place *place, bool on_host)
{
	char fault[PEM_FAULT_SIZE], pointer[160];

	for (size_t i = 0; i < upstream->server_count; i++) {
		struct config_server *server = &upstream->servers[i];

		snprintf(pointer, sizeof(pointer), "/upstreams/%s/servers/%zu/tls_name",
		         upstream->name, i);
		if (!upstream->tls.on && server->tls_name != NULL)
			fault_at(place, pointer, "the upstream has no tls section");
		if (!upstream->tls.on || server->tls_name != NULL || server->text == NULL)
			continue;
		server->tls_name = upstream->tls.name != NULL ? xstrdup(upstream->tls.name)
		                                              : host_of(server->text);
		if (server->tls_name == NULL && upstream->tls.verify)
			fault_at(place, pointer,
			         "found nothing, allowed: the name its certificate must have (a "
			         "unix socket has none; or set tls.name)");
	}
	snprintf(pointer, sizeof(pointer), "/upstreams/%s/tls/ca_file", upstream->name);
	if (on_host && upstream->tls.ca_file != NULL &&
	    pem_check_authorities(upstream->tls.ca_file, fault) != 0)
		fault_at(place, pointer, fault);
}

void
config_check_tls(struct config *config, struct config_place *place, bool on_host)
{
	char pointer[80];

	for (size_t i = 0; on_host && i < config->listener_count; i++) {
		snprintf(pointer, sizeof(pointer), "/listeners/%zu/tls", i);
		check_files(&config->listeners[i].tls, place, pointer);
	}
	for (size_t i = 0; i < config->control.listener_count; i++) {
		const struct config_control_listener *own = &config->control.listeners[i];

		snprintf(pointer, sizeof(pointer), "/control/listeners/%zu/tls", i);
		if (own->tls.on && own->address.sa.sa_family == AF_UNIX)
			fault_at(place, pointer,
			         "a unix socket never leaves this machine: it has no TLS");
		if (on_host)
			check_files(&own->tls, place, pointer);
	}
	for (size_t i = 0; i < config->upstream_count; i++)
		check_upstream(&config->upstreams[i], place, on_host);
}
