/* Ended requests' detail, kept until 8 MiB of newer ones have come. The sender takes what the
 * gateway wants by key; what is not there any more is gone. */
#include "_engine_detail.h"

enum {
	NOWHERE = DETAIL_RECORDS_MAX,
	NUMBER_MASK = (1 << DETAIL_KIND_SHIFT) - 1,
};

/* Every request puts one in and pushes one out; few are ever asked for. So these are found by a
 * search through the hashes (at most 128 KiB, 10 us), and nothing else has to be kept in order. */
static struct {
	struct record *records[DETAIL_RECORDS_MAX]; /* NULL: taken out */
	uint32_t hashes[DETAIL_RECORDS_MAX];
	uint32_t first, count;
	size_t bytes;
} kept;

static struct {
	char keys[DETAIL_DUE_MAX][KEY_LEN + 1];
	uint32_t first, count;
} due;

/* --- what is kept, found by its key --------------------------------------------------------- */

/* Of both IDs: who calls the app round the gateway may repeat one of them for ever. */
static uint32_t
key_hash(const char *key)
{
	uint64_t hash = 0, word;
	for (size_t at = 0; at < TRACE_LEN + SPAN_LEN; at += sizeof(word)) {
		memcpy(&word, key + at + (at >= TRACE_LEN), sizeof(word)); /* past the dash */
		hash = (hash ^ word) * UINT64_C(0xbf58476d1ce4e5b9);
		hash ^= hash >> 32;
	}
	hash *= UINT64_C(0x94d049bb133111eb); /* the last digits are a word's high bits */
	hash ^= hash >> 32;
	hash *= UINT64_C(0xbf58476d1ce4e5b9);
	hash ^= hash >> 32;
	return (uint32_t)hash;
}

/* The place of this key, or NOWHERE; of the newest where a client has used it twice. */
static uint32_t
find(const char *key)
{
	uint32_t hash = key_hash(key);
	for (uint32_t i = kept.count; i-- > 0;) {
		uint32_t place = (kept.first + i) % DETAIL_RECORDS_MAX;
		if (kept.hashes[place] == hash && kept.records[place] != NULL &&
		    memcmp(kept.records[place]->key, key, KEY_LEN) == 0)
			return place;
	}
	return NOWHERE;
}

/* Takes the record at this place out; the caller owns it then. */
static struct record *
take_out(uint32_t place)
{
	struct record *record = kept.records[place];
	kept.records[place] = NULL;
	kept.bytes -= record->bytes;
	return record;
}

static void
record_free(struct record *record)
{
	deep_free(record->deep);
	free(record);
}

static void
drop_oldest(void)
{
	if (kept.records[kept.first] != NULL)
		record_free(take_out(kept.first));
	kept.first = (kept.first + 1) % DETAIL_RECORDS_MAX;
	kept.count--;
}

/* Takes the record. */
static void
keep_for_a_while(struct record *record)
{
	while (kept.count > 0 &&
	       (kept.count == DETAIL_RECORDS_MAX || kept.bytes + record->bytes > DETAIL_RING_BYTES))
		drop_oldest();
	if (record->bytes > DETAIL_RING_BYTES) {
		record_free(record);
		return;
	}
	uint32_t place = (kept.first + kept.count++) % DETAIL_RECORDS_MAX;
	kept.records[place] = record;
	kept.hashes[place] = key_hash(record->key);
	kept.bytes += record->bytes;
	/* Who goes next was written thousands of requests ago. */
	__builtin_prefetch(kept.records[kept.first]);
}

static void
note_due(const char *key)
{
	if (due.count == DETAIL_DUE_MAX) { /* the sender is behind: the oldest may be asked for */
		due.first = (due.first + 1) % DETAIL_DUE_MAX;
		due.count--;
	}
	memcpy(due.keys[(due.first + due.count++) % DETAIL_DUE_MAX], key, KEY_LEN + 1);
}

void
record_keep(struct record *record, bool wanted)
{
	if (wanted)
		note_due(record->key);
	keep_for_a_while(record);
}

/* --- as JSON -------------------------------------------------------------------------------- */

static void
write_pair(struct writer *w, int64_t number)
{
	write_text(w, ",");
	write_number(w, number);
}

static void
write_timeline(struct writer *w, struct record *record, uint32_t number)
{
	const struct detail_segment *segments = record_segments(record);
	bool any = false;
	for (uint32_t i = 0; i < record->segments; i++) {
		if ((segments[i].lane & NUMBER_MASK) != number)
			continue;
		if (any)
			write_text(w, ",");
		any = true;
		write_number(w, segments[i].ns);
		write_pair(w, segments[i].lane >> DETAIL_KIND_SHIFT);
		write_pair(w, segments[i].stack);
		write_pair(w, segments[i].waker);
	}
}

static void
write_lane(struct writer *w, struct record *record, uint32_t number)
{
	static const char *const KINDS[] = {"task", "thread", "callback"};
	const struct detail_lane *lane = &record_lanes(record)[number - 1];
	write_text(w, number > 1 ? ",[" : "[");
	write_number(w, number);
	write_pair(w, lane->parent);
	write_text(w, ",");
	write_quoted(w, KINDS[lane->kind]);
	write_pair(w, lane->name);
	write_pair(w, lane->created_ns - record->enter_ns);
	if (lane->ended)
		write_pair(w, lane->last_ns - record->enter_ns);
	else
		write_text(w, ",null");
	write_pair(w, lane->run_ns);
	write_pair(w, lane->ready_ns);
	write_pair(w, lane->wait_ns);
	write_text(w, ",[");
	write_timeline(w, record, number);
	write_text(w, "]]");
}

static void
write_path(struct writer *w, struct record *record)
{
	static const char *const KINDS[] = {"run", "ready", "wait", "thread_queue", "thread_run"};
	const struct detail_step *steps = record_steps(record);
	for (uint32_t i = 0; i < record->steps; i++) {
		write_text(w, i > 0 ? ",[" : "[");
		write_quoted(w, KINDS[steps[i].kind]);
		write_text(w, ",");
		write_text(w, cause_name(steps[i].cause));
		write_pair(w, steps[i].stack);
		write_pair(w, steps[i].ns);
		write_text(w, steps[i].exact ? ",1]" : ",0]");
	}
}

void
record_write(struct writer *w, struct record *record)
{
	write_text(w, "[");
	write_quoted(w, record->key);
	write_text(w, record->truncated ? ",1,[" : ",0,[");
	for (uint32_t i = 1; i <= record->lanes; i++)
		write_lane(w, record, i);
	write_text(w, "],[");
	write_path(w, record);
	write_text(w, "],");
	if (record->deep != NULL)
		deep_write(w, record->deep);
	else
		write_text(w, "null");
	write_text(w, "]");
}

/* --- what the sender calls ------------------------------------------------------------------ */

/* details_due() -> list of keys whose detail is to be sent unasked. */
static PyObject *
details_due(PyObject *module, PyObject *unused)
{
	PyObject *list = PyList_New(0);
	(void)module;
	(void)unused;
	for (; list != NULL && due.count > 0; due.count--) {
		PyObject *key = PyUnicode_FromString(due.keys[due.first]);
		if (key == NULL || PyList_Append(list, key) < 0)
			Py_CLEAR(list);
		Py_XDECREF(key);
		due.first = (due.first + 1) % DETAIL_DUE_MAX;
	}
	return list;
}

/* detail(key) -> its row as JSON; None where it is gone. It is written without the GIL. */
static PyObject *
detail(PyObject *module, PyObject *arg)
{
	Py_ssize_t len;
	const char *key = PyUnicode_AsUTF8AndSize(arg, &len);
	(void)module;
	if (key == NULL)
		return NULL;
	uint32_t place = len == KEY_LEN ? find(key) : NOWHERE;
	if (place == NOWHERE)
		Py_RETURN_NONE;
	struct record *record = take_out(place);
	char *bytes = malloc(DETAIL_ROW_BYTES_MAX);
	struct writer writer = {.at = bytes, .end = bytes + DETAIL_ROW_BYTES_MAX};
	if (bytes != NULL) {
		Py_BEGIN_ALLOW_THREADS record_write(&writer, record);
		Py_END_ALLOW_THREADS
	}
	record_free(record);
	PyObject *row = NULL;
	if (bytes != NULL && !writer.cut)
		row = PyBytes_FromStringAndSize(bytes, writer.at - bytes);
	free(bytes);
	if (row == NULL && !PyErr_Occurred())
		Py_RETURN_NONE;
	return row;
}

PyMethodDef record_functions[] = {
    {"details_due", details_due, METH_NOARGS, "details_due() -> list of keys to send unasked."},
    {"detail", detail, METH_O, "detail(key) -> bytes | None: a request's detail, taken out."},
    {NULL, NULL, 0, NULL},
};

void
record_after_fork(void)
{
	while (kept.count > 0)
		drop_oldest();
	due.count = 0;
}
