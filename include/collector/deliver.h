/* Alerts to receivers: at least once, in order per incident, retried with back-off and jitter. The
 * outbox is in memory and, through the store, on disk: what was not delivered before a restart is
 * delivered after it, under the same idempotency key (incident, status, revision), which webhooks
 * get as the header Idempotency-Key. HTTPS is verified. Bounded: DELIVER_ITEMS_MAX; beyond, the
 * oldest goes and is counted.
 *
 * THREADS: everything but the delivery thread itself (libcurl) is called on the loop's thread; they
 * meet in one mutex. The delivery thread takes finished items out of the store's outbox. */
#ifndef TAILRACE_COLLECTOR_DELIVER_H
#define TAILRACE_COLLECTOR_DELIVER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/config.h"

#define DELIVER_ITEMS_MAX 1000
#define DELIVER_AGE_MAX_S (7 * 86400) /* older ones are given up */
#define DELIVER_BAD_AGE_MAX_S 86400   /* those that a receiver calls bad, sooner */
#define DELIVER_BACKOFF_FIRST_MS 1000
#define DELIVER_BACKOFF_MAX_MS 60000
#define DELIVER_STOP_MS 2000 /* what is on its way may still arrive */

struct deliver;
struct store;

struct deliver_stats {
	uint64_t delivered, failed, dropped_full, dropped_age;
};

/* Before rights are dropped: reads the files with addresses, tokens and certificates. Fatal where
 * one cannot be read. Owned. */
struct deliver *deliver_new(const struct config *config);

/* Takes up what the store's file at `path` holds and starts the thread. */
void deliver_start(struct deliver *deliver, struct store *store, const char *path);

/* Waits DELIVER_STOP_MS for what is on its way, and ends the thread. The rest stays on disk. */
void deliver_stop(struct deliver *deliver);
void deliver_free(struct deliver *deliver); /* null-safe */

/* A revision of an incident for these receivers (null-terminated names; null = all). `minor`: chats
 * and logs are not told. */
void deliver_publish(struct deliver *deliver, const json_t *payload, bool minor,
                     char *const *receivers);

/* Tells Alertmanagers again; not kept on disk, and only one of an incident waits. */
void deliver_repeat(struct deliver *deliver, const json_t *payload, char *const *receivers);

/* Figures of receiver `index` of the configuration. */
void deliver_stats(struct deliver *deliver, size_t index, struct deliver_stats *ret);
size_t deliver_waiting(struct deliver *deliver);

#endif
