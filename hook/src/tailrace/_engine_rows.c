/* From paths to the rows of docs/protocol.md: segments cut to the window asked for, equal ones
 * added up, the rest unattributed, written as JSON. The scratch space is shared: all of this
 * runs under the GIL and calls nothing. */
#include "_engine_detail.h"

enum {
	ROW_SLOTS = REQUEST_ROWS_MAX * 2,
	LISTED_ROWS_MAX = REQUEST_ROWS_MAX - REQUEST_STALLS_MAX, /* both breakdowns */
	BREAKDOWN_ROWS_MAX = LISTED_ROWS_MAX * 3 / 4,            /* leaves the stream some */
	ONE_ROW_MAX = 224 + ROUTE_BYTES_MAX * 6,
	BREAKDOWN_BYTES = 96 << 10,
	STREAM_BYTES = 96 << 10,
	STALL_BYTES = 32 << 10,
	HOLD_BYTES = 8 << 10,
	HEAD_BYTES = 512 + ROUTE_BYTES_MAX * 6, /* all that is in none of the three lists */
	NUMBER_MAX = 24
};
_Static_assert(BREAKDOWN_BYTES + STREAM_BYTES + STALL_BYTES + HEAD_BYTES <= ROW_BYTES_MAX,
               "a profile with all its lists full has room");
_Static_assert(STALL_BYTES >= REQUEST_STALLS_MAX * 192 + ONE_ROW_MAX, "stalls of plain routes fit");
_Static_assert(HOLD_BYTES >= REQUEST_HOLDS_MAX * 192 + ONE_ROW_MAX, "holds of plain routes fit");

/* A loop that is free for so long has called whom it could. */
#define HOLD_GAP_NS (20 * NS_PER_MS)

struct row {
	const struct node *node; /* kind, cause, exact, by */
	int32_t stack;
	int64_t ns;
	uint32_t count, samples, slot;
};

struct merged {
	struct row rows[REQUEST_ROWS_MAX];
	uint16_t slots[ROW_SLOTS]; /* index + 1; of a row that is no more: 0 */
	int len;
	int stacks;
};

struct text {
	char *at, *end;
	bool cut; /* something had no room */
};

struct suffered {
	const struct stall *stall;
	int64_t ns; /* of it, while the request was due */
};

static struct merged merged;
static const struct node *chain[PATH_SEGMENTS_MAX + 1];
static char breakdown_text[BREAKDOWN_BYTES], stream_text[STREAM_BYTES], stall_text[STALL_BYTES];
static char row_text[ROW_BYTES_MAX], hold_text[HOLD_BYTES];

#define TEXT(buffer)                                             \
	{                                                        \
		.at = (buffer), .end = (buffer) + sizeof(buffer) \
	}

/* --- writing ---------------------------------------------------------------------------------- */

static void
put(struct text *text, const char *from, size_t len)
{
	if ((size_t)(text->end - text->at) < len) {
		text->cut = true;
		return;
	}
	memcpy(text->at, from, len);
	text->at += len;
}

static void
put_text(struct text *text, const char *from)
{
	put(text, from, strlen(from));
}

/* Two digits at a time. */
static void
put_number(struct text *text, int64_t number)
{
	static const char PAIRS[] = "00010203040506070809101112131415161718192021222324"
	                            "25262728293031323334353637383940414243444546474849"
	                            "50515253545556575859606162636465666768697071727374"
	                            "75767778798081828384858687888990919293949596979899";
	char digits[NUMBER_MAX];
	int i = NUMBER_MAX;
	uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
	for (; rest >= 100; rest /= 100) {
		i -= 2;
		memcpy(digits + i, PAIRS + 2 * (rest % 100), 2);
	}
	if (rest >= 10)
		memcpy(digits + (i -= 2), PAIRS + 2 * rest, 2);
	else
		digits[--i] = (char)('0' + rest);
	if (number < 0)
		digits[--i] = '-';
	put(text, digits + i, (size_t)(NUMBER_MAX - i));
}

static void
put_time(struct text *text, int64_t ns)
{
	if (ns == NO_TIME)
		put(text, "null", 4);
	else
		put_number(text, ns);
}

static void
put_quoted(struct text *text, const char *from)
{
	if (from == NULL) {
		put(text, "null", 4);
		return;
	}
	put(text, "\"", 1);
	put_text(text, from);
	put(text, "\"", 1);
}

static const char *
kind_name(uint8_t kind)
{
	static const char *const NAMES[] = {
	    [SEG_RUN] = "[\"run\",",
	    [SEG_READY] = "[\"ready\",",
	    [SEG_WAIT] = "[\"wait\",",
	    [SEG_THREAD_QUEUE] = "[\"thread_queue\",",
	    [SEG_THREAD_RUN] = "[\"thread_run\",",
	};
	return NAMES[kind];
}

static void
put_row(struct text *text, const struct row *row)
{
	put_text(text, kind_name(row->node->kind));
	put_text(text, cause_name(row->node->cause));
	put(text, ",", 1);
	put_number(text, row->stack);
	put(text, ",", 1);
	put_number(text, row->ns);
	put(text, ",", 1);
	put_number(text, row->count > 0 ? row->count : 1);
	put_text(text, row->node->exact ? ",1," : ",0,");
	put_number(text, row->samples);
	put(text, ",", 1);
	put_quoted(text, row->node->by != NULL ? row->node->by->trace : NULL);
	put(text, ",", 1);
	put_quoted(text, row->node->by != NULL ? row->node->by->route : NULL);
	put(text, "]", 1);
}

/* --- merging ---------------------------------------------------------------------------------- */

static bool
row_fits(const struct row *row, const struct node *node, int32_t stack)
{
	return row->node->kind == node->kind && row->node->cause == node->cause &&
	       row->stack == stack && row->node->exact == node->exact && row->node->by == node->by;
}

/* The row for this segment; NULL where there are as many as may be. */
static struct row *
row_for(struct request *request, const struct node *node, int32_t stack, int rows_max)
{
	uint32_t hash = (uint32_t)stack * 2654435761u + node->kind * 31u + node->cause * 131u +
	                node->exact * 7u + (uint32_t)((uintptr_t)node->by >> 4);
	uint32_t slot = (hash ^ hash >> 15) & (ROW_SLOTS - 1);
	for (; merged.slots[slot] != 0; slot = (slot + 1) & (ROW_SLOTS - 1))
		if (row_fits(&merged.rows[merged.slots[slot] - 1], node, stack))
			return &merged.rows[merged.slots[slot] - 1];
	if (stack >= 0 && merged.stacks >= REQUEST_STACKS_MAX) {
		request->truncated = true;
		engine.rows_over++;
		return row_for(request, node, STACK_NONE, rows_max);
	}
	if (merged.len == rows_max)
		return NULL;
	struct row *row = &merged.rows[merged.len++];
	*row = (struct row){.node = node, .stack = stack, .slot = slot};
	merged.slots[slot] = (uint16_t)merged.len;
	merged.stacks += stack >= 0;
	return row;
}

static int64_t
overlap(int64_t begin_ns, int64_t end_ns, int64_t from_ns, int64_t to_ns)
{
	begin_ns = begin_ns > from_ns ? begin_ns : from_ns;
	end_ns = end_ns < to_ns ? end_ns : to_ns;
	return end_ns > begin_ns ? end_ns - begin_ns : 0;
}

/* The path's segments in the window, oldest first, into chain[]. Returns how many. */
static int
collect(const struct node *path, int64_t from_ns)
{
	int len = 0;
	for (; path != NULL && path->parent != NULL && path->end_ns > from_ns; path = path->parent)
		chain[PATH_SEGMENTS_MAX - len++] = path;
	return len;
}

/* The path between two times as merged.rows, at most rows_max. */
static void
merge(struct request *request, const struct node *path, int64_t from_ns, int64_t to_ns,
      int rows_max)
{
	int len = collect(path, from_ns);
	const struct node *const *segments = &chain[PATH_SEGMENTS_MAX + 1 - len];
	if (path != NULL && path->depth >= PATH_SEGMENTS_MAX)
		request->truncated = true;
	while (merged.len > 0)
		merged.slots[merged.rows[--merged.len].slot] = 0;
	merged.stacks = 0;
	struct row *last = NULL, *before = NULL; /* a loop of awaits comes back to the same two */
	for (int i = 0; i < len; i++) {
		int64_t ns =
		    overlap(segments[i]->parent->end_ns, segments[i]->end_ns, from_ns, to_ns);
		if (ns <= 0)
			continue;
		int32_t stack = detail_stack(request, segments[i]->stack);
		struct row *row = before != NULL && row_fits(before, segments[i], stack)
		                      ? before
		                      : row_for(request, segments[i], stack, rows_max);
		before = last;
		last = row;
		if (row == NULL) {
			request->truncated = true;
			engine.rows_over++;
			continue;
		}
		row->ns += ns;
		row->count += segments[i]->count;
		row->samples += segments[i]->samples;
	}
}

/* Writes rows of the path between two times, as many as have room, at most rows_max; returns how
 * many. What they leave of the time goes to ret_left_ns. */
static int
write_rows(struct request *request, const struct node *path, int64_t from_ns, int64_t to_ns,
           int rows_max, struct text *text, int64_t *ret_left_ns)
{
	int written = 0;
	*ret_left_ns = to_ns - from_ns;
	merge(request, path, from_ns, to_ns, rows_max);
	for (; written < merged.len && text->end - text->at >= ONE_ROW_MAX; written++) {
		if (written > 0)
			put(text, ",", 1);
		put_row(text, &merged.rows[written]);
		*ret_left_ns -= merged.rows[written].ns;
	}
	if (written < merged.len)
		request->truncated = true;
	return written;
}

/* --- stalls ----------------------------------------------------------------------------------- */

static int64_t
ready_overlap(const struct node *path, const struct stall *stall, int64_t enter_ns)
{
	int64_t sum_ns = 0;
	for (; path != NULL && path->parent != NULL && path->end_ns > stall->begin_ns;
	     path = path->parent)
		if (path->kind == SEG_READY && path->end_ns > enter_ns)
			sum_ns += overlap(path->parent->end_ns, path->end_ns, stall->begin_ns,
			                  stall->end_ns);
	return sum_ns;
}

/* Without the end of the row. */
static void
put_stall(struct text *text, const struct stall *stall, int64_t ns)
{
	static const char *const STATES[] = {"null", "\"blocked\"", "\"busy\""};
	static const char *const KINDS[] = {",\"step\",", ",\"callback\",", ",\"io_callback\","};
	put(text, "[", 1);
	put_quoted(text, stall->who != NULL ? stall->who->trace : NULL);
	put(text, ",", 1);
	put_quoted(text, stall->who != NULL ? stall->who->route : NULL);
	put_text(text, KINDS[stall->kind]);
	put_text(text, STATES[stall->state]);
	put(text, ",", 1);
	put_number(text, ns);
	put_text(text, stall->kind == STALL_IO_CALLBACK ? ",0," : ",1,");
	int32_t stack = stall->stack;
	if (stack == STACK_LANE)
		stack = stall->who != NULL ? stall->who->first_stack : STACK_NONE;
	put_number(text, stack);
}

/* What of the loop's log held the loop while this request was due: the costliest to it, in that
 * order, of equals the newest first. Returns how many; the rest is counted. */
static int
choose_stalls(struct request *request, struct suffered *chosen)
{
	const struct loop *loop = request->loop;
	const struct node *path =
	    request->end_path != NULL ? request->end_path : request->start_path;
	int64_t since_ns = request->part > 0 ? request->part_ns : request->enter_ns;
	int len = 0;
	uint32_t first = loop->stalls_next > STALL_LOG_MAX ? loop->stalls_next - STALL_LOG_MAX : 0;
	for (uint32_t i = loop->stalls_next; i > first; i--) {
		const struct stall *stall = &loop->stalls[(i - 1) % STALL_LOG_MAX];
		if (stall->end_ns <= since_ns)
			break;
		int64_t ns = ready_overlap(path, stall, since_ns);
		if (ns <= 0)
			continue;
		int at = len;
		if (len < REQUEST_STALLS_MAX) {
			len++;
		} else {
			request->truncated = true;
			engine.rows_over++;
			if (ns <= chosen[--at].ns)
				continue;
		}
		for (; at > 0 && chosen[at - 1].ns < ns; at--)
			chosen[at] = chosen[at - 1];
		chosen[at] = (struct suffered){.stall = stall, .ns = ns};
	}
	return len;
}

/* Steps that held the loop while this request was due. */
static void
write_stalls(struct request *request, struct text *text)
{
	struct suffered chosen[REQUEST_STALLS_MAX];
	int len = request->loop != NULL ? choose_stalls(request, chosen) : 0;
	for (int i = 0; i < len; i++) {
		if (text->end - text->at < ONE_ROW_MAX) {
			request->truncated = true;
			engine.rows_over += (uint64_t)(len - i);
			break;
		}
		if (i > 0)
			put(text, ",", 1);
		put_stall(text, chosen[i].stall, chosen[i].ns);
		put(text, "]", 1);
	}
}

/* --- the whole row ---------------------------------------------------------------------------- */

static void
put_key(struct text *text, const struct request *request)
{
	char key[KEY_LEN];
	request_key(request, key);
	put(text, "[\"", 2);
	put(text, key, sizeof(key));
	put(text, "\",", 2);
}

static void
put_head(struct text *text, const struct request *request, int64_t tail_ns, bool is_final)
{
	static const char *const ENDED[] = {"response", "exception", "disconnect", "cancelled",
	                                    "open"};
	put_key(text, request);
	put_number(text, request->part);
	put_text(text, is_final ? ",1," : ",0,");
	put_quoted(text, request->who->route);
	put(text, ",", 1);
	put_time(text, request->queued_ns);
	put(text, ",", 1);
	put_number(text, request->enter_ns);
	put(text, ",", 1);
	put_time(text, request->start_ns);
	put(text, ",", 1);
	put_number(text, request->end_ns);
	put(text, ",", 1);
	put_time(text, tail_ns);
	put(text, ",", 1);
	put_quoted(text, ENDED[is_final ? request->ended : ENDED_OPEN]);
	put_text(text, request->truncated ? ",1,[" : ",0,[");
}

/* Beside its profile: what held the loop before its ASGI call, without a pause in which the loop
 * could have called it. How much of that it waited for only the gateway knows, which sent it. */
static void
emit_holds(const struct request *request)
{
	struct text text = TEXT(hold_text);
	const struct loop *loop = request->loop;
	int64_t since_ns = request->enter_ns;
	int written = 0;
	if (loop == NULL || loop->stalls_next == 0 || request->part > 0)
		return;
	uint32_t first = loop->stalls_next > STALL_LOG_MAX ? loop->stalls_next - STALL_LOG_MAX : 0;
	for (uint32_t i = loop->stalls_next; i > first && written < REQUEST_HOLDS_MAX; i--) {
		const struct stall *stall = &loop->stalls[(i - 1) % STALL_LOG_MAX];
		if (stall->begin_ns + LONG_STEP_MIN_NS > since_ns) /* with its call, or later */
			continue;
		if (stall->end_ns + HOLD_GAP_NS < since_ns || text.end - text.at < ONE_ROW_MAX)
			break;
		if (written++ == 0) {
			put_key(&text, request);
			put(&text, "[", 1);
		} else {
			put(&text, ",", 1);
		}
		put_stall(&text, stall, stall->end_ns - stall->begin_ns);
		put(&text, ",", 1);
		put_number(&text, stall->begin_ns);
		put(&text, "]", 1);
		since_ns = stall->begin_ns;
	}
	put(&text, "]]", 2);
	if (written > 0 && !ring_put_beside(BESIDE_HOLDS, hold_text, (size_t)(text.at - hold_text)))
		engine.rows_over++;
}

/* The request's profile (or the part of it since the last one) into the ring. */
void
rows_emit(struct request *request, int64_t tail_ns, bool is_final)
{
	struct text rows = TEXT(breakdown_text), stream = TEXT(stream_text);
	struct text stalls = TEXT(stall_text), all = TEXT(row_text);
	bool started = request->start_ns != NO_TIME;
	int64_t left_ns = 0, stream_left_ns = 0;
	int listed = 0;
	if (engine.disabled) /* what it saw since is not whole */
		return;
	if (request->part == 0)
		listed =
		    write_rows(request, started ? request->start_path : request->end_path,
		               request->enter_ns, started ? request->start_ns : request->end_ns,
		               BREAKDOWN_ROWS_MAX, &rows, &left_ns);
	if (started)
		write_rows(request, request->end_path,
		           request->part > 0 ? request->part_ns : request->start_ns,
		           request->end_ns, LISTED_ROWS_MAX - listed, &stream, &stream_left_ns);
	write_stalls(request, &stalls);
	put_head(&all, request, tail_ns, is_final);
	put(&all, breakdown_text, (size_t)(rows.at - breakdown_text));
	put(&all, "],", 2);
	put_number(&all, left_ns);
	put(&all, ",[", 2);
	put(&all, stream_text, (size_t)(stream.at - stream_text));
	put(&all, "],", 2);
	put_number(&all, stream_left_ns);
	put(&all, ",[", 2);
	put(&all, stall_text, (size_t)(stalls.at - stall_text));
	put_text(&all, "],null]");
	if (rows.cut || stream.cut || stalls.cut || all.cut ||
	    !ring_put_profile(row_text, (size_t)(all.at - row_text))) {
		engine.dropped++;
	} else {
		jobs_emit(request);
		emit_holds(request);
	}
}

void
rows_emit_tail(const struct request *request, int64_t tail_ns)
{
	char bytes[128];
	struct text text = TEXT(bytes);
	put_key(&text, request);
	put_number(&text, tail_ns);
	put(&text, "]", 1);
	if (!ring_put_tail(bytes, (size_t)(text.at - bytes)))
		engine.tails_dropped++;
}
