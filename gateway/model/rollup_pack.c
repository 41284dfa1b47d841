/* Rollups as bytes: what windows are kept as, in memory and in the store. */
#include <string.h>
#include "model/rollup.h"
#include "model/varint.h"

#define FORM 1 /* of the bytes; others are refused */
#define PACKED_ROWS_MAX 4096
#define KIND_FOLDED 0x80 /* beside the kind */

/* --- writing --------------- */

static void
put(struct text *out, uint64_t value)
{
	uint8_t bytes[VARINT_BYTES_MAX];
	size_t length = varint_put(bytes, value);
	text_add(out, (const char *)bytes, length);
}

static void
put_wide(struct text *out, unsigned __int128 value)
{
	char bytes[20];
	size_t n = 0;
	for (; value >= 0x80; value >>= 7)
		bytes[n++] = (char)(uint8_t)(value | 0x80);
	bytes[n++] = (char)(uint8_t)value;
	text_add(out, bytes, n);
}

static void
put_head(struct text *out, const struct rollup *r)
{
	const uint64_t sums[] = {r->requests,  r->errors,    r->sent,
	                         r->joined,    r->dropped,   r->bytes_in,
	                         r->bytes_out, r->joined_ns, r->estimated_ns};
	static const char form = FORM;
	uint8_t histogram[HISTOGRAM_ENCODED_MAX];
	text_add(out, &form, 1);
	for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
		put(out, sums[i]);
	for (size_t i = 0; i < PHASE_COUNT; i++)
		put(out, r->phases_ns[i]);
	size_t length = histogram_encode(&r->total, histogram);
	put(out, length);
	text_add(out, (const char *)histogram, length);
}

static void
put_bands(struct text *out, const struct rollup *r)
{
	size_t count = 0;
	for (size_t i = 0; i < ROLLUP_BANDS; i++)
		count += r->bands[i].joined > 0 || r->bands[i].alone > 0;
	put(out, count);
	for (size_t i = 0; i < ROLLUP_BANDS; i++) {
		if (r->bands[i].joined == 0 && r->bands[i].alone == 0)
			continue;
		put(out, i);
		put(out, r->bands[i].joined);
		put(out, r->bands[i].alone);
	}
}

static void
put_row(struct text *out, const struct rollup_row *row)
{
	const uint8_t words[2] = {row->key.kind | (row->folded ? KIND_FOLDED : 0), row->key.cause};
	text_add(out, (const char *)words, 2);
	text_add(out, (const char *)&row->key.stack, sizeof(row->key.stack));
	put(out, row->cell_count);
	for (size_t i = 0; i < row->cell_count; i++) {
		put(out, row->cells[i].band);
		put(out, row->cells[i].ns);
		put(out, row->cells[i].count);
		put_wide(out, row->cells[i].us2);
	}
}

void
rollup_encode(const struct rollup *r, struct text *out)
{
	put_head(out, r);
	put_bands(out, r);
	put(out, r->row_count);
	for (size_t i = 0; i < r->row_count; i++)
		put_row(out, &r->rows[i]);
}

/* --- reading --------------- */

struct bytes {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static const uint8_t *
get_bytes(struct bytes *in, size_t length)
{
	const uint8_t *at = in->at;
	if (in->bad || in->left < length) {
		in->bad = true;
		return NULL;
	}
	in->at += length;
	in->left -= length;
	return at;
}

static uint64_t
get(struct bytes *in)
{
	uint64_t value = 0;
	size_t n = in->bad ? 0 : varint_get(in->at, in->left, &value);
	if (n == 0)
		in->bad = true;
	get_bytes(in, n);
	return value;
}

static unsigned __int128
get_wide(struct bytes *in)
{
	unsigned __int128 value = 0;
	for (unsigned shift = 0; shift < 128; shift += 7) {
		const uint8_t *byte = get_bytes(in, 1);
		if (byte == NULL)
			return 0;
		value |= (unsigned __int128)(*byte & 0x7f) << shift;
		if (!(*byte & 0x80))
			return value;
	}
	in->bad = true;
	return 0;
}

static void
get_head(struct bytes *in, struct rollup *r)
{
	uint64_t *sums[] = {&r->requests,  &r->errors,    &r->sent,
	                    &r->joined,    &r->dropped,   &r->bytes_in,
	                    &r->bytes_out, &r->joined_ns, &r->estimated_ns};
	const uint8_t *form = get_bytes(in, 1);
	if (form != NULL && *form != FORM)
		in->bad = true;
	for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++)
		*sums[i] = get(in);
	for (size_t i = 0; i < PHASE_COUNT; i++)
		r->phases_ns[i] = get(in);
	size_t length = get(in);
	const uint8_t *histogram = get_bytes(in, length);
	if (histogram != NULL && histogram_decode(histogram, length, &r->total) != 0)
		in->bad = true;
}

static void
get_band(struct bytes *in, struct rollup_band *ret)
{
	ret->joined = get(in);
	ret->alone = get(in);
}

static void
get_bands(struct bytes *in, struct rollup *r)
{
	uint64_t count = get(in);
	for (uint64_t i = 0; i < count && !in->bad; i++) {
		uint64_t band = get(in);
		if (band >= ROLLUP_BANDS)
			in->bad = true;
		else
			get_band(in, &r->bands[band]);
	}
}

static void
get_cells(struct bytes *in, struct rollup *r, const struct rollup_key *key, bool folded)
{
	struct rollup_cell cells[ROLLUP_BANDS];
	uint64_t count = get(in);
	if (count > ROLLUP_BANDS)
		in->bad = true;
	for (uint64_t i = 0; i < count && !in->bad; i++) {
		uint64_t band = get(in);
		cells[i].ns = get(in);
		cells[i].count = get(in);
		cells[i].us2 = get_wide(in);
		cells[i].band = (uint8_t)band;
		if (band >= ROLLUP_BANDS || (i > 0 && cells[i - 1].band >= band))
			in->bad = true;
	}
	if (!in->bad)
		rollup_add_row(r, key, folded, cells, count);
}

static void
get_row(struct bytes *in, struct rollup *r)
{
	struct rollup_key key = {0};
	const uint8_t *words = get_bytes(in, 2);
	const uint8_t *stack = get_bytes(in, sizeof(key.stack));
	if (in->bad)
		return;
	key.kind = words[0] & ~KIND_FOLDED;
	key.cause = words[1];
	memcpy(&key.stack, stack, sizeof(key.stack));
	if (key.kind >= ROLLUP_KIND_COUNT)
		in->bad = true;
	get_cells(in, r, &key, words[0] & KIND_FOLDED);
}

int
rollup_decode(const void *bytes, size_t length, struct rollup *into)
{
	struct bytes in = {.at = bytes, .left = length};
	struct rollup *r = rollup_new();
	get_head(&in, r);
	get_bands(&in, r);
	uint64_t rows = get(&in);
	if (rows > PACKED_ROWS_MAX)
		in.bad = true;
	for (uint64_t i = 0; i < rows && !in.bad; i++)
		get_row(&in, r);
	if (!in.bad && in.left == 0)
		rollup_merge(into, r);
	rollup_free(r);
	return in.bad || in.left > 0 ? -1 : 0;
}

/* --- chunks --------------- */

void
rollup_chunk_put(struct text *chunk, uint64_t start_ms, uint64_t span_ms, const void *bytes,
                 size_t length)
{
	put(chunk, start_ms);
	put(chunk, span_ms);
	put(chunk, length);
	text_add(chunk, bytes, length);
}

void
rollup_chunk_add(struct text *chunk, uint64_t start_ms, uint64_t span_ms, const struct rollup *r)
{
	struct text body = {0};
	rollup_encode(r, &body);
	if (!body.failed)
		rollup_chunk_put(chunk, start_ms, span_ms, body.data, body.length);
	chunk->failed = chunk->failed || body.failed;
	text_free(&body);
}

int
rollup_chunk_next(const void *chunk, size_t length, size_t *at, struct rollup_window *ret)
{
	struct bytes in = {.at = (const uint8_t *)chunk + *at, .left = length - *at};
	if (in.left == 0)
		return 0;
	ret->start_ms = get(&in);
	ret->span_ms = get(&in);
	ret->length = get(&in);
	ret->bytes = get_bytes(&in, ret->length);
	*at = length - in.left;
	return in.bad ? -1 : 1;
}
