/* What a span of time of one route adds up to: counts, phases, a histogram, and per row (what the
 * time went to) and band of total latency the nanoseconds, their squares and counts. Rollups add
 * and subtract exactly; the rows of the joined exchanges sum to their total time to the
 * nanosecond, and so do the rows of those without a profile. Pure; one thread per rollup. */
#ifndef TAILRACE_MODEL_ROLLUP_H
#define TAILRACE_MODEL_ROLLUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/histogram.h"
#include "model/phase.h"
#include "model/profile.h"
#include "model/text.h"

#define ROLLUP_ROWS_WINDOW 64  /* rows of a 10 s window, over all its bands */
#define ROLLUP_ROWS_MINUTE 128 /* of a minute */
#define ROLLUP_ROWS_HOUR 256
#define ROLLUP_ROWS_MAX 512 /* of a route, and of any sum */

/* A band is eight buckets of the histogram, 4 an octave: band b holds (edge of bucket 8b - 1, edge
 * of bucket 8b + 7]. */
#define ROLLUP_BAND_BUCKETS 8
#define ROLLUP_BANDS (HISTOGRAM_BUCKETS / ROLLUP_BAND_BUCKETS)

/* What a row's time was. The first ones are those of enum profile_kind, with its causes. */
enum rollup_kind {
	ROLLUP_UNATTRIBUTED = PROFILE_KIND_COUNT, /* app time that no row of the profile has */
	ROLLUP_NO_PROFILE,  /* `send` + `wait` of an exchange without a profile */
	ROLLUP_PHASE,       /* a phase of an exchange with one; cause: enum rollup_phase */
	ROLLUP_PHASE_ALONE, /* a phase of an exchange without one */
	ROLLUP_KIND_COUNT
};

/* Causes of ROLLUP_PHASE: the twelve phases (`send` and `wait` only of exchanges without a
 * profile), and the app's edges that a profile cuts out of them. */
enum rollup_phase {
	ROLLUP_PHASE_APP_QUEUE = PHASE_COUNT,
	ROLLUP_PHASE_APP_OUT,
	ROLLUP_PHASE_COUNT
};

/* What makes two rows one: never a line number, never a file. */
struct rollup_key {
	uint64_t stack; /* of model/flame.h; 0 = none */
	uint8_t kind;   /* enum profile_kind or enum rollup_kind */
	uint8_t cause;  /* enum profile_cause or enum rollup_phase; PROFILE_CAUSE_COUNT = none */
};

struct rollup_cell {
	unsigned __int128
	    us2;            /* sum over exchanges of the square of the row's whole microseconds */
	uint64_t ns, count; /* count: segments; 1 a phase */
	uint8_t band;
};

struct rollup_row {
	struct rollup_key key;
	bool folded;               /* rows of longer stacks were added here for want of room */
	uint64_t ns;               /* sum of the cells */
	uint64_t count;            /* likewise */
	struct rollup_cell *cells; /* owned; by band, ascending */
	uint16_t cell_count, cell_room;
};

struct rollup_band {
	uint64_t joined, alone; /* exchanges with and without a profile */
};

struct rollup {
	uint64_t requests, errors, sent, joined; /* exchanges; `sent`: something went to the app */
	uint64_t dropped;                        /* exchanges whose profile was lost on the way */
	uint64_t bytes_in, bytes_out;
	uint64_t joined_ns;    /* total time of the joined exchanges: the sum of their rows */
	uint64_t estimated_ns; /* of these, from rows whose share is an estimate */
	uint64_t phases_ns[PHASE_COUNT]; /* of all exchanges */
	struct histogram total;
	struct rollup_band bands[ROLLUP_BANDS];
	struct rollup_row *rows; /* owned */
	size_t row_count, row_room;
	uint16_t *slots; /* owned: hash of keys to rows + 1 */
	size_t slot_count;
};

/* One row of one exchange. */
struct rollup_part {
	struct rollup_key key;
	bool folded; /* its own row had no place: this is the one of a parent frame */
	uint64_t ns, count;
};

/* One exchange as it is added. */
struct rollup_exchange {
	uint64_t total_ns;
	bool error, sent, joined, dropped;
	uint64_t bytes_in, bytes_out, estimated_ns;
	uint64_t phases_ns[PHASE_COUNT];
	const struct rollup_part *parts; /* sum to total_ns; keys may repeat */
	size_t part_count;
};

unsigned rollup_band(uint64_t total_ns);
/* Durations a band holds: (*ret_low_ns, *ret_high_ns]; the last one's high end is UINT64_MAX. */
void rollup_band_edges(unsigned band, uint64_t *ret_low_ns, uint64_t *ret_high_ns);

/* Words of the API. Of phases the kind is "phase" and the cause the phase's name. */
const char *rollup_kind_name(unsigned kind);
const char *rollup_cause_name(const struct rollup_key *key); /* null for none */

/* Whether the row is of exchanges without a profile. */
bool rollup_is_alone(const struct rollup_key *key);

struct rollup *rollup_new(void);
void rollup_free(struct rollup *rollup);  /* null-safe */
void rollup_reset(struct rollup *rollup); /* empty again; keeps memory */

/* Adds one exchange. Rows are not limited here: see rollup_fold(). */
void rollup_add(struct rollup *rollup, const struct rollup_exchange *exchange);

/* Adds what `from` holds. */
void rollup_merge(struct rollup *into, const struct rollup *from);

/* Takes away what was added before. Returns 0, or -1 with `from` untouched where `part` is not a
 * part of it. The histogram's least and greatest stay as they were. */
int rollup_subtract(struct rollup *from, const struct rollup *part);

/* Adds cells (by band, ascending) to a row. */
void rollup_add_row(struct rollup *rollup, const struct rollup_key *key, bool folded,
                    const struct rollup_cell *cells, size_t count);

/* The row of a key, or null. */
const struct rollup_row *rollup_find(const struct rollup *rollup, const struct rollup_key *key);

/* The stack one frame shorter; 0 = nothing is left. */
struct rollup_parents {
	void *arg;
	uint64_t (*parent)(void *arg, uint64_t stack);
};

/* Adds the smallest rows with a stack to the rows of their parent frames until at most `rows_max`
 * rows are left. Sums stay. Returns how many rows were folded. */
size_t rollup_fold(struct rollup *rollup, size_t rows_max, const struct rollup_parents *parents);

/* Adds one row's cells to the row of its parent frame, marked as folded. */
void rollup_fold_row(struct rollup *rollup, const struct rollup_key *key,
                     const struct rollup_parents *parents);

/* Appends the compact form: variable-length integers. */
void rollup_encode(const struct rollup *rollup, struct text *out);

/* Adds what the bytes hold. Returns 0, or -1 with `into` untouched where they are no such form. */
int rollup_decode(const void *bytes, size_t length, struct rollup *into);

/* A chunk: windows one behind the other, each a start, a span and a rollup. */
void rollup_chunk_add(struct text *chunk, uint64_t start_ms, uint64_t span_ms,
                      const struct rollup *rollup);

/* As rollup_chunk_add() of bytes that rollup_encode() made. */
void rollup_chunk_put(struct text *chunk, uint64_t start_ms, uint64_t span_ms, const void *bytes,
                      size_t length);

/* One window of a chunk; the bytes are rollup_decode()'s, borrowed. */
struct rollup_window {
	uint64_t start_ms, span_ms;
	const void *bytes;
	size_t length;
};

/* The window at *at, which moves on to the next. Returns 1, 0 at the end, -1 where the bytes are
 * damaged. */
int rollup_chunk_next(const void *chunk, size_t length, size_t *at, struct rollup_window *ret);

#endif
