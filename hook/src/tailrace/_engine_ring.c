/* Finished rows on their way to the sender: bounded rings of length-prefixed records. Full: drop
 * and count. */
#include "_engine_detail.h"

#define BREATH_NS (20 * INT64_C(1000)) /* and what the piece under way still takes */
#define UNLOCKED_BYTES_MIN 4096        /* less is copied sooner than the GIL is given away */
#define REST_NS (20 * INT64_C(1000))   /* a thread that waits gets the GIL meanwhile */

struct ring {
	char *bytes;
	size_t size, head, used;
};

/* What was copied out of a ring. */
struct joined {
	size_t size, taken; /* bytes: of the text, of the ring */
	uint64_t records;
};

static struct ring profiles = {.size = PROFILE_RING_BYTES};
static struct ring tails = {.size = TAIL_RING_BYTES};
/* Each record begins with the number of the profile it goes beside. */
static struct ring beside[BESIDE_COUNT] = {[BESIDE_THREADS] = {.size = TAIL_RING_BYTES},
                                           [BESIDE_RETURNS] = {.size = TAIL_RING_BYTES},
                                           [BESIDE_HOLDS] = {.size = TAIL_RING_BYTES}};
static uint64_t profiles_put, profiles_taken;
static int64_t longest_held_ns; /* between two breaths, since it was asked for */

/* `at` is under twice the size: no division in the way of a request. */
static size_t
place(const struct ring *ring, size_t at)
{
	return at >= ring->size ? at - ring->size : at;
}

static void
copy_in(struct ring *ring, size_t at, const void *from, size_t len)
{
	at = place(ring, at);
	size_t first = len < ring->size - at ? len : ring->size - at;
	memcpy(ring->bytes + at, from, first);
	memcpy(ring->bytes, (const char *)from + first, len - first);
}

static void
copy_out(const struct ring *ring, size_t at, void *to, size_t len)
{
	at = place(ring, at);
	size_t first = len < ring->size - at ? len : ring->size - at;
	memcpy(to, ring->bytes + at, first);
	memcpy((char *)to + first, ring->bytes, len - first);
}

/* The oldest record is done with. What is written next to an empty ring finds its beginning in the
 * cache. */
static void
drop_oldest(struct ring *ring, size_t bytes)
{
	ring->used -= bytes;
	ring->head = ring->used > 0 ? place(ring, ring->head + bytes) : 0;
}

/* number: stored before the row, or NULL. */
static bool
ring_put(struct ring *ring, const uint64_t *number, const char *row, size_t len)
{
	size_t head = number != NULL ? sizeof(*number) : 0;
	uint32_t prefix = (uint32_t)(head + len);
	if (ring->bytes == NULL && (ring->bytes = malloc(ring->size)) == NULL) {
		engine_failed("memory");
		return false;
	}
	if (prefix + sizeof(prefix) > ring->size - ring->used)
		return false;
	size_t at = ring->head + ring->used;
	copy_in(ring, at, &prefix, sizeof(prefix));
	if (number != NULL)
		copy_in(ring, at + sizeof(prefix), number, head);
	copy_in(ring, at + sizeof(prefix) + head, row, len);
	ring->used += prefix + sizeof(prefix);
	return true;
}

bool
ring_put_profile(const char *row, size_t len)
{
	bool put = ring_put(&profiles, NULL, row, len);
	profiles_put += put;
	return put;
}

bool
ring_put_beside(enum beside which, const char *row, size_t len)
{
	return ring_put(&beside[which], &profiles_put, row, len);
}

bool
ring_put_tail(const char *row, size_t len)
{
	return ring_put(&tails, NULL, row, len);
}

int64_t
breathe_longest_ns(void)
{
	int64_t longest_ns = longest_held_ns;
	longest_held_ns = 0;
	return longest_ns;
}

void
breathe(int64_t *since_ns)
{
	const struct timespec rest = {.tv_nsec = REST_NS};
	int64_t held_ns = clock_now_ns() - *since_ns;
	if (held_ns < BREATH_NS)
		return;
	if (held_ns > longest_held_ns)
		longest_held_ns = held_ns;
	PyThreadState *thread = PyEval_SaveThread();
	nanosleep(&rest, NULL);
	PyEval_RestoreThread(thread);
	*since_ns = clock_now_ns();
}

/* Copies the oldest records within the first `due` bytes of the ring to `to`, joined by commas, as
 * far as they fit into `max` bytes. Works on a copy of the ring's head without the GIL: rows may be
 * put meanwhile, behind those that were there, and nobody else takes any. */
static void
join_oldest(struct joined *joined, const struct ring ring, size_t due, size_t max, char *to)
{
	while (joined->taken < due) {
		uint32_t len;
		size_t at = joined->size + (joined->size > 0);
		copy_out(&ring, ring.head + joined->taken, &len, sizeof(len));
		if (at + len > max)
			break;
		if (at > 0)
			to[at - 1] = ',';
		copy_out(&ring, ring.head + joined->taken + sizeof(len), to + at, len);
		joined->size = at + len;
		joined->taken += sizeof(len) + len;
		joined->records++;
	}
}

static PyObject *
take(struct ring *ring, size_t due, size_t max, uint64_t *ret_records)
{
	struct joined joined = {0};
	uint32_t first = 0;
	if (due > 0)
		copy_out(ring, ring->head, &first, sizeof(first));
	if (max > due)
		max = due;
	if (max < first)
		max = first;
	PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)max);
	if (result == NULL)
		return NULL;
	char *to = PyBytes_AS_STRING(result);
	if (max < UNLOCKED_BYTES_MIN) {
		join_oldest(&joined, *ring, due, max, to);
	} else {
		const struct ring now = *ring;
		PyThreadState *thread = PyEval_SaveThread();
		join_oldest(&joined, now, due, max, to);
		PyEval_RestoreThread(thread);
	}
	drop_oldest(ring, joined.taken);
	*ret_records = joined.records;
	_PyBytes_Resize(&result, (Py_ssize_t)joined.size);
	return result;
}

size_t
ring_due(void)
{
	return profiles.used;
}

PyObject *
ring_take(size_t due, size_t max)
{
	uint64_t taken, ignored;
	PyObject *rows = take(&profiles, due, max, &taken);
	PyObject *ends =
	    rows != NULL ? take(&tails, max > 0 ? tails.used : 0, max, &ignored) : NULL;
	if (rows != NULL)
		profiles_taken += taken;
	if (ends == NULL) {
		Py_XDECREF(rows);
		return NULL;
	}
	return Py_BuildValue("(NN)", rows, ends);
}

/* The oldest record where it goes beside a profile that was taken: its size without the number,
 * else 0. */
static size_t
beside_due(const struct ring *ring, size_t at)
{
	uint32_t len;
	uint64_t number;
	if (at >= ring->used)
		return 0;
	copy_out(ring, ring->head + at, &len, sizeof(len));
	copy_out(ring, ring->head + at + sizeof(len), &number, sizeof(number));
	return number <= profiles_taken ? len - sizeof(number) : 0;
}

PyObject *
ring_take_beside(enum beside which)
{
	struct ring *ring = &beside[which];
	const size_t before = sizeof(uint32_t) + sizeof(uint64_t);
	size_t size = 0, used = 0, at = 0, len;
	while ((len = beside_due(ring, used)) > 0) {
		size += len + (size > 0);
		used += before + len;
	}
	PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
	char *to = result != NULL ? PyBytes_AS_STRING(result) : NULL;
	while (result != NULL && at < size) {
		if (at > 0)
			to[at++] = ',';
		len = beside_due(ring, 0);
		copy_out(ring, ring->head + before, to + at, len);
		at += len;
		drop_oldest(ring, before + len);
	}
	return result;
}

void
ring_after_fork(void)
{
	for (int i = 0; i < BESIDE_COUNT; i++)
		beside[i].head = beside[i].used = 0;
	profiles_put = profiles_taken = 0;
	profiles.head = profiles.used = 0;
	tails.head = tails.used = 0;
}
