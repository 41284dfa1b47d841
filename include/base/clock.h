/* The one place that reads time. Marks are taken right after the system call that made the fact
 * true; libevent's cached clock is coarse and never used for them. Any thread. */
#ifndef TAILRACE_BASE_CLOCK_H
#define TAILRACE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull

/* CLOCK_MONOTONIC: the same clock as Python's time.monotonic_ns() in one time namespace. */
uint64_t clock_now_ns(void);

/* CLOCK_REALTIME, nanoseconds since the Unix epoch. For display and X-Request-Start only. */
uint64_t clock_wall_ns(void);

/* CLOCK_BOOTTIME: as CLOCK_MONOTONIC, and goes on while the machine sleeps. */
uint64_t clock_boot_ns(void);

/* RFC 3339 in UTC with nine decimals, "2026-11-23T10:00:00.000000001Z". `size` >= 31. */
void clock_format(uint64_t wall_ns, char *buf, size_t size);

/* Identity of CLOCK_MONOTONIC: the kernel's boot ID (36 characters) and the inode of the process's
 * time namespace. Two processes that agree on both read the same clock. Returns 0, or -1 when
 * /proc does not tell (then the clock is shared with nobody). */
#define CLOCK_BOOT_ID_SIZE 37
int clock_identity(char boot_id[CLOCK_BOOT_ID_SIZE], uint64_t *ret_time_namespace);

#endif
