/* Sums of exchanges: rows by key in a small hash, their cells by band. */
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/rollup.h"

#define SLOTS_MIN 64

unsigned
rollup_band(uint64_t total_ns)
{
	return histogram_bucket(total_ns) / ROLLUP_BAND_BUCKETS;
}

void
rollup_band_edges(unsigned band, uint64_t *ret_low_ns, uint64_t *ret_high_ns)
{
	*ret_low_ns = band == 0 ? 0 : histogram_edge_ns(band * ROLLUP_BAND_BUCKETS - 1);
	*ret_high_ns = histogram_edge_ns((band + 1) * ROLLUP_BAND_BUCKETS - 1);
}

const char *
rollup_kind_name(unsigned kind)
{
	static const char *const names[ROLLUP_KIND_COUNT - PROFILE_KIND_COUNT] = {
	    "unattributed", "no_profile", "phase", "phase"};
	if (kind < PROFILE_KIND_COUNT)
		return profile_kind_name(kind);
	return kind < ROLLUP_KIND_COUNT ? names[kind - PROFILE_KIND_COUNT] : "unknown";
}

const char *
rollup_cause_name(const struct rollup_key *key)
{
	if (key->kind != ROLLUP_PHASE && key->kind != ROLLUP_PHASE_ALONE)
		return profile_cause_name(key->cause);
	if (key->cause < PHASE_COUNT)
		return phase_name(key->cause);
	return key->cause == ROLLUP_PHASE_APP_QUEUE ? "app_queue"
	       : key->cause == ROLLUP_PHASE_APP_OUT ? "app_out"
	                                            : NULL;
}

bool
rollup_is_alone(const struct rollup_key *key)
{
	return key->kind == ROLLUP_NO_PROFILE || key->kind == ROLLUP_PHASE_ALONE;
}

/* --- rows --------------- */

struct rollup *
rollup_new(void)
{
	struct rollup *r = xcalloc(1, sizeof(*r));
	r->slot_count = SLOTS_MIN;
	r->slots = xcalloc(r->slot_count, sizeof(*r->slots));
	return r;
}

static void
rows_clear(struct rollup *r)
{
	for (size_t i = 0; i < r->row_count; i++)
		free(r->rows[i].cells);
	r->row_count = 0;
}

void
rollup_free(struct rollup *r)
{
	if (r == NULL)
		return;
	rows_clear(r);
	free(r->rows);
	free(r->slots);
	free(r);
}

void
rollup_reset(struct rollup *r)
{
	rows_clear(r);
	struct rollup empty = {.rows = r->rows,
	                       .row_room = r->row_room,
	                       .slots = r->slots,
	                       .slot_count = r->slot_count};
	*r = empty;
	memset(r->slots, 0, r->slot_count * sizeof(*r->slots));
}

static bool
key_equal(const struct rollup_key *a, const struct rollup_key *b)
{
	return a->stack == b->stack && a->kind == b->kind && a->cause == b->cause;
}

/* The slot where the key is, or would be. */
static size_t
slot_of(const struct rollup *r, const struct rollup_key *key)
{
	uint64_t hash = key->stack ^ ((uint64_t)key->kind << 8 | key->cause);
	hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15ull;
	size_t slot = (hash >> 40) & (r->slot_count - 1);
	while (r->slots[slot] != 0 && !key_equal(&r->rows[r->slots[slot] - 1].key, key))
		slot = (slot + 1) & (r->slot_count - 1);
	return slot;
}

static void
slots_fill(struct rollup *r)
{
	memset(r->slots, 0, r->slot_count * sizeof(*r->slots));
	for (size_t i = 0; i < r->row_count; i++)
		r->slots[slot_of(r, &r->rows[i].key)] = (uint16_t)(i + 1);
}

static struct rollup_row *
row_add(struct rollup *r, const struct rollup_key *key)
{
	if (2 * (r->row_count + 1) > r->slot_count) {
		r->slot_count *= 2;
		r->slots = xrealloc(r->slots, r->slot_count, sizeof(*r->slots));
		slots_fill(r);
	}
	if (r->row_count == r->row_room) {
		r->row_room = r->row_room > 0 ? 2 * r->row_room : 16;
		r->rows = xrealloc(r->rows, r->row_room, sizeof(*r->rows));
	}
	struct rollup_row *row = &r->rows[r->row_count++];
	*row = (struct rollup_row){.key = *key};
	r->slots[slot_of(r, key)] = (uint16_t)r->row_count;
	return row;
}

static struct rollup_row *
row_get(struct rollup *r, const struct rollup_key *key)
{
	uint16_t at = r->slots[slot_of(r, key)];
	return at != 0 ? &r->rows[at - 1] : row_add(r, key);
}

const struct rollup_row *
rollup_find(const struct rollup *r, const struct rollup_key *key)
{
	uint16_t at = r->slots[slot_of(r, key)];
	return at != 0 ? &r->rows[at - 1] : NULL;
}

static struct rollup_cell *
cell_get(struct rollup_row *row, unsigned band)
{
	size_t at = row->cell_count;
	while (at > 0 && row->cells[at - 1].band >= band) {
		at--;
		if (row->cells[at].band == band)
			return &row->cells[at];
	}
	if (row->cell_count == row->cell_room) {
		row->cell_room = row->cell_room > 0 ? (uint16_t)(2 * row->cell_room) : 2;
		row->cells = xrealloc(row->cells, row->cell_room, sizeof(*row->cells));
	}
	memmove(&row->cells[at + 1], &row->cells[at], (row->cell_count - at) * sizeof(*row->cells));
	row->cell_count++;
	row->cells[at] = (struct rollup_cell){.band = (uint8_t)band};
	return &row->cells[at];
}

static void
cell_add(struct rollup_row *row, const struct rollup_cell *from)
{
	struct rollup_cell *cell = cell_get(row, from->band);
	cell->ns += from->ns;
	cell->us2 += from->us2;
	cell->count += from->count;
	row->ns += from->ns;
	row->count += from->count;
}

void
rollup_add_row(struct rollup *r, const struct rollup_key *key, bool folded,
               const struct rollup_cell *cells, size_t count)
{
	struct rollup_row *row = row_get(r, key);
	row->folded = row->folded || folded;
	for (size_t i = 0; i < count; i++)
		cell_add(row, &cells[i]);
}

/* --- adding --------------- */

/* A key that comes twice in one exchange is one row of it: its square is that of the sum. */
static bool
came_before(const struct rollup_part *parts, size_t at)
{
	for (size_t i = 0; i < at; i++)
		if (key_equal(&parts[i].key, &parts[at].key))
			return true;
	return false;
}

static void
part_add(struct rollup *r, const struct rollup_exchange *x, size_t at, unsigned band)
{
	struct rollup_cell sum = {.band = (uint8_t)band};
	bool folded = false;
	if (came_before(x->parts, at))
		return;
	for (size_t i = at; i < x->part_count; i++) {
		if (!key_equal(&x->parts[i].key, &x->parts[at].key))
			continue;
		folded = folded || x->parts[i].folded;
		sum.ns += x->parts[i].ns;
		sum.count += x->parts[i].count;
	}
	if (sum.ns == 0 && sum.count == 0)
		return;
	sum.us2 = (unsigned __int128)(sum.ns / 1000) * (sum.ns / 1000);
	rollup_add_row(r, &x->parts[at].key, folded, &sum, 1);
}

void
rollup_add(struct rollup *r, const struct rollup_exchange *x)
{
	unsigned band = rollup_band(x->total_ns);
	r->requests++;
	r->errors += x->error;
	r->sent += x->sent;
	r->joined += x->joined;
	r->dropped += x->dropped;
	r->bytes_in += x->bytes_in;
	r->bytes_out += x->bytes_out;
	r->joined_ns += x->joined ? x->total_ns : 0;
	r->estimated_ns += x->estimated_ns;
	for (size_t i = 0; i < PHASE_COUNT; i++)
		r->phases_ns[i] += x->phases_ns[i];
	histogram_add(&r->total, x->total_ns);
	if (x->joined)
		r->bands[band].joined++;
	else
		r->bands[band].alone++;
	for (size_t i = 0; i < x->part_count; i++)
		part_add(r, x, i, band);
}

/* The plain sums that stand at the struct's head, for loops over all of them. */
#define ROLLUP_SUMS 9
static void
sums_of(struct rollup *r, uint64_t *ret[ROLLUP_SUMS])
{
	uint64_t *all[ROLLUP_SUMS] = {&r->requests,  &r->errors,    &r->sent,
	                              &r->joined,    &r->dropped,   &r->bytes_in,
	                              &r->bytes_out, &r->joined_ns, &r->estimated_ns};
	memcpy(ret, all, sizeof(all));
}

void
rollup_merge(struct rollup *into, const struct rollup *from)
{
	struct rollup head = *from; /* its pointers are only read */
	uint64_t *a[ROLLUP_SUMS], *b[ROLLUP_SUMS];
	sums_of(into, a);
	sums_of(&head, b);
	for (size_t i = 0; i < ROLLUP_SUMS; i++)
		*a[i] += *b[i];
	for (size_t i = 0; i < PHASE_COUNT; i++)
		into->phases_ns[i] += from->phases_ns[i];
	for (size_t i = 0; i < ROLLUP_BANDS; i++) {
		into->bands[i].joined += from->bands[i].joined;
		into->bands[i].alone += from->bands[i].alone;
	}
	histogram_merge(&into->total, &from->total);
	for (size_t i = 0; i < from->row_count; i++)
		rollup_add_row(into, &from->rows[i].key, from->rows[i].folded, from->rows[i].cells,
		               from->rows[i].cell_count);
}

/* --- subtracting --------------- */

static const struct rollup_cell *
cell_find(const struct rollup_row *row, unsigned band)
{
	for (size_t i = 0; i < row->cell_count; i++)
		if (row->cells[i].band == band)
			return &row->cells[i];
	return NULL;
}

static bool
row_holds(const struct rollup *r, const struct rollup_row *part)
{
	const struct rollup_row *row = rollup_find(r, &part->key);
	for (size_t i = 0; i < part->cell_count; i++) {
		const struct rollup_cell *b = &part->cells[i];
		const struct rollup_cell *a = row != NULL ? cell_find(row, b->band) : NULL;
		if (a == NULL || a->ns < b->ns || a->us2 < b->us2 || a->count < b->count)
			return false;
	}
	return true;
}

static bool
holds(const struct rollup *r, const struct rollup *part)
{
	struct rollup whole = *r, head = *part;
	uint64_t *a[ROLLUP_SUMS], *b[ROLLUP_SUMS];
	sums_of(&whole, a);
	sums_of(&head, b);
	for (size_t i = 0; i < ROLLUP_SUMS; i++)
		if (*a[i] < *b[i])
			return false;
	for (size_t i = 0; i < PHASE_COUNT; i++)
		if (r->phases_ns[i] < part->phases_ns[i])
			return false;
	for (size_t i = 0; i < ROLLUP_BANDS; i++)
		if (r->bands[i].joined < part->bands[i].joined ||
		    r->bands[i].alone < part->bands[i].alone)
			return false;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (r->total.buckets[i] < part->total.buckets[i])
			return false;
	for (size_t i = 0; i < part->row_count; i++)
		if (!row_holds(r, &part->rows[i]))
			return false;
	return r->total.sum_ns >= part->total.sum_ns;
}

/* Rows and cells that hold nothing any more go, so that what is left equals what never had them. */
static void
drop_empty(struct rollup *r)
{
	size_t rows = 0;
	for (size_t i = 0; i < r->row_count; i++) {
		struct rollup_row row = r->rows[i];
		uint16_t cells = 0;
		for (size_t k = 0; k < row.cell_count; k++)
			if (row.cells[k].ns > 0 || row.cells[k].count > 0)
				row.cells[cells++] = row.cells[k];
		row.cell_count = cells;
		if (cells > 0)
			r->rows[rows++] = row;
		else
			free(row.cells);
	}
	r->row_count = rows;
	slots_fill(r);
}

int
rollup_subtract(struct rollup *from, const struct rollup *part)
{
	struct rollup head = *part;
	uint64_t *a[ROLLUP_SUMS], *b[ROLLUP_SUMS];
	if (!holds(from, part))
		return -1;
	sums_of(from, a);
	sums_of(&head, b);
	for (size_t i = 0; i < ROLLUP_SUMS; i++)
		*a[i] -= *b[i];
	for (size_t i = 0; i < PHASE_COUNT; i++)
		from->phases_ns[i] -= part->phases_ns[i];
	for (size_t i = 0; i < ROLLUP_BANDS; i++) {
		from->bands[i].joined -= part->bands[i].joined;
		from->bands[i].alone -= part->bands[i].alone;
	}
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		from->total.buckets[i] -= part->total.buckets[i];
	from->total.count -= part->total.count;
	from->total.sum_ns -= part->total.sum_ns;
	for (size_t i = 0; i < part->row_count; i++) {
		struct rollup_row *row = row_get(from, &part->rows[i].key);
		for (size_t k = 0; k < part->rows[i].cell_count; k++) {
			const struct rollup_cell *taken = &part->rows[i].cells[k];
			struct rollup_cell *cell = cell_get(row, taken->band);
			cell->ns -= taken->ns;
			cell->us2 -= taken->us2;
			cell->count -= taken->count;
			row->ns -= taken->ns;
			row->count -= taken->count;
		}
	}
	drop_empty(from);
	return 0;
}

/* --- folding --------------- */

/* The key of the row that a row is folded into. */
static struct rollup_key
key_above(const struct rollup_key *of, const struct rollup_parents *parents)
{
	struct rollup_key key = *of;
	if (key.stack == 0)
		key.cause = PROFILE_CAUSE_UNKNOWN;
	else if ((key.stack = parents->parent(parents->arg, key.stack)) == of->stack)
		key.stack = 0;
	return key;
}

static void
row_fold(struct rollup *r, size_t at, const struct rollup_parents *parents)
{
	struct rollup_row row = r->rows[at];
	struct rollup_key key = key_above(&row.key, parents);
	r->rows[at] = r->rows[--r->row_count];
	slots_fill(r);
	struct rollup_row *into = row_get(r, &key);
	into->folded = true;
	for (size_t i = 0; i < row.cell_count; i++)
		cell_add(into, &row.cells[i]);
	free(row.cells);
}

/* Whether a row has somewhere to go: a stack that can be shorter or, where none of those is left, a
 * cause that can be `unknown`. What has neither are fewer rows than any bound. */
static bool
can_fold(const struct rollup_key *key, bool stacks)
{
	return stacks ? key->stack != 0
	              : key->kind < PROFILE_KIND_COUNT && key->cause < PROFILE_CAUSE_UNKNOWN;
}

/* The smallest row that can be folded, or row_count. */
static size_t
smallest(const struct rollup *r, bool stacks)
{
	size_t at = r->row_count;
	for (size_t i = 0; i < r->row_count; i++) {
		const struct rollup_row *row = &r->rows[i];
		if (!can_fold(&row->key, stacks))
			continue;
		if (at == r->row_count || row->ns < r->rows[at].ns ||
		    (row->ns == r->rows[at].ns && row->key.stack < r->rows[at].key.stack))
			at = i;
	}
	return at;
}

/* The smallest other row that folds into the same one, or row_count. */
static size_t
sibling(const struct rollup *r, size_t of, const struct rollup_key *above,
        const struct rollup_parents *parents)
{
	size_t at = r->row_count;
	for (size_t i = 0; i < r->row_count; i++) {
		const struct rollup_row *row = &r->rows[i];
		if (i == of || row->key.stack == 0 || row->key.kind != above->kind ||
		    row->key.cause != above->cause ||
		    (at < r->row_count && row->ns >= r->rows[at].ns))
			continue;
		struct rollup_key key = key_above(&row->key, parents);
		if (key_equal(&key, above))
			at = i;
	}
	return at;
}

/* A row goes to one that is there, or together with its smallest sibling: alone it would only
 * change its name and, being the smallest still, climb to the root. */
static size_t
fold_smallest(struct rollup *r, size_t at, const struct rollup_parents *parents)
{
	struct rollup_key above = key_above(&r->rows[at].key, parents);
	if (above.stack != 0 && rollup_find(r, &above) == NULL) {
		size_t other = sibling(r, at, &above, parents);
		if (other < r->row_count) {
			struct rollup_key key = r->rows[other].key;
			row_fold(r, at, parents);
			rollup_fold_row(r, &key, parents);
			return 2;
		}
	}
	row_fold(r, at, parents);
	return 1;
}

size_t
rollup_fold(struct rollup *r, size_t rows_max, const struct rollup_parents *parents)
{
	size_t folded = 0;
	while (r->row_count > rows_max) {
		size_t at = smallest(r, true);
		if (at == r->row_count)
			at = smallest(r, false);
		if (at == r->row_count)
			break;
		folded += fold_smallest(r, at, parents);
	}
	return folded;
}

void
rollup_fold_row(struct rollup *r, const struct rollup_key *key,
                const struct rollup_parents *parents)
{
	uint16_t at = r->slots[slot_of(r, key)];
	if (at != 0 && key->stack != 0)
		row_fold(r, (size_t)at - 1, parents);
}
