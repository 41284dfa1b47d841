/* The control listeners: evhttp behind its guard, who may ask what, and the table of endpoints.
 * Loop's thread. */
#ifndef TAILRACE_COLLECTOR_CONTROL_H
#define TAILRACE_COLLECTOR_CONTROL_H

#include "collector/service.h"

#define CONTROL_LISTENERS_MAX 64
#define CONTROL_HEADERS_MAX 16384 /* bytes */
/* Bodies over PROFILE_BODY_MAX are refused by ingest up to here, beyond by evhttp, unread. */
#define CONTROL_BODY_MAX (2u << 20)
#define CONTROL_TIMEOUT_S 10   /* without a byte */
#define CONTROL_TOKEN_MAX 4096 /* bytes of a token file */

struct event_base;
struct control;

/* Before rights are dropped: reads token files, certificates and keys. One that cannot be read is fatal: a
 * listener without its fence is never opened. `service` need not be filled yet. */
struct control *control_new(const struct config *config, struct service *service);

/* Begins to answer on `count` inherited sockets, one per config->control.listeners entry. */
void control_start(struct control *control, struct event_base *base, const int *fds, size_t count);

/* After a reload: `fds` are the sockets of the new configuration's control listeners, taken over.
 * Those served already go on being served, under the new rules; new ones begin; the rest accepts
 * no more. A rule that cannot be read (its token is for others' eyes now that rights are dropped)
 * is logged: an old listener keeps its old rule, a new one is not opened. */
void control_reconfigure(struct control *control, const struct config *config, const int *fds,
                         size_t count);

/* At every turn of the intake. */
void control_tick(struct control *control, uint64_t now_ns);

/* Accepts no more connections; those that are open are answered on. */
void control_close_listeners(struct control *control);

size_t control_connections(const struct control *control);

/* After the query thread has ended: closes all connections. Null-safe. */
void control_free(struct control *control);

#endif
