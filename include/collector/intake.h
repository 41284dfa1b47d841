/* The consumer's end of all rings: records into the correlator, a bounded number a turn. One
 * thread. */
#ifndef TAILRACE_COLLECTOR_INTAKE_H
#define TAILRACE_COLLECTOR_INTAKE_H

#include <stdbool.h>
#include <stdint.h>
#include "collector/service.h"

#define INTAKE_POLL_MS 20
#define INTAKE_RECORDS_MAX 2000 /* of one ring in one turn */
#define INTAKE_EXPIRE_MAX 2000  /* ended joins in one turn */

/* `rings` is the mapping of board_rings_attach(). Owned. */
struct intake *intake_new(void *rings);
void intake_free(struct intake *intake);

/* One turn over all rings, and what is due in the correlator. Returns whether more is waiting. */
bool intake_poll(struct intake *intake, struct service *service, uint64_t now_ns);

/* Records dropped because a ring was full, since the rings were made. */
uint64_t intake_dropped(const struct intake *intake);

#endif
