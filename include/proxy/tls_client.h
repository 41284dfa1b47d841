/* TLS towards the servers of one upstream: authorities, names, sessions to go on with. Any thread:
 * sessions are behind a mutex that only new connections take. */
#ifndef TAILRACE_PROXY_TLS_CLIENT_H
#define TAILRACE_PROXY_TLS_CLIENT_H

#include <openssl/types.h>
#include "base/config.h"

struct tls_client;

/* Reads the authorities: before rights are dropped. Null where they cannot be used (logged). */
struct tls_client *tls_client_open(const struct config_upstream *upstream);
void tls_client_close(struct tls_client *client); /* null-safe */

/* For a new connection to server `index` of the upstream, owned by the caller: asks for its name,
 * expects it in the certificate, offers the newest session. Null when memory is short. */
SSL *tls_client_connection(struct tls_client *client, size_t index);

#endif
