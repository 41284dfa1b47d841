/* The store: one SQLite file (WAL) and the one thread that writes it, in transactions of at most a
 * quarter of a second. What does not fit the queue, or what the disk refuses, is dropped and
 * counted; nobody waits.
 *
 * THREADS: store_put_*() from one thread (the collector's loop), the rest from any. They meet the
 * writer in one mutex, which is not held while it writes; the database connection is the writer's
 * alone. */
#ifndef TAILRACE_COLLECTOR_STORE_H
#define TAILRACE_COLLECTOR_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "model/correlator.h"
#include "model/histogram.h"
#include "model/phase.h"
#include "model/profile.h"
#include "model/text.h"

#define STORE_QUEUE_MAX 16384             /* items */
#define STORE_QUEUE_BYTES_MAX (24u << 20) /* of their texts */
#define STORE_QUEUE_NOTES_EXTRA 4096      /* items that only notes may use */
#define STORE_BATCH_MAX 2000              /* items of a transaction */
#define STORE_BATCH_MS 200         /* a transaction begins at most so long after its first item */
#define STORE_RETRY_MS 5000        /* between attempts to open a file that did not open */
#define STORE_PINS_MAX 10000       /* exchanges that are kept because something cites them */
#define STORE_FINE_S (2 * 3600)    /* how long windows stay as they were */
#define STORE_MINUTE_S (48 * 3600) /* how long minutes stay; then hours, until max_age_hours */

struct store;
struct store_note;

struct store_options {
	const char *path; /* borrowed for the store's life */
	uint64_t max_bytes;
	uint32_t max_age_hours; /* 0 = no limit */
	size_t queue_max, queue_bytes_max;
};

struct store_stats {
	uint64_t exchanges_written;
	uint64_t dropped_full;               /* items: the queue was full */
	uint64_t dropped_error;              /* items: the file could not be written or opened */
	uint64_t evicted_bytes, evicted_age; /* exchanges */
	uint64_t evicted_retention; /* exchanges others of their window took the place of */
	uint64_t evicted_rollups;   /* spans of rollups deleted for want of room */
	uint64_t aged_early;        /* spans made coarser before their time, likewise */
	uint64_t pins_refused;      /* STORE_PINS_MAX are pinned */
	uint64_t rollups_damaged;   /* chunks that could not be read */
	uint64_t rollup_bytes;      /* of all rollups */
	uint64_t damaged;           /* files found damaged, and left alone */
	uint64_t file_bytes;        /* database pages, without the WAL */
	size_t queued;
	bool writable; /* the file is open, and the last transaction was committed */
};

/* One exchange to keep. */
struct store_exchange {
	struct profile_key key;
	size_t route;           /* index of the collector's route table */
	const char *route_name; /* borrowed for the store's life */
	uint64_t start_wall_ns, total_ns;
	uint16_t status;
	bool provisional, has_tail;
	bool replaces; /* the same exchange may be there in its provisional form */
	uint64_t tail_ns;
	enum profile_missing missing;
	struct text body; /* the API's JSON of it; copied */
};

/* What one route did in one minute, or a part of that; added to what the file holds. */
struct store_sums {
	uint64_t minute; /* since the Unix epoch */
	size_t route;
	const char *route_name; /* borrowed for the store's life */
	uint64_t requests, errors, sent, joined;
	uint64_t phases_ns[PHASE_COUNT];
};

struct store_minute {
	struct store_sums sums;
	struct histogram total;
};

/* Windows of one route in one minute, to be added to what the file has of it. */
struct store_rollup {
	size_t route;
	const char *route_name; /* borrowed for the store's life */
	uint64_t start_s;       /* of the minute */
	struct text body;       /* a chunk of model/rollup.h; copied */
};

/* Before rights are dropped: makes the file's folder and gives folder (where made here) and files
 * to `uid` and `gid` ((uid_t)-1 = keep). Failures are logged; opening tells. */
void store_prepare(const char *path, uid_t uid, gid_t gid);

struct store *store_start(const struct store_options *options);

/* Writes what is queued, commits, ends the thread, closes the file. */
void store_stop(struct store *store);

void store_put_exchange(struct store *store, const struct store_exchange *exchange);
void store_put_minute(struct store *store, const struct store_minute *minute);
void store_put_late(struct store *store, const struct profile_key *key);
void store_put_tail(struct store *store, const struct profile_key *key, uint64_t tail_ns);

/* Takes an exchange away: others took its place. One that is pinned stays. */
void store_put_drop(struct store *store, const struct profile_key *key);

/* Pins an exchange: it outlives all others until it is unpinned or too old. It may be pinned before
 * it is written. */
void store_put_pin(struct store *store, const struct profile_key *key, bool pinned);

void store_put_rollup(struct store *store, const struct store_rollup *rollup);

/* Stacks that rollups name: JSON arrays of frames, a NUL behind each. Copied. */
void store_put_stacks(struct store *store, const struct text *stacks);
/* A note of alerting; takes over what it owns. Notes have more room in the queue than the rest, so
 * that busy traffic does not cost an alert. */
void store_put_note(struct store *store, struct store_note *note);
/* After a reload. */
void store_set_limits(struct store *store, uint64_t max_bytes, uint32_t max_age_hours);

/* The detail of a request, copied; null: it is gone, which says nothing where some is there. */
void store_put_detail(struct store *store, const struct profile_key *key,
                      const struct text *detail);

/* Waits until what was put before is committed or dropped, `timeout_ms` at most. Any thread but the
 * loop's. */
void store_sync(struct store *store, uint32_t timeout_ms);

/* Until store_thaw() nothing is committed: what a transaction of a reader's that begins meanwhile
 * sees, and what is not written, are everything, each once. Waits at most `timeout_ms` for a commit
 * that runs; false: nothing is held up. Not for long, and not from the loop. */
bool store_freeze(struct store *store, uint32_t timeout_ms);
void store_thaw(struct store *store);

/* What was put and is not committed yet, in order. `each` must be quick: nothing can be put
 * meanwhile. Any thread. */
struct store_item;
void store_each_unwritten(struct store *store,
                          void (*each)(void *arg, const struct store_item *item), void *arg);

void store_stats(struct store *store, struct store_stats *ret);

/* Minutes of route_minutes that were written or taken away. */
struct store_changes {
	uint64_t written_from; /* the earliest written one; UINT64_MAX = none */
	uint64_t aged_to;      /* those before may be gone, or hours now; 0 = none */
};

/* Since the last call; for one caller. */
struct store_changes store_take_changes(struct store *store);

/* The index of the route that has this ID in the file; SIZE_MAX where nothing of it was written yet
 * since the start. */
size_t store_route_index(struct store *store, int64_t id);

/* The store's ID of a route of the collector's table; 0 where it has none yet. Any thread. */
int64_t store_route_id(struct store *store, size_t index);

#endif
