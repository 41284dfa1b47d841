/* A ring of chunks; a block in its chunk: place, requests and length as variable-length integers,
 * then what detector_pack() made. */
#include "model/detector_blocks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/xmem.h"
#include "model/detector_pack.h"
#include "model/varint.h"

#define ROOM_STEP 256u /* by which a chunk grows */

void
detector_blocks_init(struct detector_blocks *blocks, unsigned kept)
{
	*blocks = (struct detector_blocks){.kept = kept, .newest = -1};
}

void
detector_blocks_clear(struct detector_blocks *blocks)
{
	for (unsigned i = 0; i < blocks->count; i++)
		free(blocks->chunks[i].bytes);
	free(blocks->chunks);
	detector_blocks_init(blocks, blocks->kept);
}

static struct detector_chunk *
chunk_at(const struct detector_blocks *blocks, int64_t number)
{
	return &blocks->chunks[(uint64_t)number % blocks->count];
}

static void
chunk_room(struct detector_chunk *chunk, uint32_t room)
{
	if (room == 0) {
		free(chunk->bytes);
		chunk->bytes = NULL;
	} else {
		chunk->bytes = xrealloc(chunk->bytes, room, 1);
	}
	chunk->room = room;
}

/* The chunk `number`, emptied where an older one lay there. The one before it gives back the room
 * that it did not need. */
static struct detector_chunk *
chunk_open(struct detector_blocks *blocks, int64_t number)
{
	struct detector_chunk *chunk;

	if (blocks->chunks == NULL) {
		blocks->count = DETECTOR_CHUNKS(blocks->kept);
		blocks->chunks = xcalloc(blocks->count, sizeof(*blocks->chunks));
		for (unsigned i = 0; i < blocks->count; i++)
			blocks->chunks[i].number = -1;
	}
	chunk = chunk_at(blocks, number);
	if (chunk->number == number)
		return chunk;
	if (blocks->newest >= 0) {
		struct detector_chunk *done =
		    chunk_at(blocks, blocks->newest / DETECTOR_CHUNK_BLOCKS);

		chunk_room(done, done->size);
	}
	chunk_room(chunk, 0);
	*chunk = (struct detector_chunk){.number = number};
	return chunk;
}

void
detector_blocks_put(struct detector_blocks *blocks, int64_t number,
                    const uint32_t counts[DETECTOR_BUCKETS])
{
	uint8_t packed[DETECTOR_PACKED_MAX], head[3 * VARINT_BYTES_MAX];
	size_t size = detector_pack(counts, packed), head_size;
	struct detector_chunk *chunk = chunk_open(blocks, number / DETECTOR_CHUNK_BLOCKS);
	uint64_t n = 0;
	uint32_t used;

	assert(number >= 0 && number > blocks->newest);
	blocks->newest = number;
	if (size == 0)
		return;
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++)
		n += counts[i];
	head_size = varint_put(head, (uint64_t)number % DETECTOR_CHUNK_BLOCKS);
	head_size += varint_put(head + head_size, n);
	head_size += varint_put(head + head_size, size);
	used = chunk->size + (uint32_t)(head_size + size);
	if (used > chunk->room)
		chunk_room(chunk, (used + ROOM_STEP - 1) / ROOM_STEP * ROOM_STEP);
	memcpy(chunk->bytes + chunk->size, head, head_size);
	memcpy(chunk->bytes + chunk->size + head_size, packed, size);
	chunk->size = used;
}

/* The block at *at, which moves behind it. False where there is none whole. */
static bool
read_block(int64_t chunk, const uint8_t *bytes, size_t size, size_t *at, struct detector_block *ret)
{
	uint64_t head[3];

	for (size_t i = 0; i < 3; i++) {
		size_t taken = varint_get(bytes + *at, size - *at, &head[i]);

		if (taken == 0)
			return false;
		*at += taken;
	}
	if (head[0] >= DETECTOR_CHUNK_BLOCKS || head[2] > size - *at)
		return false;
	*ret = (struct detector_block){.number = chunk * DETECTOR_CHUNK_BLOCKS + (int64_t)head[0],
	                               .n = head[1],
	                               .packed = bytes + *at,
	                               .size = head[2]};
	*at += head[2];
	return true;
}

bool
detector_blocks_next(const struct detector_blocks *blocks, struct detector_walk *walk,
                     struct detector_block *ret)
{
	int64_t first = blocks->newest / DETECTOR_CHUNK_BLOCKS - (int64_t)blocks->count + 1;

	for (; walk->chunk < blocks->count; walk->chunk++, walk->at = 0) {
		int64_t number = first + walk->chunk;
		const struct detector_chunk *chunk;

		if (number < 0)
			continue;
		chunk = chunk_at(blocks, number);
		if (chunk->number != number)
			continue;
		while (walk->at < chunk->size &&
		       read_block(number, chunk->bytes, chunk->size, &walk->at, ret))
			if (ret->number > blocks->newest - (int64_t)blocks->kept)
				return true;
	}
	return false;
}

size_t
detector_block_cells(const struct detector_block *block,
                     struct detector_cell ret_cells[DETECTOR_BUCKETS])
{
	int used = detector_unpack(block->packed, block->size, ret_cells);

	assert(used >= 0);
	return (size_t)used;
}

/* Whole blocks of rising numbers that say how many requests they hold. Returns the last one's
 * number, -1 where they are damaged. */
static int64_t
check(int64_t chunk, const uint8_t *bytes, size_t size, int64_t newest)
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	struct detector_block block;

	for (size_t at = 0; at < size; newest = block.number) {
		uint64_t n = 0;
		int used;

		if (!read_block(chunk, bytes, size, &at, &block) || block.number <= newest)
			return -1;
		used = detector_unpack(block.packed, block.size, cells);
		for (int i = 0; i < used; i++)
			n += cells[i].count;
		if (used <= 0 || n != block.n)
			return -1;
	}
	return newest;
}

int
detector_blocks_restore(struct detector_blocks *blocks, int64_t first, int64_t number,
                        const uint8_t *bytes, size_t size)
{
	int64_t newest = size > 0 ? check(number, bytes, size, blocks->newest) : -1;
	struct detector_block block;
	struct detector_chunk *chunk;
	size_t at = 0;

	if (newest < 0)
		return -1;
	if (!read_block(number, bytes, size, &at, &block) || block.number < first)
		return 0;
	chunk = chunk_open(blocks, number);
	if (chunk->size > 0)
		return -1;
	chunk_room(chunk, (uint32_t)size);
	memcpy(chunk->bytes, bytes, size);
	chunk->size = (uint32_t)size;
	blocks->newest = newest;
	return 0;
}
