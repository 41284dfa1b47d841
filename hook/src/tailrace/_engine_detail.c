/* Detail of requests while they run, and what becomes of it at their end. */
#include "_engine_detail.h"

enum {
	SPARE_MAX = 512,
	SEGMENTS_FIRST = 32,
	LANES_FIRST = 4,
	KEEP_SLOTS = KEEP_ROUTES_MAX * 2,
};

/* While the request runs. */
struct detail {
	struct detail *next; /* spare */
	struct detail_lane *lanes;
	struct detail_segment *segments;
	uint32_t lane_count, lane_room, segment_count, segment_room;
	bool truncated;
};

struct keep {
	char *route; /* owned; JSON-escaped as in the requests */
	int64_t over_ns;
	uint32_t rate; /* of 2^32 */
};

static struct detail *spare;
static uint32_t spare_count;
static struct keep keeps[KEEP_SLOTS];
static uint32_t keep_count;
static uint64_t random_state = UINT64_C(0x9e3779b97f4a7c15);

/* --- while the request runs ----------------------------------------------------------------- */

static struct detail *
detail_new(void)
{
	struct detail *detail = spare;
	if (detail != NULL) {
		spare = detail->next;
		spare_count--;
		detail->lane_count = detail->segment_count = 0;
		detail->truncated = false;
		return detail;
	}
	detail = calloc(1, sizeof(*detail));
	if (detail == NULL)
		return NULL;
	detail->lanes = malloc(LANES_FIRST * sizeof(*detail->lanes));
	detail->segments = malloc(SEGMENTS_FIRST * sizeof(*detail->segments));
	detail->lane_room = detail->lanes != NULL ? LANES_FIRST : 0;
	detail->segment_room = detail->segments != NULL ? SEGMENTS_FIRST : 0;
	return detail;
}

static void
detail_free(struct detail *detail)
{
	bool small = detail->lane_room <= 8 * LANES_FIRST &&
	             detail->segment_room <= 8 * SEGMENTS_FIRST; /* big ones are rare */
	if (small && spare_count < SPARE_MAX) {
		detail->next = spare;
		spare = detail;
		spare_count++;
		return;
	}
	free(detail->lanes);
	free(detail->segments);
	free(detail);
}

/* Room for one more of items; false at the maximum or without memory. */
static bool
reserve(void **items, size_t size, uint32_t count, uint32_t *room, uint32_t max)
{
	if (count < *room)
		return true;
	uint32_t more = *room == 0 ? 4 : *room * 2;
	if (more > max)
		more = max;
	void *grown = more > *room ? realloc(*items, more * size) : NULL;
	if (grown == NULL)
		return false;
	*items = grown;
	*room = more;
	return true;
}

void
detail_begin(struct request *request)
{
	request->detail = detail_new();
}

void
detail_drop(struct request *request)
{
	if (request->detail != NULL)
		detail_free(request->detail);
	request->detail = NULL;
	deep_free(deep_take(request));
}

uint16_t
detail_lane(struct request *request, uint16_t parent, enum lane_kind kind, int32_t name,
            int64_t created_ns)
{
	struct detail *detail = request->detail;
	if (detail == NULL)
		return 0;
	if (!reserve((void **)&detail->lanes, sizeof(*detail->lanes), detail->lane_count,
	             &detail->lane_room, DETAIL_LANES_MAX)) {
		detail->truncated = true;
		return 0;
	}
	detail->lanes[detail->lane_count++] = (struct detail_lane){.created_ns = created_ns,
	                                                           .last_ns = created_ns,
	                                                           .name = name,
	                                                           .parent = parent,
	                                                           .kind = (uint8_t)kind};
	return (uint16_t)detail->lane_count;
}

void
detail_name(struct request *request, uint16_t number, int32_t name)
{
	if (request->detail != NULL && number != 0)
		request->detail->lanes[number - 1].name = name;
}

static void
add_to_sums(struct detail_lane *lane, enum segment_kind kind, int64_t ns)
{
	if (kind == SEG_RUN || kind == SEG_THREAD_RUN)
		lane->run_ns += ns;
	else if (kind == SEG_READY || lane->kind == LANE_THREAD)
		lane->ready_ns += ns;
	else
		lane->wait_ns += ns;
}

void
detail_add(struct request *request, uint16_t number, enum segment_kind kind, int32_t stack,
           uint16_t waker, int64_t until_ns)
{
	struct detail *detail = request->detail;
	if (detail == NULL || number == 0)
		return;
	struct detail_lane *lane = &detail->lanes[number - 1];
	int64_t ns = until_ns - lane->last_ns;
	if (ns <= 0)
		return;
	lane->last_ns = until_ns;
	add_to_sums(lane, kind, ns);
	if (!reserve((void **)&detail->segments, sizeof(*detail->segments), detail->segment_count,
	             &detail->segment_room, DETAIL_SEGMENTS_MAX)) {
		detail->truncated = true;
		return;
	}
	detail->segments[detail->segment_count++] = (struct detail_segment){
	    .ns = ns,
	    .stack = stack,
	    .lane = (uint16_t)(number | (unsigned)kind << DETAIL_KIND_SHIFT),
	    .waker = waker};
}

void
detail_lane_end(struct request *request, uint16_t number)
{
	if (request->detail != NULL && number != 0)
		request->detail->lanes[number - 1].ended = true;
}

/* --- the end of a request ------------------------------------------------------------------- */

int32_t
detail_stack(const struct request *request, int32_t stack)
{
	if (stack != STACK_LANE)
		return stack;
	if (request->who->first_stack >= 0 || request->root == NULL)
		return request->who->first_stack;
	return request->root->first_stack >= 0 ? request->root->first_stack : STACK_NONE;
}

static uint32_t
path_len(const struct node *path, int64_t from_ns)
{
	uint32_t len = 0;
	for (; path != NULL && path->parent != NULL && path->end_ns > from_ns; path = path->parent)
		len++;
	return len;
}

/* The last `room` segments of the path between two times, in order, to steps[0..room). */
static void
fill_steps(const struct request *request, const struct node *path, int64_t from_ns, int64_t to_ns,
           struct detail_step *steps, uint32_t room)
{
	for (; room > 0; path = path->parent) {
		int64_t begin_ns = path->parent->end_ns > from_ns ? path->parent->end_ns : from_ns;
		int64_t end_ns = path->end_ns < to_ns ? path->end_ns : to_ns;
		steps[--room] =
		    (struct detail_step){.ns = end_ns > begin_ns ? end_ns - begin_ns : 0,
		                         .stack = detail_stack(request, path->stack),
		                         .kind = path->kind,
		                         .cause = path->cause,
		                         .exact = path->exact};
	}
}

static struct record *
record_new(const struct request *request)
{
	const struct detail *detail = request->detail;
	bool started = request->start_ns != NO_TIME && request->part == 0;
	const struct node *first = started ? request->start_path : NULL;
	int64_t split_ns = started ? request->start_ns : request->enter_ns;
	uint32_t before = path_len(first, request->enter_ns);
	uint32_t after = path_len(request->end_path, split_ns);
	bool cut = before + after > DETAIL_PATH_MAX || request->part > 0;
	if (cut) /* an incomplete path would mislead */
		before = after = 0;
	size_t bytes = sizeof(struct record) + detail->lane_count * sizeof(struct detail_lane) +
	               detail->segment_count * sizeof(struct detail_segment) +
	               (before + after) * sizeof(struct detail_step);
	struct record *record = malloc(bytes);
	if (record == NULL)
		return NULL;
	*record = (struct record){.bytes = bytes,
	                          .enter_ns = request->enter_ns,
	                          .lanes = detail->lane_count,
	                          .segments = detail->segment_count,
	                          .steps = before + after,
	                          .truncated = detail->truncated || cut};
	request_key(request, record->key); /* its end is there already */
	memcpy(record_lanes(record), detail->lanes, record->lanes * sizeof(struct detail_lane));
	memcpy(record_segments(record), detail->segments,
	       record->segments * sizeof(struct detail_segment));
	for (uint32_t i = 0; i < record->segments; i++)
		record_segments(record)[i].stack =
		    detail_stack(request, record_segments(record)[i].stack);
	fill_steps(request, first, request->enter_ns, split_ns, record_steps(record), before);
	fill_steps(request, request->end_path, split_ns, request->end_ns,
	           record_steps(record) + before, after);
	return record;
}

/* --- which are sent unasked ----------------------------------------------------------------- */

static uint32_t
text_slot(const char *text)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (; *text != '\0'; text++)
		hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return (uint32_t)(hash >> 32) & (KEEP_SLOTS - 1);
}

static struct keep *
keep_find(const char *route)
{
	uint32_t i = text_slot(route);
	while (keeps[i].route != NULL && strcmp(keeps[i].route, route) != 0)
		i = (i + 1) & (KEEP_SLOTS - 1);
	return &keeps[i];
}

static uint32_t
random_u32(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32);
}

static bool
is_to_keep(const struct request *request)
{
	if (request->deep != NULL)
		return true;
	if (keep_count == 0 || request->who->route == NULL)
		return false;
	const struct keep *keep = keep_find(request->who->route);
	return keep->route != NULL &&
	       (request->end_ns - request->enter_ns >= keep->over_ns || random_u32() < keep->rate);
}

/* What still runs or waits at the end does so until then. */
static void
close_lanes(struct request *request)
{
	const struct detail *detail = request->detail;
	for (const struct lane *lane = request->lanes; lane != NULL; lane = lane->next)
		if (lane->running)
			detail_add(request, lane->number, SEG_RUN, lane->first_stack, 0,
			           request->end_ns);
	for (uint32_t i = 0; i < detail->lane_count; i++) {
		const struct detail_lane *lane = &detail->lanes[i];
		enum segment_kind kind = SEG_WAIT;
		if (lane->ended)
			continue;
		if (lane->kind == LANE_THREAD)
			kind = lane->name == STACK_NONE ? SEG_THREAD_QUEUE : SEG_THREAD_RUN;
		detail_add(request, (uint16_t)(i + 1), kind, STACK_NONE, 0, request->end_ns);
	}
}

void
detail_close(struct request *request)
{
	if (request->detail == NULL)
		return;
	bool wanted = is_to_keep(request);
	close_lanes(request);
	struct record *record = record_new(request);
	if (record != NULL) {
		record->deep = deep_take(request);
		record->bytes += deep_bytes(record->deep);
		record_keep(record, wanted);
	}
	detail_drop(request);
}

/* keep(route, over_ns, rate): which requests' detail is sent unasked; rate 0 to 1. */
static PyObject *
keep(PyObject *module, PyObject *args)
{
	const char *route;
	long long over_ns;
	double rate;
	char escaped[ROUTE_BYTES_MAX * 6 + 3];
	(void)module;
	if (!PyArg_ParseTuple(args, "sLd", &route, &over_ns, &rate))
		return NULL;
	struct writer writer = {.at = escaped, .end = escaped + sizeof(escaped) - 1};
	write_quoted(&writer, route);
	if (writer.cut || over_ns < 0 || !(rate >= 0 && rate <= 1)) {
		PyErr_SetString(PyExc_ValueError, "a route, a time, a rate of 0 to 1 are needed");
		return NULL;
	}
	writer.at[-1] = '\0';
	struct keep *rule = keep_find(escaped + 1);
	if (rule->route == NULL) {
		char *copy = keep_count < KEEP_ROUTES_MAX ? strdup(escaped + 1) : NULL;
		if (copy == NULL)
			Py_RETURN_NONE;
		rule->route = copy;
		keep_count++;
	}
	rule->over_ns = over_ns;
	rule->rate = rate >= 1 ? UINT32_MAX : (uint32_t)(rate * 4294967296.0);
	Py_RETURN_NONE;
}

PyMethodDef detail_functions[] = {
    {"keep", keep, METH_VARARGS, "keep(route, over_ns, rate): whose detail is sent unasked."},
    {NULL, NULL, 0, NULL},
};

bool
detail_init(void)
{
	random_state ^= (uint64_t)clock_now_ns();
	return true;
}

void
detail_after_fork(void)
{
	random_state ^= (uint64_t)clock_now_ns() << 1 | 1;
}
