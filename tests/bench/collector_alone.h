/* What the parts of collector_alone share: the collector made by hand and the exchanges fed to it.
 * One thread. */
#ifndef TAILRACE_BENCH_COLLECTOR_ALONE_H
#define TAILRACE_BENCH_COLLECTOR_ALONE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "collector/service.h"

#define BATCH 200 /* exchanges in one, at most */

extern struct service service;
extern uint64_t made; /* exchanges so far */

uint64_t cpu_ns(clockid_t clock);
uint64_t random_next(void);
/* The collector's wall clock: where wall_from_ns is set, it runs from there as if THROUGHPUT_PER_S
 * exchanges came a second. */
extern uint64_t wall_from_ns;
uint64_t wall_ns(void);
void tell_stacks(void);
/* A batch of `count`, the records before or after it. Returns the CPU time of taking both, ns. */
uint64_t feed(unsigned count, bool record_first);
/* What is due each second. Returns the CPU time of it, ns. */
uint64_t tick(void);
/* Prints the JSON object: `more` members and the counters. */
void report(const char *more);

void throughput(uint64_t exchanges);
/* Feeds that many exchanges a second from a timer and asks a question each 50 ms; reports. */
void hold(const char *path, uint64_t exchanges_per_s, uint64_t seconds);

#endif
