/* Looks the names of servers up again and again, in a thread of its own, since that may block. */
#ifndef TAILRACE_PROXY_RESOLVER_H
#define TAILRACE_PROXY_RESOLVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include "proxy/group.h"

#define RESOLVER_RETRY_NS \
	NS_PER_S /* of names that had no answer yet, where interval is longer or 0 */
#define RESOLVER_STOP_NS (200 * NS_PER_MS)

/* As net_address_lookup(). */
typedef int resolver_lookup(const char *text, struct net_address *ret, size_t max,
                            const char **reterr);

/* What is known of a group's names. */
struct resolver_group {
	struct group *group;
	uint64_t due_ns;                   /* of the next look; UINT64_MAX = never again */
	bool answered[CONFIG_SERVERS_MAX]; /* had an answer once */
	bool failing[CONFIG_SERVERS_MAX];  /* had none the last time, which was logged */
};

struct resolver {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool running, stop, ended; /* stop, ended: mutex */
	struct resolver_group *groups;
	size_t group_count;
	resolver_lookup *lookup;
};

/* Looks up every name of a group once: a name without an answer keeps the addresses it has. Sets due_ns. */
void resolver_look(struct resolver_group *own, resolver_lookup *lookup, uint64_t now_ns);

/* Starts the thread where a group has names. `groups` must stay until resolver_stop() returned true. */
void resolver_start(struct resolver *resolver, struct group *groups, size_t count,
                    resolver_lookup *lookup);

/* Ends the thread. False where it is within a lookup that does not end: it is left behind, and the process
 * should end soon. */
bool resolver_stop(struct resolver *resolver);

#endif
