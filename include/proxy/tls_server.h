/* The certificates of one listening socket, chosen by the name a client asks for; its tickets; the
 * authorities of its clients. Made at a process's start, then only read: any thread may use it. */
#ifndef TAILRACE_PROXY_TLS_SERVER_H
#define TAILRACE_PROXY_TLS_SERVER_H

#include <openssl/types.h>
#include "base/config.h"
#include "base/ticket_keys.h"

struct tls_server;

/* Reads the files: before rights are dropped. `tickets` (borrowed) null: no sessions are resumed.
 * Null where one cannot be used, which is logged with `place`; a certificate out of its dates is
 * only warned of, for a worker that starts again must serve. */
struct tls_server *tls_server_open(const struct config_tls *config,
                                   const struct ticket_keys *tickets, const char *place);

/* Another owner, who closes it too: what serves in its place does not end handshakes under way. */
struct tls_server *tls_server_share(struct tls_server *server); /* null-safe */
void tls_server_close(struct tls_server *server);               /* null-safe */

/* A new connection's, owned by the caller. Null when memory is short. */
SSL *tls_server_connection(const struct tls_server *server);

#endif
