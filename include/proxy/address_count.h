/* How many client connections each address has: limits.connections_per_address. One table per process, shared
 * by its threads; touched at accept and close only, and only where the limit is set. */
#ifndef TAILRACE_PROXY_ADDRESS_COUNT_H
#define TAILRACE_PROXY_ADDRESS_COUNT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/net.h"

/* One more connection of this address (IPv4 mapped into IPv6 is IPv4; of IPv6, the /64). False where it has
 * `max` already, or where memory is short: then nothing was counted. Unix peers are not limited. */
bool address_enter(const struct net_address *address, size_t max);

/* The end of a connection that entered. */
void address_leave(const struct net_address *address);

/* Addresses with a connection now. */
size_t address_count(void);

#endif
