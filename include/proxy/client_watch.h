/* Deadlines of a busy client: its head, its body and their rate, the answer it takes; and whether it is still
 * there while we do not read it. */
#ifndef TAILRACE_PROXY_CLIENT_WATCH_H
#define TAILRACE_PROXY_CLIENT_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct client;

/* Sets the timer to the nearest deadline of a busy client. */
void client_watch(struct client *client, uint64_t now_ns);

/* The timer fired. The exchange may be over on return. */
void client_watch_late(struct client *client, uint64_t now_ns);

/* The queue waits for the client; `begun`: from now on. Asks what the kernel still holds for it. */
void client_watch_kernel(struct client *client, bool begun);

#endif
