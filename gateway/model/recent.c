/* A ring of packed windows. */
#include "model/recent.h"

void
recent_init(struct recent *recent)
{
	detector_blocks_init(&recent->windows, RECENT_WINDOWS);
}

void
recent_clear(struct recent *recent)
{
	detector_blocks_clear(&recent->windows);
}

void
recent_put(struct recent *recent, int64_t number, const struct detector_cell *cells, size_t count)
{
	uint32_t counts[DETECTOR_BUCKETS] = {0};

	if (number <= recent->windows.newest)
		return;
	for (size_t i = 0; i < count; i++)
		counts[cells[i].bucket] += (uint32_t)cells[i].count;
	detector_blocks_put(&recent->windows, number, counts);
}

uint64_t
recent_sum(const struct recent *recent, int64_t from, int64_t until,
           uint64_t counts[DETECTOR_BUCKETS])
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	struct detector_walk walk = {0};
	struct detector_block window;
	uint64_t sum = 0;

	while (detector_blocks_next(&recent->windows, &walk, &window)) {
		size_t used;

		if (window.number < from || window.number >= until)
			continue;
		used = detector_block_cells(&window, cells);
		for (size_t i = 0; i < used; i++)
			counts[cells[i].bucket] += cells[i].count;
		sum += window.n;
	}
	return sum;
}
