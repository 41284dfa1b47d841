/* Finished rows on their way to the sender: two bounded rings of length-prefixed records. Full:
 * drop and count. */
#include "_engine.h"

struct ring {
	char *bytes;
	size_t size, head, used;
};

static struct ring profiles = {.size = PROFILE_RING_BYTES};
static struct ring tails = {.size = TAIL_RING_BYTES};

static void
copy_in(struct ring *ring, size_t at, const void *from, size_t len)
{
	at %= ring->size;
	size_t first = len < ring->size - at ? len : ring->size - at;
	memcpy(ring->bytes + at, from, first);
	memcpy(ring->bytes, (const char *)from + first, len - first);
}

static void
copy_out(const struct ring *ring, size_t at, void *to, size_t len)
{
	at %= ring->size;
	size_t first = len < ring->size - at ? len : ring->size - at;
	memcpy(to, ring->bytes + at, first);
	memcpy((char *)to + first, ring->bytes, len - first);
}

static bool
ring_put(struct ring *ring, const char *row, size_t len)
{
	uint32_t prefix = (uint32_t)len;
	if (ring->bytes == NULL && (ring->bytes = malloc(ring->size)) == NULL) {
		engine_failed("memory");
		return false;
	}
	if (len + sizeof(prefix) > ring->size - ring->used)
		return false;
	copy_in(ring, ring->head + ring->used, &prefix, sizeof(prefix));
	copy_in(ring, ring->head + ring->used + sizeof(prefix), row, len);
	ring->used += len + sizeof(prefix);
	return true;
}

bool
ring_put_profile(const char *row, size_t len)
{
	return ring_put(&profiles, row, len);
}

bool
ring_put_tail(const char *row, size_t len)
{
	return ring_put(&tails, row, len);
}

/* How many bytes the oldest whole records make, joined by commas, up to max. */
static size_t
joined_size(const struct ring *ring, size_t max)
{
	size_t at = 0, size = 0;
	while (at < ring->used) {
		uint32_t len;
		copy_out(ring, ring->head + at, &len, sizeof(len));
		if (size + len + (size > 0) > max)
			break;
		size += len + (size > 0);
		at += sizeof(len) + len;
	}
	return size;
}

static PyObject *
take(struct ring *ring, size_t max)
{
	size_t size = joined_size(ring, max), at = 0;
	PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	char *to = result != NULL ? PyBytes_AS_STRING(result) : NULL;
	while (result != NULL && at < size) {
		uint32_t len;
		if (at > 0)
			to[at++] = ',';
		copy_out(ring, ring->head, &len, sizeof(len));
		copy_out(ring, ring->head + sizeof(len), to + at, len);
		at += len;
		ring->head = (ring->head + sizeof(len) + len) % ring->size;
		ring->used -= sizeof(len) + len;
	}
	return result;
}

PyObject *
ring_take(size_t max_bytes)
{
	PyObject *rows = take(&profiles, max_bytes);
	PyObject *ends = rows != NULL ? take(&tails, max_bytes) : NULL;
	if (ends == NULL) {
		Py_XDECREF(rows);
		return NULL;
	}
	return Py_BuildValue("(NN)", rows, ends);
}

void
ring_after_fork(void)
{
	profiles.head = profiles.used = 0;
	tails.head = tails.used = 0;
}
