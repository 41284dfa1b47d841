/* The access log: records in, lines of a file out, on a thread of its own behind a bounded queue.
 * A slow or full disk costs lines, which are counted, and nothing else. */
#ifndef TAILRACE_COLLECTOR_ACCESS_LOG_H
#define TAILRACE_COLLECTOR_ACCESS_LOG_H

#include <stddef.h>
#include <stdint.h>
#include "base/config.h"
#include "model/access_line.h"

#define ACCESS_LOG_QUEUE_BYTES (4u << 20) /* of records that wait; one beyond is dropped */
#define ACCESS_LOG_STOP_MS 3000           /* how long the end waits for a disk that stands still */

struct access_log_stats {
	uint64_t written;      /* lines */
	uint64_t dropped_full; /* the queue was full */
	uint64_t dropped_file; /* the file could not be written (full disk, closed pipe) */
};

struct access_log;

/* Opens `path` (made with mode 0640 where there is none; "-" = standard output) and starts the
 * thread. Null where it cannot be opened (errno). */
struct access_log *access_log_start(const char *path, enum config_access_format format);

/* Queues one final record of `size` bytes, text included (checked by record_text()); everything is
 * copied. Never waits for the disk. One thread at a time, as all below; null-safe, as all below. */
void access_log_put(struct access_log *log, const struct exchange_record *record, size_t size,
                    const struct access_names *names);

/* Opens the file anew by its name, on the log's thread; where that fails, the old one stays. */
void access_log_reopen(struct access_log *log);

void access_log_stats(const struct access_log *log, struct access_log_stats *ret);

/* Writes what is queued and ends the thread; what a disk has not taken after ACCESS_LOG_STOP_MS is
 * given up. */
void access_log_stop(struct access_log *log);

#endif
