/* One list of fields per part, walked in the same order to write and to read. */
#include "model/detector_save.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"
#include "model/detector_pack.h"

#define VERSION 3
#define BYTES_FIRST 4096
#define T_MAX 253402300799 /* the end of the year 9999, unix seconds */

struct walk {
	bool reading, bad;
	uint8_t *at;
	size_t used, size; /* writing: bytes used and room; reading: bytes read and given */
};

/* `size` raw bytes. */
static void
walk_bytes(struct walk *walk, void *bytes, size_t size)
{
	if (walk->bad || (walk->reading && walk->size - walk->used < size)) {
		walk->bad = true;
		return;
	}
	if (!walk->reading && walk->size - walk->used < size) {
		walk->size = (walk->used + size) * 2 + BYTES_FIRST;
		walk->at = xrealloc(walk->at, walk->size, 1);
	}
	if (walk->reading)
		memcpy(bytes, walk->at + walk->used, size);
	else
		memcpy(walk->at + walk->used, bytes, size);
	walk->used += size;
}

static void
walk_i64(struct walk *walk, int64_t *value, int64_t min, int64_t max)
{
	walk_bytes(walk, value, sizeof(*value));
	if (walk->reading && !walk->bad && (*value < min || *value > max))
		walk->bad = true;
}

static void
walk_time(struct walk *walk, int64_t *value)
{
	walk_i64(walk, value, -1, T_MAX);
}

static void
walk_u64(struct walk *walk, uint64_t *value)
{
	walk_bytes(walk, value, sizeof(*value));
}

static void
walk_unsigned(struct walk *walk, unsigned *value, unsigned max)
{
	int64_t wide = *value;

	walk_i64(walk, &wide, 0, max);
	if (walk->reading && !walk->bad)
		*value = (unsigned)wide;
}

static void
walk_doubles(struct walk *walk, double *values, size_t count)
{
	walk_bytes(walk, values, count * sizeof(*values));
	for (size_t i = 0; i < count && walk->reading && !walk->bad; i++)
		if (!isfinite(values[i]))
			walk->bad = true;
}

static void
walk_counts(struct walk *walk, uint32_t counts[DETECTOR_BUCKETS])
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint8_t packed[DETECTOR_PACKED_MAX];
	unsigned size = walk->reading ? 0 : (unsigned)detector_pack(counts, packed);
	int used;

	walk_unsigned(walk, &size, sizeof(packed));
	walk_bytes(walk, packed, walk->bad ? 0 : size);
	if (!walk->reading || walk->bad)
		return;
	used = detector_unpack(packed, size, cells);
	walk->bad = used < 0;
	memset(counts, 0, DETECTOR_BUCKETS * sizeof(*counts));
	for (int i = 0; i < used; i++)
		counts[cells[i].bucket] = (uint32_t)cells[i].count;
}

static void
walk_evidence(struct walk *walk, struct detector_evidence *evidence)
{
	walk_doubles(walk, evidence->w, DETECTOR_PROCESSES);
	for (unsigned i = 0; i < DETECTOR_PROCESSES; i++)
		walk_time(walk, &evidence->since_s[i]);
	walk_doubles(walk, &evidence->nats, 1);
	walk_unsigned(walk, &evidence->best, DETECTOR_PROCESSES - 1);
}

static void
walk_states(struct walk *walk, struct detector_route *route)
{
	unsigned state = route->state, shown = route->shown, basis = route->basis;
	unsigned compared = route->compared;

	walk_unsigned(walk, &state, DETECTOR_STATES - 1);
	walk_unsigned(walk, &shown, DETECTOR_STATES); /* one more: nothing shown yet */
	walk_unsigned(walk, &basis, DETECTOR_BASES - 1);
	walk_unsigned(walk, &compared, 1);
	if (!walk->reading || walk->bad)
		return;
	route->state = (enum detector_state)state;
	route->shown = (enum detector_state)shown;
	route->basis = (enum detector_basis)basis;
	route->compared = compared != 0;
}

/* Blocks of another length, by another configuration, are no use: that route learns anew. */
static void
walk_block_length(struct walk *walk, const struct detector_route *route)
{
	int64_t block_s = route->block_s;

	walk_i64(walk, &block_s, 1, DETECTOR_BLOCK_S);
	if (walk->reading && block_s != route->block_s)
		walk->bad = true;
}

static void
walk_ticks(struct walk *walk, struct detector_route *route)
{
	struct detector_history *history = &route->history;

	walk_states(walk, route);
	walk_block_length(walk, route);
	walk_time(walk, &route->first_s);
	walk_time(walk, &route->renew_s);
	walk_time(walk, &route->last_s);
	walk_i64(walk, &history->block, 0, T_MAX);
	walk_i64(walk, &history->hour, 0, T_MAX);
	for (size_t i = 0; i < DETECTOR_HOURS; i++) {
		walk_time(walk, &history->requests[i].hour);
		walk_u64(walk, &history->requests[i].n);
	}
	walk_counts(walk, history->this_block);
	walk_counts(walk, history->this_hour);
	walk_evidence(walk, &route->slower);
	walk_evidence(walk, &route->back);
	walk_evidence(walk, &route->faster);
	walk_evidence(walk, &route->twin);
	walk_time(walk, &route->twin_until_s);
	walk_doubles(walk, route->nats_before, DETECTOR_PENDING_TICKS);
	walk_doubles(walk, &route->given_back, 1);
	walk_time(walk, &route->given_since_s);
	walk_unsigned(walk, &route->fired_process, DETECTOR_PROCESSES - 1);
	walk_doubles(walk, &route->fired_nats, 1);
	walk_time(walk, &route->fired_s);
	walk_time(walk, &route->since_s);
	walk_time(walk, &route->resolved_s);
	walk_time(walk, &route->improved_until_s);
	for (size_t i = 0; i <= DETECTOR_HOUR_BLOCKS; i++) {
		walk_time(walk, &route->recent[i].block);
		walk_u64(walk, &route->recent[i].n);
	}
}

/* One slot of the ring: its chunk's number (-1: none) and size, then its bytes as they are. */
static void
save_chunk(struct walk *walk, const struct detector_blocks *blocks, unsigned slot)
{
	const struct detector_chunk none = {.number = -1};
	struct detector_chunk chunk = slot < blocks->count ? blocks->chunks[slot] : none;

	if (chunk.size == 0)
		chunk.number = -1;
	walk_time(walk, &chunk.number);
	walk_unsigned(walk, &chunk.size, UINT32_MAX);
	if (chunk.number >= 0)
		walk_bytes(walk, chunk.bytes, chunk.size);
}

static void
walk_edges(struct walk *walk, struct detector_edges *edges)
{
	uint16_t(*const places[])[DETECTOR_QUANTILES] = {edges->slower, edges->back, edges->faster};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		for (unsigned h = 0; h < DETECTOR_HOURS; h++) {
			for (unsigned q = 0; q < DETECTOR_QUANTILES; q++) {
				unsigned place = places[i][h][q];

				walk_unsigned(walk, &place, DETECTOR_BUCKETS - 1);
				places[i][h][q] = (uint16_t)place;
			}
		}
	}
	walk_doubles(walk, edges->share[0], DETECTOR_HOURS * DETECTOR_QUANTILES);
	walk_doubles(walk, edges->requests, DETECTOR_HOURS);
	walk_doubles(walk, edges->phi, DETECTOR_QUANTILES);
}

/* Shares are in [0, 1], requests and tempering positive: else the gains would be no numbers. */
static bool
edges_sane(const struct detector_edges *edges)
{
	for (unsigned h = 0; h < DETECTOR_HOURS; h++) {
		if (!(edges->requests[h] > 0))
			return false;
		for (unsigned q = 0; q < DETECTOR_QUANTILES; q++)
			if (!(edges->share[h][q] >= 0 && edges->share[h][q] <= 1) ||
			    !(edges->phi[q] >= 1))
				return false;
	}
	return true;
}

static void
walk_row(struct walk *walk, struct detector_row *row)
{
	struct detector_cell cells[DETECTOR_BUCKETS];

	walk_i64(walk, &row->hour, 0, T_MAX);
	walk_doubles(walk, &row->unit, 1);
	walk_unsigned(walk, &row->size, DETECTOR_PACKED_MAX);
	if (walk->reading && (walk->bad || walk->size - walk->used < row->size)) {
		row->size = 0;
		walk->bad = true;
		return;
	}
	if (walk->reading && row->size > 0)
		row->packed = xcalloc(1, row->size);
	if (row->size > 0)
		walk_bytes(walk, row->packed, row->size);
	if (walk->reading && row->size > 0 &&
	    (row->unit <= 0 || detector_unpack(row->packed, row->size, cells) < 0))
		walk->bad = true;
}

static void
walk_hours(struct walk *walk, struct detector_route *route)
{
	for (unsigned h = 0; h < DETECTOR_HOURS && !walk->bad; h++)
		walk_row(walk, &route->history.by_hour[h]);
	walk_edges(walk, &route->edges);
}

static void
walk_head(struct walk *walk, enum detector_part part)
{
	unsigned version = VERSION, which = part;

	walk_unsigned(walk, &version, VERSION);
	walk_unsigned(walk, &which, DETECTOR_PARTS - 1);
	if (version != VERSION || which != part)
		walk->bad = true;
}

/* TICKS or HOURS. */
static void
walk_part(struct walk *walk, struct detector_route *route, enum detector_part part)
{
	walk_head(walk, part);
	if (part == DETECTOR_PART_TICKS)
		walk_ticks(walk, route);
	else
		walk_hours(walk, route);
	if (walk->reading && walk->used != walk->size)
		walk->bad = true;
}

struct detector_bytes
detector_route_save(const struct detector_route *route, enum detector_part part)
{
	/* Writing changes nothing of it; the walk is one for both directions. */
	union {
		const struct detector_route *given;
		struct detector_route *walked;
	} same = {.given = route};
	struct walk walk = {0};

	if (part < DETECTOR_PART_CHUNK) {
		walk_part(&walk, same.walked, part);
	} else {
		walk_head(&walk, part);
		save_chunk(&walk, &route->history.blocks, part - DETECTOR_PART_CHUNK);
	}
	/* Hundreds may wait to be written: none of them with room it does not need. */
	return (struct detector_bytes){xrealloc(walk.at, walk.used, 1), walk.used};
}

/* A chunk's number and bytes out of its part; -1 where it holds none, or is of another version. */
struct found {
	int64_t number;
	const uint8_t *bytes;
	size_t size;
};

static bool
find_chunk(const struct detector_bytes *part, enum detector_part which, struct found *ret)
{
	struct walk walk = {.reading = true, .at = part->at, .size = part->size};
	int64_t version = VERSION;
	unsigned size = 0;

	*ret = (struct found){.number = -1};
	if (part->size == 0)
		return true;
	walk_i64(&walk, &version, 0, INT64_MAX);
	if (version != VERSION)
		return true;
	walk.used = 0;
	walk_head(&walk, which);
	walk_time(&walk, &ret->number);
	walk_unsigned(&walk, &size, UINT32_MAX);
	if (walk.bad || size != walk.size - walk.used)
		return false;
	ret->bytes = part->at + walk.used;
	ret->size = size;
	return ret->number < 0 ? ret->size == 0
	                       : detector_part_of(ret->number * DETECTOR_CHUNK_BLOCKS) == which;
}

static int
by_number(const void *left, const void *right)
{
	const struct found *a = left, *b = right;

	return (a->number > b->number) - (a->number < b->number);
}

static bool
restore_chunks(struct detector_route *route, const struct detector_bytes parts[DETECTOR_PARTS])
{
	struct detector_history *history = &route->history;
	struct found found[DETECTOR_PART_CHUNKS];
	int64_t first = route->first_s / route->block_s;

	for (int i = 0; i < DETECTOR_PART_CHUNKS; i++)
		if (!find_chunk(&parts[DETECTOR_PART_CHUNK + i],
		                (enum detector_part)(DETECTOR_PART_CHUNK + i), &found[i]))
			return false;
	qsort(found, DETECTOR_PART_CHUNKS, sizeof(found[0]), by_number);
	for (int i = 0; i < DETECTOR_PART_CHUNKS; i++) {
		if (found[i].number >= 0 &&
		    detector_blocks_restore(&history->blocks, first, found[i].number,
		                            found[i].bytes, found[i].size) != 0)
			return false;
	}
	return history->blocks.newest < history->block;
}

int
detector_route_restore(struct detector_route *route,
                       const struct detector_bytes parts[DETECTOR_PARTS])
{
	char *name = xstrdup(route->name);
	bool bad = false;

	for (int part = 0; part < DETECTOR_PART_CHUNK && !bad; part++) {
		struct walk walk = {
		    .reading = true, .at = parts[part].at, .size = parts[part].size};

		walk_part(&walk, route, (enum detector_part)part);
		bad = walk.bad;
	}
	route->edges.weighed = -1;
	bad = bad || route->first_s > route->last_s || !restore_chunks(route, parts) ||
	      (route->compared && !edges_sane(&route->edges));
	if (bad) {
		size_t index = route->index;
		int64_t block_s = route->block_s;

		detector_route_clear(route);
		detector_route_init(route, name, index, block_s);
	}
	free(name);
	return bad ? -1 : 0;
}
