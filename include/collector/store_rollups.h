/* Rollups in the store's file: put minute by minute, made coarser with age. Sums survive every step.
 * Writer thread. */
#ifndef TAILRACE_COLLECTOR_STORE_ROLLUPS_H
#define TAILRACE_COLLECTOR_STORE_ROLLUPS_H

#include <stdbool.h>
#include <stdint.h>
#include "collector/store_file.h"

/* How fine a row of `rollups` is. */
enum store_level {
	STORE_FINE,   /* the windows of one minute as they were */
	STORE_MINUTE, /* one minute */
	STORE_HOUR,   /* one hour */
};

/* Write one item within a transaction. Each returns SQLITE_OK or SQLite's error. */
int store_rollups_put(struct store_file *file, const struct store_rollup *rollup);
int store_rollups_stacks(struct store_file *file, const char *stacks, size_t size, uint64_t now_s);

/* Makes coarser what is due, a bounded number of spans in one transaction; forgets hours begun
 * before `before_s` and stacks and pins not used since. *ret_more: there is more to do. */
int store_rollups_age(struct store_file *file, uint64_t now_s, uint64_t before_s,
                      struct store_stats *stats, bool *ret_more);

/* The file is too large: makes some of the oldest spans coarser before their time, or deletes the
 * oldest hours. *ret_more: there was something to do. */
int store_rollups_press(struct store_file *file, struct store_stats *stats, bool *ret_more);

#endif
