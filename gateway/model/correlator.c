/* The two-sided join: one hash of keys, one list per state in the order of falling due. */
#include <stdlib.h>
#include <string.h>
#include "base/config.h"
#include "base/xmem.h"
#include "model/correlator.h"
#include <uthash.h>
#include <utlist.h>

enum entry_state {
	ENTRY_EXCHANGE, /* an ended exchange waits for its profile, or for the last part of it */
	ENTRY_OPEN,     /* a provisional exchange waits for its end; parts may be here already */
	ENTRY_PROFILE,  /* a profile waits for its exchange */
	ENTRY_DONE,     /* remembered, to know what comes twice or late */
	ENTRY_STATES
};

enum entry_done { DONE_JOINED, DONE_GIVEN_UP, DONE_SUPERSEDED };

struct entry {
	UT_hash_handle hh;
	struct entry *prev, *next; /* list of its state, due first first */
	struct profile_key key;
	uint8_t state, done; /* enum entry_state, enum entry_done */
	bool refused;        /* a profile of this key was refused */
	uint32_t parts;      /* ENTRY_DONE: parts of the profile that were taken */
	uint64_t due_ns;
	struct exchange_record
	    *record; /* owned, with its text; null on ENTRY_PROFILE, ENTRY_DONE */
	size_t record_size;
	struct profile *profile; /* owned, or null */
};

struct correlator {
	struct correlator_options options;
	struct correlator_stats stats;
	struct entry *by_key; /* uthash head; owns the entries */
	struct entry *lists[ENTRY_STATES];
	size_t counts[ENTRY_STATES];
	uint64_t lost_ns; /* last time an instance said that it lost profiles; 0 = never */
	uint64_t hooked_ns[CONFIG_UPSTREAMS_MAX][CONFIG_SERVERS_MAX]; /* last join; 0 = never */
};

const char *
profile_outcome_name(enum profile_outcome outcome)
{
	static const char *const names[PROFILE_OUTCOME_COUNT] = {
	    "joined", "orphaned", "superseded", "repeated", "late", "refused"};
	return outcome < PROFILE_OUTCOME_COUNT ? names[outcome] : "unknown";
}

const char *
profile_missing_name(enum profile_missing missing)
{
	static const char *const names[] = {NULL,   "pending", "no_hook",
	                                    "late", "dropped", "refused"};
	return missing <= MISSING_REFUSED ? names[missing] : "late";
}

/* --- entries ------------------------------------------------------------------- */

static struct entry *
entry_find(const struct correlator *c, const struct profile_key *key)
{
	struct entry *entry;
	HASH_FIND(hh, c->by_key, key, sizeof(*key), entry);
	return entry;
}

static void
entry_list(struct correlator *c, struct entry *entry, enum entry_state state, uint64_t due_ns)
{
	entry->state = state;
	entry->due_ns = due_ns;
	DL_APPEND(c->lists[state], entry);
	c->counts[state]++;
}

static void
entry_unlist(struct correlator *c, struct entry *entry)
{
	DL_DELETE(c->lists[entry->state], entry);
	c->counts[entry->state]--;
}

static void
entry_move(struct correlator *c, struct entry *entry, enum entry_state state, uint64_t due_ns)
{
	entry_unlist(c, entry);
	entry_list(c, entry, state, due_ns);
}

static struct entry *
entry_new(struct correlator *c, const struct profile_key *key, enum entry_state state,
          uint64_t due_ns)
{
	struct entry *entry = xcalloc(1, sizeof(*entry));
	entry->key = *key;
	HASH_ADD(hh, c->by_key, key, sizeof(entry->key), entry);
	entry_list(c, entry, state, due_ns);
	return entry;
}

static void
profile_set(struct correlator *c, struct entry *entry, struct profile *profile)
{
	if (entry->profile != NULL)
		c->stats.profile_bytes -= entry->profile->bytes;
	if (profile != entry->profile)
		profile_free(entry->profile);
	entry->profile = profile;
	if (profile != NULL)
		c->stats.profile_bytes += profile->bytes;
}

static void
record_set(struct entry *entry, const struct exchange_record *record, size_t size)
{
	free(entry->record);
	entry->record = NULL;
	entry->record_size = size;
	if (record == NULL)
		return;
	entry->record = xcalloc(1, size);
	memcpy(entry->record, record, size);
}

static void
entry_free(struct correlator *c, struct entry *entry)
{
	entry_unlist(c, entry);
	HASH_DEL(c->by_key, entry);
	profile_set(c, entry, NULL);
	free(entry->record);
	free(entry);
}

static void
count(struct correlator *c, enum profile_outcome outcome)
{
	c->stats.outcomes[outcome]++;
}

/* The entry lets go of what it held and only remembers how it ended. */
static void
entry_done(struct correlator *c, struct entry *entry, enum entry_done done, uint64_t now_ns)
{
	entry->parts = entry->profile != NULL ? entry->profile->parts : 0;
	profile_set(c, entry, NULL);
	record_set(entry, NULL, 0);
	entry->done = (uint8_t)done;
	entry_move(c, entry, ENTRY_DONE, now_ns + CORRELATOR_DONE_NS);
	if (c->counts[ENTRY_DONE] > c->options.done_max) {
		entry_free(c, c->lists[ENTRY_DONE]);
		c->stats.done_displaced++;
	}
}

struct correlator *
correlator_new(const struct correlator_options *options)
{
	struct correlator *c = xcalloc(1, sizeof(*c));
	c->options = *options;
	return c;
}

void
correlator_free(struct correlator *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < ENTRY_STATES; i++)
		while (c->lists[i] != NULL)
			entry_free(c, c->lists[i]);
	free(c);
}

/* --- handing on ------------------------------------------------------------------ */

static void
emit(struct correlator *c, const struct exchange_record *record, size_t size,
     const struct profile *profile, const struct join *join, enum profile_missing missing)
{
	c->options.events.exchange(c->options.events.arg, record, size, profile, join, missing);
}

static uint64_t *
hooked(struct correlator *c, const struct exchange_record *record)
{
	if (record->upstream >= CONFIG_UPSTREAMS_MAX || record->server >= CONFIG_SERVERS_MAX)
		return NULL;
	return &c->hooked_ns[record->upstream][record->server];
}

static enum profile_missing
why_missing(struct correlator *c, const struct entry *entry, uint64_t now_ns)
{
	if (entry->refused)
		return MISSING_REFUSED;
	const uint64_t *last_ns = hooked(c, entry->record);
	if (last_ns == NULL || *last_ns == 0 || now_ns - *last_ns > CORRELATOR_HOOKED_NS)
		return MISSING_NO_HOOK;
	return c->lost_ns > entry->record->marks_ns[MARK_START] ? MISSING_DROPPED : MISSING_LATE;
}

/* Of an exchange given up early for want of room. */
static enum profile_missing
why_displaced(struct correlator *c, const struct entry *entry, uint64_t now_ns)
{
	enum profile_missing why = why_missing(c, entry, now_ns);
	return why == MISSING_LATE ? MISSING_DROPPED : why;
}

static void
give_up(struct correlator *c, struct entry *entry, enum profile_missing missing, uint64_t now_ns)
{
	emit(c, entry->record, entry->record_size, NULL, NULL, missing);
	entry_done(c, entry, DONE_GIVEN_UP, now_ns);
}

static bool
clock_is_shared(const struct correlator *c, const struct profile_process *process)
{
	return c->options.boot_id[0] != '\0' && c->options.time_namespace != 0 &&
	       process->time_namespace == c->options.time_namespace &&
	       strcmp(process->boot_id, c->options.boot_id) == 0;
}

/* Joins an entry that has both sides. Where they cannot be the same request the profile is refused
 * and the exchange goes on waiting: a forged profile must not cost it the true one. */
static void
join_entry(struct correlator *c, struct entry *entry, uint64_t now_ns)
{
	struct join join;
	bool shared = clock_is_shared(c, entry->profile->process);
	if (join_split(entry->record, entry->profile, shared, &join) != 0) {
		count(c, PROFILE_REFUSED);
		entry->refused = true;
		profile_set(c, entry, NULL);
		return;
	}
	uint64_t *last_ns = hooked(c, entry->record);
	if (last_ns != NULL)
		*last_ns = now_ns;
	count(c, PROFILE_JOINED);
	emit(c, entry->record, entry->record_size, entry->profile, &join, MISSING_NOT);
	entry_done(c, entry, DONE_JOINED, now_ns);
}

/* An exchange whose time is over: joined with the parts that came, or given up. */
static void
exchange_end(struct correlator *c, struct entry *entry, uint64_t now_ns)
{
	if (entry->profile != NULL) {
		entry->profile->truncated = true;
		join_entry(c, entry, now_ns);
	}
	if (entry->state == ENTRY_EXCHANGE)
		give_up(c, entry, why_missing(c, entry, now_ns), now_ns);
}

/* --- exchanges -------------------------------------------------------------------- */

static bool
span_is_zero(const uint8_t span[SPAN_ID_SIZE])
{
	static const uint8_t zero[SPAN_ID_SIZE];
	return memcmp(span, zero, SPAN_ID_SIZE) == 0;
}

/* An earlier attempt's profile will never be shown. */
static void
supersede(struct correlator *c, const struct exchange_record *record, const uint8_t *span,
          uint64_t now_ns)
{
	struct profile_key key;
	memcpy(key.trace_id, record->trace_id, TRACE_ID_SIZE);
	memcpy(key.span_id, span, SPAN_ID_SIZE);
	struct entry *entry = entry_find(c, &key);
	if (entry == NULL) {
		entry = entry_new(c, &key, ENTRY_DONE, now_ns);
	} else if (entry->state == ENTRY_PROFILE) {
		count(c, PROFILE_SUPERSEDED);
	} else {
		return;
	}
	entry_done(c, entry, DONE_SUPERSEDED, now_ns);
}

/* Room for one more exchange: the oldest that waits makes it. */
static void
exchange_room(struct correlator *c, uint64_t now_ns)
{
	while (c->counts[ENTRY_EXCHANGE] + c->counts[ENTRY_OPEN] >= c->options.exchanges_max) {
		c->stats.exchanges_displaced++;
		struct entry *entry = c->lists[ENTRY_EXCHANGE];
		if (entry != NULL)
			give_up(c, entry, why_displaced(c, entry, now_ns), now_ns);
		else /* its provisional form stays as the last word */
			entry_done(c, c->lists[ENTRY_OPEN], DONE_GIVEN_UP, now_ns);
	}
}

static void
record_provisional(struct correlator *c, const struct profile_key *key,
                   const struct exchange_record *record, size_t size, uint64_t now_ns)
{
	struct entry *entry = entry_find(c, key);
	if (entry != NULL && entry->state != ENTRY_PROFILE) {
		c->stats.records_repeated++;
		return;
	}
	exchange_room(c, now_ns);
	entry = entry_find(c, key);
	if (entry == NULL)
		entry = entry_new(c, key, ENTRY_OPEN, now_ns + CORRELATOR_OPEN_NS);
	else
		entry_move(c, entry, ENTRY_OPEN, now_ns + CORRELATOR_OPEN_NS);
	record_set(entry, record, size);
	emit(c, record, size, NULL, NULL, MISSING_PENDING);
}

static void
record_final(struct correlator *c, const struct profile_key *key,
             const struct exchange_record *record, size_t size, uint64_t now_ns)
{
	struct entry *entry = entry_find(c, key);
	uint64_t due_ns = record->marks_ns[MARK_END] + c->options.join_timeout_ns;
	if (entry != NULL && (entry->state == ENTRY_DONE || entry->state == ENTRY_EXCHANGE)) {
		/* A second end of one attempt, or the end of an open one that was displaced. */
		c->stats.records_repeated++;
		emit(c, record, size, NULL, NULL, MISSING_LATE);
		return;
	}
	if (entry == NULL || entry->state == ENTRY_PROFILE) {
		exchange_room(c, now_ns);
		entry = entry_find(c, key);
	}
	if (entry == NULL)
		entry = entry_new(c, key, ENTRY_EXCHANGE, due_ns);
	else
		entry_move(c, entry, ENTRY_EXCHANGE, due_ns);
	record_set(entry, record, size);
	if (entry->profile != NULL && entry->profile->final)
		join_entry(c, entry, now_ns);
}

void
correlator_configure(struct correlator *c, uint64_t join_timeout_ns, bool servers_moved)
{
	c->options.join_timeout_ns = join_timeout_ns;
	if (servers_moved)
		memset(c->hooked_ns, 0, sizeof(c->hooked_ns));
}

void
correlator_record(struct correlator *c, const struct exchange_record *record, size_t size,
                  uint64_t now_ns)
{
	struct profile_key key;
	memcpy(key.trace_id, record->trace_id, TRACE_ID_SIZE);
	memcpy(key.span_id, record->span_id, SPAN_ID_SIZE);
	for (size_t i = 0; i < RECORD_EARLIER_MAX; i++)
		if (!span_is_zero(record->earlier_spans[i]))
			supersede(c, record, record->earlier_spans[i], now_ns);
	if (span_is_zero(record->span_id) || !record_was_sent(record))
		emit(c, record, size, NULL, NULL, MISSING_NO_HOOK);
	else if (record->flags & RECORD_PROVISIONAL)
		record_provisional(c, &key, record, size, now_ns);
	else
		record_final(c, &key, record, size, now_ns);
}

/* --- profiles ---------------------------------------------------------------------- */

bool
correlator_has_room(const struct correlator *c, size_t profiles, size_t bytes)
{
	return c->counts[ENTRY_PROFILE] + profiles <= c->options.profiles_max &&
	       c->stats.profile_bytes + bytes <= c->options.profile_bytes_max;
}

static void
refuse(struct correlator *c, struct entry *entry, struct profile *profile)
{
	count(c, PROFILE_REFUSED);
	if (entry != NULL)
		entry->refused = true;
	profile_free(profile);
}

/* A key that has ended already. */
static void
profile_after(struct correlator *c, struct entry *entry, struct profile *profile)
{
	enum profile_outcome outcome = PROFILE_REPEATED;
	if (profile->parts > entry->parts)
		outcome = entry->done == DONE_SUPERSEDED ? PROFILE_SUPERSEDED : PROFILE_LATE;
	if (outcome == PROFILE_LATE && entry->done == DONE_GIVEN_UP)
		c->options.events.late(c->options.events.arg, &entry->key);
	if (profile->parts > entry->parts)
		entry->parts = profile->parts;
	count(c, outcome);
	profile_free(profile);
}

/* Takes a profile or its next part into an entry that waits. Returns whether it was taken. */
static bool
profile_take(struct correlator *c, struct entry *entry, struct profile *profile)
{
	if (entry->profile == NULL) {
		if (profile->parts != 1) {
			refuse(c, entry, profile);
			return false;
		}
		profile_set(c, entry, profile);
		return true;
	}
	if (profile->parts <= entry->profile->parts) {
		count(c, PROFILE_REPEATED);
		profile_free(profile);
		return false;
	}
	size_t before = entry->profile->bytes;
	if (profile_append(entry->profile, profile) != 0) {
		refuse(c, NULL, profile);
		return false;
	}
	c->stats.profile_bytes += entry->profile->bytes - before;
	profile_free(profile);
	return true;
}

void
correlator_profile(struct correlator *c, struct profile *profile, uint64_t now_ns)
{
	struct entry *entry = entry_find(c, &profile->key);
	uint64_t due_ns = now_ns + c->options.join_timeout_ns + CORRELATOR_ORPHAN_EXTRA_NS;
	if (entry == NULL) {
		if (profile->parts != 1) {
			refuse(c, NULL, profile);
			return;
		}
		entry = entry_new(c, &profile->key, ENTRY_PROFILE, due_ns);
		profile_set(c, entry, profile);
		return;
	}
	if (entry->state == ENTRY_DONE) {
		profile_after(c, entry, profile);
		return;
	}
	if (!profile_take(c, entry, profile))
		return;
	if (entry->state == ENTRY_PROFILE)
		entry_move(c, entry, ENTRY_PROFILE, due_ns);
	else if (entry->state == ENTRY_EXCHANGE && entry->profile->final)
		join_entry(c, entry, now_ns);
}

void
correlator_refused(struct correlator *c, const struct profile_key *key)
{
	struct entry *entry = entry_find(c, key);
	if (entry != NULL && entry->state != ENTRY_DONE)
		entry->refused = true;
	count(c, PROFILE_REFUSED);
}

void
correlator_tail(struct correlator *c, const struct profile_key *key, uint64_t tail_ns)
{
	struct entry *entry = entry_find(c, key);
	if (entry == NULL)
		return;
	if (entry->profile != NULL) {
		entry->profile->has_tail = true;
		entry->profile->tail_ns = tail_ns;
	} else if (entry->state == ENTRY_DONE && entry->done == DONE_JOINED) {
		c->options.events.tail(c->options.events.arg, key, tail_ns);
	}
}

void
correlator_lost(struct correlator *c, uint64_t now_ns)
{
	c->lost_ns = now_ns;
}

/* --- the end ------------------------------------------------------------------------- */

static void
profile_orphan(struct correlator *c, struct entry *entry)
{
	count(c, PROFILE_ORPHANED);
	entry_free(c, entry);
}

/* Ends the first entry of a list. */
static void
entry_end(struct correlator *c, struct entry *entry, uint64_t now_ns)
{
	switch ((enum entry_state)entry->state) {
	case ENTRY_EXCHANGE:
		exchange_end(c, entry, now_ns);
		break;
	case ENTRY_OPEN: /* its provisional form stays as the last word */
		if (entry->profile != NULL)
			count(c, PROFILE_ORPHANED);
		entry_done(c, entry, DONE_GIVEN_UP, now_ns);
		break;
	case ENTRY_PROFILE:
		profile_orphan(c, entry);
		break;
	case ENTRY_DONE:
	case ENTRY_STATES:
		entry_free(c, entry);
		break;
	}
}

bool
correlator_expire(struct correlator *c, uint64_t now_ns, size_t budget)
{
	for (size_t i = 0; i < ENTRY_STATES; i++) {
		while (c->lists[i] != NULL && c->lists[i]->due_ns <= now_ns) {
			if (budget-- == 0)
				return true;
			entry_end(c, c->lists[i], now_ns);
		}
	}
	return false;
}

void
correlator_finish(struct correlator *c, uint64_t now_ns)
{
	for (size_t i = 0; i < ENTRY_STATES; i++)
		while (c->lists[i] != NULL)
			entry_end(c, c->lists[i], now_ns);
}

void
correlator_each_waiting(const struct correlator *c,
                        bool (*each)(void *arg, const struct exchange_record *record, size_t size),
                        void *arg)
{
	static const enum entry_state states[] = {ENTRY_EXCHANGE, ENTRY_OPEN};
	for (size_t i = 0; i < 2; i++) {
		const struct entry *entry;
		DL_FOREACH(c->lists[states[i]], entry)
		{
			if (!each(arg, entry->record, entry->record_size))
				return;
		}
	}
}

void
correlator_stats(const struct correlator *c, struct correlator_stats *ret)
{
	*ret = c->stats;
	ret->exchanges_waiting = c->counts[ENTRY_EXCHANGE];
	ret->exchanges_open = c->counts[ENTRY_OPEN];
	ret->profiles_waiting = c->counts[ENTRY_PROFILE];
}
