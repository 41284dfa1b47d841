/* The two-sided join of exchanges and profiles by (trace, span), either side first, in bounded
 * tables. Every profile ends in exactly one outcome (docs/protocol.md section 4; a long response's
 * parts are one profile, a part that is repeated or refused counts itself), every exchange is
 * handed on exactly once when it is joined or given up, and once before that where it is
 * provisional. Pure: `now_ns` is an argument. One thread. */
#ifndef TAILRACE_MODEL_CORRELATOR_H
#define TAILRACE_MODEL_CORRELATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/join.h"
#include "model/profile.h"
#include "model/record.h"

/* Bounds of the tables. Full: the oldest exchange is given up as `dropped`; batches of profiles are
 * answered 503; the oldest ended key is forgotten. */
#define CORRELATOR_EXCHANGES_MAX 65536
#define CORRELATOR_PROFILES_MAX 16384
#define CORRELATOR_PROFILE_BYTES_MAX (32u << 20) /* of all profiles held */
#define CORRELATOR_DONE_MAX 65536

#define CORRELATOR_ORPHAN_EXTRA_NS (10 * NS_PER_S) /* beyond the join timeout */
#define CORRELATOR_DONE_NS (60 * NS_PER_S)         /* how long an ended key is remembered */
#define CORRELATOR_OPEN_NS PROFILE_LIFE_MAX_NS     /* a provisional exchange that never ends */
#define CORRELATOR_HOOKED_NS (600 * NS_PER_S)      /* no join of a server for so long: no hook */

enum profile_outcome {
	PROFILE_JOINED,
	PROFILE_ORPHANED,
	PROFILE_SUPERSEDED,
	PROFILE_REPEATED,
	PROFILE_LATE,
	PROFILE_REFUSED,
	PROFILE_OUTCOME_COUNT
};
const char *profile_outcome_name(enum profile_outcome outcome);

/* Why an exchange has no profile. */
enum profile_missing {
	MISSING_NOT,     /* it has one */
	MISSING_PENDING, /* it may still come */
	MISSING_NO_HOOK, /* nothing was sent to the app, or its server has not joined a profile
	                    lately */
	MISSING_LATE,    /* none came in time */
	MISSING_DROPPED, /* the hook or a full table lost it */
	MISSING_REFUSED, /* one came that cannot be true */
};
const char *profile_missing_name(enum profile_missing missing); /* null for MISSING_NOT */

struct correlator_events {
	void *arg;
	/* An exchange is joined, given up, or shown provisionally (RECORD_PROVISIONAL set: the
	 * final one follows). `size` counts the text behind the record. `profile` and `join` are
	 * null without a profile. All borrowed until the return. */
	void (*exchange)(void *arg, const struct exchange_record *record, size_t size,
	                 const struct profile *profile, const struct join *join,
	                 enum profile_missing missing);
	/* A profile came after its exchange was handed on without one. */
	void (*late)(void *arg, const struct profile_key *key);
	/* The app has returned, for an exchange handed on with a profile. */
	void (*tail)(void *arg, const struct profile_key *key, uint64_t tail_ns);
};

struct correlator_options {
	uint64_t join_timeout_ns;
	size_t exchanges_max, profiles_max, profile_bytes_max, done_max;
	char boot_id[CLOCK_BOOT_ID_SIZE]; /* of the records' clock; "" = shared with nobody */
	uint64_t time_namespace;
	struct correlator_events events;
};

struct correlator_stats {
	uint64_t outcomes[PROFILE_OUTCOME_COUNT];
	uint64_t exchanges_displaced; /* given up early: table full */
	uint64_t done_displaced;      /* ended keys forgotten early */
	uint64_t records_repeated;    /* a final record whose key had ended already */
	size_t exchanges_waiting, exchanges_open, profiles_waiting, profile_bytes;
};

struct correlator;

struct correlator *correlator_new(const struct correlator_options *options); /* owned */
void correlator_free(struct correlator *correlator);

/* After a reload: the timeout of what comes from now on. `servers_moved`: indices of upstreams and
 * servers mean others than before, so which of them have hooks is learnt anew. */
void correlator_configure(struct correlator *correlator, uint64_t join_timeout_ns,
                          bool servers_moved);

/* An exchange's record with the text behind it (checked by record_text()); copied. */
void correlator_record(struct correlator *correlator, const struct exchange_record *record,
                       size_t size, uint64_t now_ns);

/* Whether a batch of `profiles` with `bytes` of memory can be taken now. */
bool correlator_has_room(const struct correlator *correlator, size_t profiles, size_t bytes);

/* One profile or part of one; taken over. */
void correlator_profile(struct correlator *correlator, struct profile *profile, uint64_t now_ns);

/* A profile of this key was refused by its own checks: counted; the exchange goes on waiting for a
 * true one. */
void correlator_refused(struct correlator *correlator, const struct profile_key *key);

void correlator_tail(struct correlator *correlator, const struct profile_key *key,
                     uint64_t tail_ns);

/* Some instance said that it lost profiles: exchanges that stay without one until now lost it
 * there. */
void correlator_lost(struct correlator *correlator, uint64_t now_ns);

/* Ends what is due, `budget` entries at most. Returns whether more is due. */
bool correlator_expire(struct correlator *correlator, uint64_t now_ns, size_t budget);

/* Ends everything: waiting exchanges are given up (those of long responses joined with the parts
 * that came). */
void correlator_finish(struct correlator *correlator, uint64_t now_ns);

/* Exchanges that have ended or are shown provisionally and wait, oldest first. `each` returns false
 * to stop. */
void correlator_each_waiting(const struct correlator *correlator,
                             bool (*each)(void *arg, const struct exchange_record *record,
                                          size_t size),
                             void *arg);

void correlator_stats(const struct correlator *correlator, struct correlator_stats *ret);

#endif
