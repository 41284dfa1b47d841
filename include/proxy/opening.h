/* What a client connection may have to do before its first request: show a PROXY protocol header,
 * shake hands for TLS. Both together get limits.head_timeout_ms. */
#ifndef TAILRACE_PROXY_OPENING_H
#define TAILRACE_PROXY_OPENING_H

#include <stdint.h>

struct client;

enum opening { OPENING_NOTHING, OPENING_PROXY_HEADER, OPENING_HANDSHAKE };

/* The connection was accepted. Where it needs an opening it is CLIENT_OPENING (or gone) on return,
 * and client_opened() is called once it has done. */
void opening_begin(struct client *client, uint64_t now_ns);

void opening_readable(struct client *client);
void opening_writable(struct client *client);
void opening_late(struct client *client, uint64_t now_ns);

/* The connection goes, or has opened: nothing counts it as under way any more. Repeatable. */
void opening_end(struct client *client);

#endif
