/* All TLS contexts of a worker, shared by its threads. */
#ifndef TAILRACE_PROXY_TLS_CONTEXTS_H
#define TAILRACE_PROXY_TLS_CONTEXTS_H

#include "base/config.h"
#include "base/ticket_keys.h"

struct tls_client;
struct tls_server;

struct tls_contexts {
	const struct config *config;
	struct tls_server **listeners; /* as config->listeners; null where one is in clear */
	struct tls_client **upstreams; /* as config->upstreams, likewise */
};

/* Reads certificates, keys and authorities: before rights are dropped. Null where one cannot be
 * used (logged). `tickets` is borrowed. */
struct tls_contexts *tls_contexts_open(const struct config *config,
                                       const struct ticket_keys *tickets);
void tls_contexts_close(struct tls_contexts *contexts); /* null-safe; after the last connection */

/* Of one listener or upstream of the config; null where it is in clear. */
struct tls_server *tls_contexts_listener(const struct tls_contexts *contexts,
                                         const struct config_listener *listener);
struct tls_client *tls_contexts_upstream(const struct tls_contexts *contexts,
                                         const struct config_upstream *upstream);

#endif
