/* The consumer's end of all rings: records into the correlator, a bounded number a turn. One
 * thread. */
#ifndef TAILRACE_COLLECTOR_INTAKE_H
#define TAILRACE_COLLECTOR_INTAKE_H

#include <stdbool.h>
#include <stdint.h>
#include "collector/service.h"

#define INTAKE_PAUSE_MAX_US 20000
#define INTAKE_PAUSE_MIN_US 1000
#define INTAKE_RECORDS_AIM 64   /* of all rings in one turn: about 0.1 ms of a core */
#define INTAKE_RECORDS_MAX 2000 /* of one ring in one turn */
#define INTAKE_EXPIRE_MAX 2000  /* ended joins in one turn */

/* `rings` is the mapping of board_rings_attach(). Owned. */
struct intake *intake_new(void *rings);
void intake_free(struct intake *intake);

/* One turn over all rings, and what is due in the correlator. Returns whether more is waiting. */
bool intake_poll(struct intake *intake, struct service *service, uint64_t now_ns);

/* Microseconds until the next turn, after one that read `records` in `elapsed_us` since the one
 * before: as long as INTAKE_RECORDS_AIM of them take to come. What a turn reads at once keeps a core
 * from whoever else wants it, on a host of few cores from the requests themselves: a thousand
 * records every 20 ms were their p99. Pure. */
unsigned intake_pause_us(uint64_t records, uint64_t elapsed_us);

/* Records dropped because a ring was full, since the rings were made. */
uint64_t intake_dropped(const struct intake *intake);

#endif
