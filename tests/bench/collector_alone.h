/* What the parts of collector_alone share. One thread. */
#ifndef TAILRACE_BENCH_COLLECTOR_ALONE_H
#define TAILRACE_BENCH_COLLECTOR_ALONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include "base/clock.h"
#include "model/record.h"

#define BATCH 200 /* exchanges in one, at most */

/* --- the input: routes with `rows` rows each, whose stacks have `frames` frames ---------- */
extern unsigned routes, rows, frames;
extern char boot_id[CLOCK_BOOT_ID_SIZE]; /* as clock_identity() */
extern uint64_t time_namespace;
extern uint64_t made; /* exchanges so far */

/* Who takes it. */
struct input_taker {
	void (*batch)(const char *json, size_t length); /* as a hook posts it */
	void (*record)(const struct exchange_record *record, size_t size);
};

uint64_t random_next(void);
/* Whose frame `k` of a stack is. */
unsigned whose(unsigned stack, unsigned k);
void tell_stacks(const struct input_taker *taker);
/* A batch of `count`, the records before or after it. Returns the CPU time of taking both, ns. */
uint64_t feed(const struct input_taker *taker, unsigned count, bool record_first);

/* --- collector_alone: the collector's parts, made by hand ---------------------------------- */
uint64_t cpu_ns(clockid_t clock);
/* The collector's wall clock: where wall_from_ns is set, it runs from there as if THROUGHPUT_PER_S
 * exchanges came a second. */
extern uint64_t wall_from_ns;
uint64_t wall_ns(void);

/* --- collector_hold: the collector's own process, at a rate, with questions beside it --------- */
int hold(const char *path, uint64_t exchanges_per_s, uint64_t seconds);

#endif
