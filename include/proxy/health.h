/* Active health checks: asks every address of the groups that want it, on the loop of one thread; what it
 * finds all threads see (group_set_down). */
#ifndef TAILRACE_PROXY_HEALTH_H
#define TAILRACE_PROXY_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/config.h"

struct check;
struct loop;

struct health {
	struct loop *loop;
	struct check *checks; /* one per endpoint of a group with health.path */
	size_t count;
};

/* Outcomes in a row of one address. Zeroed: up. */
struct verdict {
	uint32_t good, bad; /* in a row; one of them is 0 */
	bool down;
};

/* Adds an outcome. Returns whether `down` changed: after `rise` good ones, or `fall` bad ones, in a row. */
bool verdict_add(struct verdict *verdict, const struct config_health *config, bool good);

/* The loop's thread, or before it runs. The first checks are spread over an interval. */
void health_start(struct health *health, struct loop *loop);
void health_stop(struct health *health);

#endif
