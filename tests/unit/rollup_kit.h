/* What the tests of rollups and causes share: random exchanges, comparing, a source of numbers. */
#ifndef TAILRACE_TESTS_ROLLUP_KIT_H
#define TAILRACE_TESTS_ROLLUP_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/xmem.h"
#include "model/flame.h"
#include "model/rollup.h"

static inline uint64_t
kit_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline double
kit_uniform(uint64_t *state)
{
	return (double)(kit_random(state) >> 11) / 9007199254740992.0;
}

/* Interns "app:a/app:b/lib:c": frames of a module named lib are not the app's. */
static inline uint64_t
kit_stack(struct flame *flame, const char *frames)
{
	struct text json = {0};
	char copy[512], *save = NULL;
	snprintf(copy, sizeof(copy), "%s", frames);
	text_puts(&json, "[");
	for (char *f = strtok_r(copy, "/", &save); f != NULL; f = strtok_r(NULL, "/", &save)) {
		char *colon = strchr(f, ':');
		*colon = '\0';
		text_printf(&json,
		            "%s{\"module\":\"%s\",\"function\":\"%s\",\"file\":\"%s.py\","
		            "\"line\":7,\"in_app\":%s}",
		            json.length > 1 ? "," : "", f, colon + 1, f,
		            strcmp(f, "lib") == 0 ? "false" : "true");
	}
	text_puts(&json, "]");
	uint64_t id = flame_learn(flame, json.data, json.length, 1);
	text_free(&json);
	return id;
}

/* The sum of the cells of all rows of one population. */
static inline uint64_t
kit_rows_ns(const struct rollup *r, bool alone)
{
	uint64_t ns = 0;
	for (size_t i = 0; i < r->row_count; i++) {
		uint64_t cells = 0;
		for (size_t k = 0; k < r->rows[i].cell_count; k++)
			cells += r->rows[i].cells[k].ns;
		assert_int_equal(cells, r->rows[i].ns);
		ns += rollup_is_alone(&r->rows[i].key) == alone ? cells : 0;
	}
	return ns;
}

/* Every sum of `r` is whole: rows of the joined are their time, bands their number. */
static inline void
kit_whole(const struct rollup *r)
{
	uint64_t joined = 0, alone = 0;
	for (size_t i = 0; i < ROLLUP_BANDS; i++) {
		joined += r->bands[i].joined;
		alone += r->bands[i].alone;
	}
	assert_int_equal(joined, r->joined);
	assert_int_equal(joined + alone, r->requests);
	assert_int_equal(kit_rows_ns(r, false), r->joined_ns);
	assert_int_equal(kit_rows_ns(r, true), r->total.sum_ns - r->joined_ns);
	assert_int_equal(r->total.count, r->requests);
}

static inline int
kit_by_key(const void *a, const void *b)
{
	const struct rollup_key *x = &(*(const struct rollup_row *const *)a)->key;
	const struct rollup_key *y = &(*(const struct rollup_row *const *)b)->key;
	if (x->stack != y->stack)
		return x->stack < y->stack ? -1 : 1;
	return (x->kind << 8 | x->cause) - (y->kind << 8 | y->cause);
}

/* The same content, whatever the order of rows: as bytes. */
static inline struct text
kit_bytes(const struct rollup *r)
{
	struct rollup copy = *r;
	struct text out = {0};
	const struct rollup_row **order = xcalloc(r->row_count + 1, sizeof(*order));
	copy.rows = xcalloc(r->row_count + 1, sizeof(*copy.rows));
	copy.total.min_ns = copy.total.max_ns = 0; /* cannot be subtracted */
	for (size_t i = 0; i < r->row_count; i++)
		order[i] = &r->rows[i];
	qsort(order, r->row_count, sizeof(*order), kit_by_key);
	for (size_t i = 0; i < r->row_count; i++)
		copy.rows[i] = *order[i];
	rollup_encode(&copy, &out);
	free(copy.rows);
	free(order);
	return out;
}

static inline void
kit_equal(const struct rollup *a, const struct rollup *b)
{
	struct text x = kit_bytes(a), y = kit_bytes(b);
	assert_int_equal(x.length, y.length);
	assert_memory_equal(x.data, y.data, x.length);
	text_free(&x);
	text_free(&y);
}

/* One exchange with `parts` rows of the given stacks and what is left as `wait` or no profile. */
static inline void
kit_exchange(struct rollup *r, uint64_t *state, const uint64_t *stacks, size_t stack_count)
{
	struct rollup_part parts[16];
	struct rollup_exchange x = {.parts = parts};
	x.joined = kit_random(state) % 4 != 0;
	x.sent = true;
	x.error = kit_random(state) % 10 == 0;
	x.dropped = !x.joined;
	x.bytes_in = kit_random(state) % 1000;
	x.bytes_out = kit_random(state) % 100000;
	x.part_count = x.joined ? 3 + kit_random(state) % 8 : 2;
	for (size_t i = 0; i < x.part_count; i++) {
		struct rollup_part *part = &parts[i];
		*part = (struct rollup_part){.ns = kit_random(state) % 1000000 *
		                                   (1 + kit_random(state) % 1000),
		                             .count = 1 + kit_random(state) % 9};
		if (!x.joined)
			part->key =
			    (struct rollup_key){0, i ? ROLLUP_PHASE_ALONE : ROLLUP_NO_PROFILE,
			                        i ? PHASE_DRAIN : PROFILE_CAUSE_COUNT};
		else if (i == 0)
			part->key = (struct rollup_key){0, ROLLUP_PHASE, PHASE_QUEUE};
		else
			part->key = (struct rollup_key){stacks[kit_random(state) % stack_count],
			                                PROFILE_WAIT, PROFILE_CAUSE_DATABASE};
		x.total_ns += part->ns;
		x.phases_ns[i % PHASE_COUNT] = part->ns;
	}
	rollup_add(r, &x);
}

#endif
