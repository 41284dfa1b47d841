/* Deep profiles: an exact call tree per lane. Time is booked between two events: to the function on
 * top of the thread's stack while it runs, to the innermost suspended function while it waits.
 * A resumption is no call. */
#include "_engine_deep.h"

#define CPU_GAP_NS INT64_C(20000) /* shorter gaps between events are taken for CPU */
#define SHARE 20                  /* one part in so many of the time: 5 % */
#define BUDGET_MAX_NS (INT64_C(3000) * NS_PER_MS) /* saved up: a minute's share */

_Thread_local struct deep_context *deep_current;

uint32_t deep_threads;

static struct deep_context *spare;
static uint32_t contexts_made, active;
static int64_t budget_ns = BUDGET_MAX_NS, budget_at_ns, open_at_ns;

/* --- how much of the time it may take ------------------------------------------------------- */

static void
budget_refill(int64_t now_ns)
{
	if (budget_at_ns != 0)
		budget_ns += (now_ns - budget_at_ns) / SHARE;
	budget_at_ns = now_ns;
	if (budget_ns > BUDGET_MAX_NS)
		budget_ns = BUDGET_MAX_NS;
}

static bool
budget_spend(int64_t ns, int64_t now_ns)
{
	budget_refill(now_ns);
	budget_ns -= ns;
	return budget_ns > 0;
}

/* --- the tree ------------------------------------------------------------------------------- */

static uint32_t
slot_of(uint16_t parent, const void *key)
{
	uint64_t x = ((uintptr_t)key >> 4) * UINT64_C(0x9e3779b97f4a7c15) + parent;
	x ^= x >> 29;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	return (uint32_t)(x >> 40) & (DEEP_SLOTS - 1);
}

static uint16_t
node_add(struct deep *deep, uint16_t parent, const void *key, int32_t function)
{
	if (deep->node_count == deep->node_room) {
		uint32_t room = deep->node_room == 0 ? 256 : deep->node_room * 2;
		void *grown = room <= DEEP_NODES_MAX
		                  ? realloc(deep->nodes, room * sizeof(*deep->nodes))
		                  : NULL;
		if (grown == NULL) {
			deep->truncated = true;
			return DEEP_NONE;
		}
		deep->nodes = grown;
		deep->node_room = room;
	}
	deep->nodes[deep->node_count] =
	    (struct deep_node){.key = key, .function = function, .parent = parent};
	return (uint16_t)deep->node_count++;
}

/* The slot of a child: of index 0 where there is none. */
static uint16_t *
child_slot(const struct deep *deep, uint16_t parent, const void *key)
{
	uint32_t i = slot_of(parent, key);
	for (; deep->slots[i] != 0; i = (i + 1) & (DEEP_SLOTS - 1)) {
		const struct deep_node *node = &deep->nodes[deep->slots[i] - 1];
		if (node->key == key && node->parent == parent)
			break;
	}
	return &deep->slots[i];
}

static uint16_t
child_add(struct deep *deep, uint16_t *slot, uint16_t parent, const void *key, int32_t function)
{
	uint16_t node = node_add(deep, parent, key, function);
	if (node != DEEP_NONE)
		*slot = (uint16_t)(node + 1);
	return node;
}

/* A module's function by its module's name, a method by its type's. */
static char *
builtin_name(PyObject *function)
{
	const PyCFunctionObject *c = (const PyCFunctionObject *)function;
	const char *before = NULL, *name = c->m_ml->ml_name;
	if (c->m_module != NULL && PyUnicode_Check(c->m_module))
		before = PyUnicode_AsUTF8(c->m_module);
	else if (c->m_self != NULL)
		before = PyType_Check(c->m_self) ? ((PyTypeObject *)c->m_self)->tp_name
		                                 : Py_TYPE(c->m_self)->tp_name;
	PyErr_Clear();
	size_t size = strlen(name) + (before != NULL ? strlen(before) + 1 : 0) + 1;
	char *text = malloc(size);
	if (text != NULL)
		snprintf(text, size, "%s%s%s", before != NULL ? before : "",
		         before != NULL ? "." : "", name);
	return text;
}

static int32_t
builtin_function(struct deep *deep, PyObject *function)
{
	const void *key = ((const PyCFunctionObject *)function)->m_ml;
	for (uint32_t i = 0; i < deep->builtin_count; i++)
		if (deep->builtins[i].key == key)
			return -2 - (int32_t)i;
	if (deep->builtin_count == DEEP_BUILTINS_MAX)
		return STACK_NONE;
	char *name = builtin_name(function);
	if (name == NULL)
		return STACK_NONE;
	deep->builtins[deep->builtin_count].key = key;
	deep->builtins[deep->builtin_count].name = name;
	return -2 - (int32_t)deep->builtin_count++;
}

/* --- time ----------------------------------------------------------------------------------- */

static int64_t
thread_cpu_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Books the time since the last event. The CPU clock costs more than most functions: it is read
 * only where there was time to sleep in. */
static inline void
book(struct deep_context *context, int64_t now_ns)
{
	int64_t gap_ns = now_ns - context->last_ns, cpu_ns = gap_ns;
	struct deep_node *node = &context->deep->nodes[context->top];
	context->last_ns = now_ns;
	if (gap_ns < CPU_GAP_NS) {
		context->assumed_ns += gap_ns;
	} else {
		int64_t at_ns = thread_cpu_ns();
		cpu_ns = at_ns - context->cpu_at_ns - context->assumed_ns;
		cpu_ns = cpu_ns < 0 ? 0 : cpu_ns > gap_ns ? gap_ns : cpu_ns;
		context->cpu_at_ns = at_ns;
		context->assumed_ns = 0;
	}
	node->self_ns += gap_ns;
	node->cpu_ns += cpu_ns;
}

/* --- events --------------------------------------------------------------------------------- */

static inline void
push(struct deep_context *context, const void *frame, uint16_t node)
{
	if (context->depth == DEEP_DEPTH_MAX) {
		context->over++;
		return;
	}
	context->stack[context->depth++] = (struct deep_entry){frame, context->top};
	if (node != DEEP_NONE)
		context->top = node;
}

/* The frame leaves the stack, with whatever was left above it. */
static inline void
pop(struct deep_context *context, const void *frame)
{
	if (context->over > 0) {
		context->over--;
		return;
	}
	for (uint16_t i = context->depth; i > 0; i--) {
		if (context->stack[i - 1].frame != frame)
			continue;
		context->depth = (uint16_t)(i - 1);
		context->top = context->stack[i - 1].node;
		return;
	}
}

void
deep_called(struct deep_context *context, const void *frame, PyCodeObject *code, bool first)
{
	struct deep *deep = context->deep;
	book(context, clock_now_ns());
	context->unwinding = false;
	uint16_t *slot = child_slot(deep, context->top, code);
	uint16_t node = *slot != 0 ? (uint16_t)(*slot - 1) : DEEP_NONE;
	/* Resumed at the root without ever having been called in it: the server's frames. */
	if (node == DEEP_NONE && (first || context->top != context->lane->root)) {
		int32_t function = stack_of_code(code);
		if (function >= 0)
			node = child_add(deep, slot, context->top, code, function);
	}
	if (node != DEEP_NONE)
		deep->nodes[node].calls += first;
	push(context, frame, node);
}

void
deep_returned(struct deep_context *context, const void *frame, bool suspended, const void *value)
{
	book(context, clock_now_ns());
	/* What suspends the task is handed through all its frames; a generator's values are not. */
	if (suspended && !(context->unwinding && value == context->suspended)) {
		context->leaf = context->top;
		context->suspended = value;
	}
	context->unwinding = suspended;
	pop(context, frame);
}

void
deep_called_c(struct deep_context *context, PyObject *function)
{
	const void *key = ((const PyCFunctionObject *)function)->m_ml;
	struct deep *deep = context->deep;
	book(context, clock_now_ns());
	context->unwinding = false;
	uint16_t *slot = child_slot(deep, context->top, key);
	uint16_t node = *slot != 0 ? (uint16_t)(*slot - 1) : DEEP_NONE;
	if (node == DEEP_NONE)
		node = child_add(deep, slot, context->top, key, builtin_function(deep, function));
	if (node != DEEP_NONE)
		deep->nodes[node].calls++;
	push(context, key, node);
}

void
deep_returned_c(struct deep_context *context, PyObject *function)
{
	book(context, clock_now_ns());
	context->unwinding = false;
	pop(context, ((const PyCFunctionObject *)function)->m_ml);
}

/* --- steps and jobs ------------------------------------------------------------------------- */

static struct deep_lane *
lane_of(struct deep *deep, uint16_t number)
{
	for (uint32_t i = 0; i < deep->lane_count; i++)
		if (deep->lanes[i].number == number)
			return &deep->lanes[i];
	if (deep->lane_count == DEEP_LANES_MAX) {
		deep->truncated = true;
		return NULL;
	}
	uint16_t root = node_add(deep, DEEP_NONE, NULL, number);
	if (root == DEEP_NONE)
		return NULL;
	deep->lanes[deep->lane_count] =
	    (struct deep_lane){.number = number, .root = root, .leaf = root, .paused_ns = NO_TIME};
	return &deep->lanes[deep->lane_count++];
}

static struct deep_context *
context_new(void)
{
	struct deep_context *context = spare;
	if (context != NULL) {
		spare = context->outer;
	} else if (contexts_made < DEEP_THREADS_MAX) {
		context = malloc(sizeof(*context));
		contexts_made += context != NULL;
	}
	return context;
}

static void
deep_release(struct deep *deep)
{
	free(deep->nodes);
	free(deep->slots);
	for (uint32_t i = 0; i < deep->builtin_count; i++)
		free(deep->builtins[i].name);
	free(deep);
}

/* Where recording costs all threads the time since it began is spent, though not taken off yet. */
static bool
may_record(int64_t now_ns)
{
	int64_t open_ns = active > 0 && deep_events_cost_all() ? now_ns - open_at_ns : 0;
	budget_refill(now_ns);
	return budget_ns > open_ns;
}

static void
leave_window(struct deep *deep, int64_t now_ns)
{
	bool is_last = deep->counted && --active == 0;
	deep->counted = false;
	if (!is_last)
		return;
	deep_events_close();
	if (deep_events_cost_all())
		(void)budget_spend(now_ns - open_at_ns, now_ns);
}

void
deep_enter(struct request *request, uint16_t number, const void *owner, int64_t now_ns)
{
	struct deep *deep = request->deep;
	if (deep->state != DEEP_OK || deep->closed)
		return;
	if (!may_record(now_ns)) {
		deep->state = DEEP_CUT;
		leave_window(deep, now_ns);
		return;
	}
	struct deep_lane *lane = lane_of(deep, number);
	struct deep_context *context = lane != NULL ? context_new() : NULL;
	if (context == NULL)
		return;
	memset(context, 0, offsetof(struct deep_context, stack));
	context->deep = deep;
	context->lane = lane;
	context->owner = owner;
	context->outer = deep_current;
	context->top = lane->root;
	context->leaf = lane->root;
	context->begin_ns = now_ns;
	if (lane->paused_ns != NO_TIME)
		deep->nodes[lane->leaf].await_ns += now_ns - lane->paused_ns;
	lane->paused_ns = NO_TIME;
	deep->contexts++;
	deep_threads++;
	deep_current = context;
	context->cpu_at_ns = thread_cpu_ns();
	if (!deep_events_on(context))
		deep->state = DEEP_BUSY;
	context->last_ns = clock_now_ns();
	deep->nodes[lane->root].self_ns += context->last_ns - now_ns;
}

void
deep_leave(const void *owner, int64_t now_ns)
{
	struct deep_context *context = deep_current;
	if (context == NULL || context->owner != owner)
		return;
	struct deep *deep = context->deep;
	book(context, now_ns > context->last_ns ? now_ns : context->last_ns);
	if (!deep_events_off(context) && deep->state == DEEP_OK)
		deep->state = DEEP_BUSY;
	context->lane->leaf = context->unwinding ? context->leaf : context->lane->root;
	context->lane->paused_ns = now_ns;
	deep_current = context->outer;
	context->outer = spare;
	spare = context;
	deep_threads--;
	if (!deep_events_cost_all() && !budget_spend(now_ns - context->begin_ns, now_ns) &&
	    deep->state == DEEP_OK && !deep->closed)
		deep->state = DEEP_CUT;
	if (--deep->contexts == 0 && deep->closed)
		deep_release(deep);
}

void *
deep_mute(void)
{
	struct deep_context *context = deep_current;
	deep_current = NULL;
	return context;
}

void
deep_unmute(void *muted)
{
	deep_current = muted;
}

/* --- the request ---------------------------------------------------------------------------- */

void
deep_begin(struct request *request)
{
	struct deep *deep = calloc(1, sizeof(*deep));
	uint16_t *slots = deep != NULL ? calloc(DEEP_SLOTS, sizeof(*slots)) : NULL;
	int64_t now_ns = clock_now_ns();
	if (slots == NULL || request->root == NULL) {
		free(slots);
		free(deep);
		return;
	}
	deep->slots = slots;
	request->deep = deep;
	if (active >= DEEP_ACTIVE_MAX || !may_record(now_ns)) {
		deep->state = DEEP_LIMITED;
		return;
	}
	if (active == 0 && !deep_events_open()) {
		deep->state = DEEP_BUSY;
		return;
	}
	deep->counted = true;
	if (active++ == 0)
		open_at_ns = now_ns;
	deep_enter(request, request->root->number, request->loop->running, now_ns);
}

/* Jobs may still run in it: what there is so far is copied, and the last one frees its own. */
static struct deep *
split_off(struct deep *deep)
{
	struct deep *copy = calloc(1, sizeof(*copy));
	struct deep_node *nodes = malloc(deep->node_count * sizeof(*nodes));
	if (copy == NULL || nodes == NULL) {
		free(copy);
		free(nodes);
		deep->closed = true;
		return NULL;
	}
	*copy = *deep;
	memcpy(nodes, deep->nodes, deep->node_count * sizeof(*nodes));
	copy->nodes = nodes;
	copy->node_room = deep->node_count;
	copy->slots = NULL;
	copy->contexts = 0;
	for (uint32_t i = 0; i < deep->builtin_count; i++)
		copy->builtins[i].name = strdup(deep->builtins[i].name);
	deep->closed = true;
	return copy;
}

struct deep *
deep_take(struct request *request)
{
	struct deep *deep = request->deep;
	request->deep = NULL;
	if (deep == NULL)
		return NULL;
	leave_window(deep, clock_now_ns());
	if (deep->contexts > 0)
		return split_off(deep);
	deep->closed = true;
	return deep;
}

void
deep_free(struct deep *deep)
{
	if (deep != NULL)
		deep_release(deep);
}

size_t
deep_bytes(const struct deep *deep)
{
	return deep == NULL ? 0
	                    : sizeof(*deep) + deep->node_room * sizeof(*deep->nodes) +
	                          (deep->slots != NULL ? DEEP_SLOTS * sizeof(*deep->slots) : 0);
}

/* --- as JSON -------------------------------------------------------------------------------- */

static void
write_list(struct writer *w, const int64_t *numbers, int count)
{
	for (int i = 0; i < count; i++) {
		if (i > 0)
			write_text(w, ",");
		write_number(w, numbers[i]);
	}
}

void
deep_write(struct writer *w, const struct deep *deep)
{
	static const char *const STATES[] = {"[\"ok\",", "[\"busy\",", "[\"limited\",",
	                                     "[\"cut\","};
	write_text(w, STATES[deep->state]);
	write_text(w, deep->truncated ? "1,[" : "0,[");
	for (uint32_t i = 0; i < deep->builtin_count; i++) {
		if (i > 0)
			write_text(w, ",");
		write_quoted(w, deep->builtins[i].name != NULL ? deep->builtins[i].name : "?");
	}
	write_text(w, "],[");
	for (uint32_t i = 0; i < deep->node_count; i++) {
		const struct deep_node *node = &deep->nodes[i];
		const int64_t numbers[] = {node->parent == DEEP_NONE ? -1 : node->parent,
		                           node->function,
		                           node->calls,
		                           node->self_ns,
		                           node->await_ns,
		                           node->cpu_ns};
		if (i > 0)
			write_text(w, ",");
		write_list(w, numbers, 6);
	}
	write_text(w, "]]");
}

PyMethodDef deep_functions[] = {
    {NULL, NULL, 0, NULL},
};

bool
deep_init(void)
{
	return deep_events_init();
}

void
deep_after_fork(void)
{
	deep_current = NULL;
	deep_threads = 0;
	if (active > 0)
		deep_events_close();
	active = 0;
	budget_ns = BUDGET_MAX_NS;
	budget_at_ns = 0;
}
