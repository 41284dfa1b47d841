/* A ring of packed windows. */
#include "model/recent.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"
#include "model/detector_blocks.h"

void
recent_init(struct recent *recent)
{
	memset(recent, 0, sizeof(*recent));
	for (size_t i = 0; i < RECENT_WINDOWS; i++)
		recent->windows[i].number = -1;
}

void
recent_clear(struct recent *recent)
{
	for (size_t i = 0; i < RECENT_WINDOWS; i++)
		free(recent->windows[i].packed);
	recent_init(recent);
}

void
recent_put(struct recent *recent, int64_t number, const struct detector_cell *cells, size_t count)
{
	struct recent_window *window = &recent->windows[number % RECENT_WINDOWS];
	uint64_t counts[DETECTOR_BUCKETS] = {0};
	uint8_t packed[DETECTOR_BLOCK_BYTES_MAX];

	assert(number >= 0);
	for (size_t i = 0; i < count; i++)
		counts[cells[i].bucket] += cells[i].count;
	free(window->packed);
	window->packed = NULL;
	window->number = number;
	window->size = (uint32_t)detector_pack(counts, packed);
	if (window->size == 0)
		return;
	window->packed = xcalloc(1, window->size);
	memcpy(window->packed, packed, window->size);
}

uint64_t
recent_sum(const struct recent *recent, int64_t from, int64_t until,
           uint64_t counts[DETECTOR_BUCKETS])
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	uint64_t sum = 0;

	for (size_t i = 0; i < RECENT_WINDOWS; i++) {
		const struct recent_window *window = &recent->windows[i];
		int used;

		if (window->number < from || window->number >= until || window->packed == NULL)
			continue;
		used = detector_unpack(window->packed, window->size, cells);
		for (int c = 0; c < used; c++) {
			counts[cells[c].bucket] += cells[c].count;
			sum += cells[c].count;
		}
	}
	return sum;
}
