/* Code objects and stacks, each interned once and kept alive, named by small integers. Names and
 * JSON are made off the request by the sender, which takes new stacks from here. */
#include "_engine_detail.h"

struct code_info {
	PyCodeObject *code; /* strong for the life of the process: its address is its identity */
	enum cause cause;
	int32_t own_stack; /* the stack of this one frame at its first line, or STACK_NONE */
	bool in_app, connects;
};

struct stack {
	uint64_t hash;
	struct frame_ref *frames;
	uint32_t len;
	enum cause cause;
	int32_t first_in_app;
	bool has_in_app;
};

enum { CODE_SLOTS = CODES_MAX * 2, STACK_SLOTS = STACKS_MAX * 2, PREFIXES_MAX = 32 };

static struct code_info **code_slots;
static uint32_t code_count;
static struct stack *stacks;
static uint32_t *stack_slots; /* index + 1, 0 = free */
static uint32_t stack_count, stacks_taken, stack_room;
static char *library_prefix[PREFIXES_MAX];
static char *in_app_module[PREFIXES_MAX];
static int library_prefixes, in_app_modules;

bool
stack_init(void)
{
	/* calloc gives untouched pages: the tables cost what is used of them. */
	code_slots = calloc(CODE_SLOTS, sizeof(*code_slots));
	stack_slots = calloc(STACK_SLOTS, sizeof(*stack_slots));
	return code_slots != NULL && stack_slots != NULL;
}

static int
strings_take(PyObject *sequence, char **out, bool dots_to_slashes)
{
	Py_ssize_t len = PySequence_Size(sequence);
	if (len < 0)
		return -1;
	if (len > PREFIXES_MAX)
		len = PREFIXES_MAX;
	for (Py_ssize_t i = 0; i < len; i++) {
		PyObject *item = PySequence_GetItem(sequence, i);
		const char *text = item != NULL ? PyUnicode_AsUTF8(item) : NULL;
		char *copy = text != NULL ? strdup(text) : NULL;
		Py_XDECREF(item);
		if (copy == NULL)
			return -1;
		for (char *p = copy; dots_to_slashes && *p != '\0'; p++)
			if (*p == '.')
				*p = '/';
		free(out[i]);
		out[i] = copy;
	}
	return (int)len;
}

bool
stack_configure(PyObject *in_app, PyObject *prefixes)
{
	int modules = strings_take(in_app, in_app_module, true);
	int libraries = strings_take(prefixes, library_prefix, false);
	if (modules < 0 || libraries < 0)
		return false;
	in_app_modules = modules;
	library_prefixes = libraries;
	for (uint32_t i = 0; i < CODE_SLOTS; i++)
		if (code_slots[i] != NULL)
			code_slots[i]->in_app = code_frame_in_app(code_slots[i]->code);
	return true;
}

/* The part of file below the longest library folder it lies in, or NULL. */
static const char *
library_path(const char *file)
{
	size_t best = 0;
	for (int i = 0; i < library_prefixes; i++) {
		size_t len = strlen(library_prefix[i]);
		if (len > best && strncmp(file, library_prefix[i], len) == 0 &&
		    (file[len] == '/' || library_prefix[i][len - 1] == '/'))
			best = len;
	}
	if (best == 0)
		return NULL;
	while (file[best] == '/')
		best++;
	return file + best;
}

bool
code_frame_in_app(PyCodeObject *code)
{
	const char *file = PyUnicode_AsUTF8(code->co_filename);
	if (file == NULL) {
		engine_check("stack");
		return false;
	}
	if (file[0] == '<')
		return false;
	const char *path = library_path(file);
	if (path == NULL)
		return true;
	for (int i = 0; i < in_app_modules; i++) {
		size_t len = strlen(in_app_module[i]);
		if (len > 0 && strncmp(path, in_app_module[i], len) == 0 &&
		    (path[len] == '/' || strcmp(path + len, ".py") == 0))
			return true;
	}
	return false;
}

static uint64_t
mix(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0xd6e8feb86659fd93);
	x ^= x >> 32;
	return x;
}

static struct code_info *
code_new(PyCodeObject *code)
{
	struct code_info *info = calloc(1, sizeof(*info));
	if (info == NULL) {
		engine_failed("memory");
		return NULL;
	}
	const char *file = PyUnicode_AsUTF8(code->co_filename);
	const char *name = file != NULL ? PyUnicode_AsUTF8(code->co_name) : NULL;
	if (name == NULL)
		engine_check("stack");
	Py_INCREF(code);
	info->code = code;
	info->in_app = code_frame_in_app(code);
	info->cause = name != NULL ? cause_of_code(file, name) : CAUSE_NONE;
	info->connects = name != NULL && cause_connects(name);
	info->own_stack = STACK_NONE;
	return info;
}

static uint32_t
code_slot(const PyCodeObject *code)
{
	uint32_t i = (uint32_t)mix((uintptr_t)code >> 4) & (CODE_SLOTS - 1);
	while (code_slots[i] != NULL && code_slots[i]->code != code)
		i = (i + 1) & (CODE_SLOTS - 1);
	return i;
}

const struct code_info *
code_intern(PyCodeObject *code)
{
	uint32_t i = code_slot(code);
	if (code_slots[i] == NULL && code_count < CODES_MAX) {
		code_slots[i] = code_new(code);
		code_count += code_slots[i] != NULL;
	}
	engine.codes_over += code_slots[i] == NULL;
	return code_slots[i];
}

bool
code_in_app(const struct code_info *info)
{
	return info->in_app;
}

static bool
connects_below(const struct frame_list *frames, int from)
{
	for (int i = from; i < frames->len; i++)
		if (frames->items[i].info->connects)
			return true;
	return false;
}

/* docs/internals.md section 8: the outermost known library frame below the innermost in-app
 * frame; a pool or a limiter it waits for says more than who asked for it, task and thread say
 * less than anything else. A pool that makes a connection is not what is waited for; a database's
 * library that waits for a queue waits for its pool (SQLAlchemy's own frames are on a greenlet). */
static enum cause
frames_cause(const struct frame_list *frames)
{
	int from = frames->len;
	enum cause found = CAUSE_NONE, vague = CAUSE_NONE, last = CAUSE_NONE;
	while (from > 0 && !frames->items[from - 1].info->in_app)
		from--;
	for (int i = from; i < frames->len; i++) {
		enum cause cause = frames->items[i].info->cause;
		if (cause == CAUSE_LIMITER ||
		    (cause == CAUSE_POOL && !connects_below(frames, i + 1)))
			return cause;
		if (cause == CAUSE_NONE || cause == CAUSE_POOL)
			continue;
		last = cause;
		if (cause_is_vague(cause) && vague == CAUSE_NONE)
			vague = cause;
		if (!cause_is_vague(cause) && found == CAUSE_NONE)
			found = cause;
	}
	if (found == CAUSE_DATABASE && last == CAUSE_QUEUE)
		return CAUSE_POOL;
	return found != CAUSE_NONE ? found : vague != CAUSE_NONE ? vague : CAUSE_UNKNOWN;
}

static bool
stack_equals(const struct stack *stack, uint64_t hash, const struct frame_list *frames)
{
	if (stack->hash != hash || stack->len != (uint32_t)frames->len)
		return false;
	for (int i = 0; i < frames->len; i++)
		if (stack->frames[i].info != frames->items[i].info ||
		    stack->frames[i].line != frames->items[i].line)
			return false;
	return true;
}

static int32_t
stack_append(uint64_t hash, const struct frame_list *frames)
{
	if (stack_count == STACKS_MAX) {
		engine.stacks_over++;
		return STACK_NONE;
	}
	if (stack_count == stack_room) {
		uint32_t room = stack_room == 0 ? 256 : stack_room * 2;
		struct stack *grown = realloc(stacks, room * sizeof(*stacks));
		if (grown == NULL) {
			engine_failed("memory");
			return STACK_NONE;
		}
		stacks = grown;
		stack_room = room;
	}
	size_t bytes = (size_t)frames->len * sizeof(struct frame_ref);
	struct frame_ref *copy = malloc(bytes);
	if (copy == NULL) {
		engine_failed("memory");
		return STACK_NONE;
	}
	memcpy(copy, frames->items, bytes);
	stacks[stack_count] = (struct stack){.hash = hash,
	                                     .frames = copy,
	                                     .len = (uint32_t)frames->len,
	                                     .cause = frames_cause(frames),
	                                     .first_in_app = STACK_NONE};
	for (int i = 0; i < frames->len; i++)
		stacks[stack_count].has_in_app |= frames->items[i].info->in_app;
	return (int32_t)stack_count++;
}

int32_t
stack_intern(const struct frame_list *frames)
{
	uint64_t hash = (uint64_t)frames->len;
	if (frames->len == 0)
		return STACK_NONE;
	for (int i = 0; i < frames->len; i++)
		hash = mix(hash ^
		           ((uintptr_t)frames->items[i].info + (uint32_t)frames->items[i].line)) +
		       hash * 31;
	uint32_t slot = (uint32_t)hash & (STACK_SLOTS - 1);
	while (stack_slots[slot] != 0) {
		if (stack_equals(&stacks[stack_slots[slot] - 1], hash, frames))
			return (int32_t)stack_slots[slot] - 1;
		slot = (slot + 1) & (STACK_SLOTS - 1);
	}
	int32_t id = stack_append(hash, frames);
	if (id >= 0)
		stack_slots[slot] = (uint32_t)id + 1;
	return id;
}

int32_t
stack_join(int32_t outer, int32_t inner)
{
	struct frame_list joined;
	if (outer < 0 || inner < 0)
		return outer < 0 ? inner : outer;
	/* Where both do not fit, the outermost of outer's frames go: servers and frameworks. */
	uint32_t inner_len = stacks[inner].len;
	uint32_t keep = STACK_FRAMES_MAX - inner_len;
	if (keep > stacks[outer].len)
		keep = stacks[outer].len;
	memcpy(joined.items, stacks[outer].frames + (stacks[outer].len - keep),
	       keep * sizeof(struct frame_ref));
	memcpy(joined.items + keep, stacks[inner].frames, inner_len * sizeof(struct frame_ref));
	joined.len = (int)(keep + inner_len);
	return stack_intern(&joined);
}

static int32_t
own_stack(const struct code_info *known)
{
	struct code_info *info = code_slots[code_slot(known->code)];
	if (info->own_stack == STACK_NONE) {
		struct frame_list frames = {.len = 1};
		frames.items[0] = (struct frame_ref){info, info->code->co_firstlineno};
		info->own_stack = stack_intern(&frames);
	}
	return info->own_stack;
}

int32_t
stack_first_in_app(int32_t stack)
{
	if (stack < 0 || !stacks[stack].has_in_app)
		return STACK_LANE;
	if (stacks[stack].first_in_app == STACK_NONE) {
		const struct frame_ref *frame = stacks[stack].frames;
		while (!frame->info->in_app)
			frame++;
		int32_t own = own_stack(frame->info); /* may move the table */
		stacks[stack].first_in_app = own;
	}
	return stacks[stack].first_in_app >= 0 ? stacks[stack].first_in_app : STACK_LANE;
}

int32_t
stack_of_code(PyCodeObject *code)
{
	const struct code_info *info = code_intern(code);
	return info != NULL ? own_stack(info) : STACK_NONE;
}

int32_t
stack_insert(int32_t stack, const PyCodeObject *after, PyCodeObject *code)
{
	const struct code_info *info = code_intern(code);
	struct frame_list frames = {.len = 0};
	int at = 0;
	if (info == NULL)
		return stack;
	if (stack >= 0) {
		/* Where all do not fit, the outermost go: servers and frameworks. */
		uint32_t skip = stacks[stack].len == STACK_FRAMES_MAX ? 1 : 0;
		frames.len = (int)(stacks[stack].len - skip);
		memcpy(frames.items, stacks[stack].frames + skip,
		       (size_t)frames.len * sizeof(struct frame_ref));
	}
	for (at = frames.len; at > 0 && frames.items[at - 1].info->code != after;)
		at--;
	if (at == 0)
		at = frames.len;
	memmove(&frames.items[at + 1], &frames.items[at],
	        (size_t)(frames.len - at) * sizeof(struct frame_ref));
	frames.items[at] = (struct frame_ref){info, code->co_firstlineno};
	frames.len++;
	return stack_intern(&frames);
}

bool
stack_has_in_app(int32_t stack)
{
	return stack >= 0 && stacks[stack].has_in_app;
}

bool
code_is_client(const struct code_info *info)
{
	return info->cause == CAUSE_POOL || info->cause == CAUSE_HTTP ||
	       info->cause == CAUSE_DATABASE || info->cause == CAUSE_CACHE;
}

enum cause
stack_cause(int32_t stack)
{
	return stack >= 0 ? stacks[stack].cause : CAUSE_UNKNOWN;
}

static PyObject *
stack_object(uint32_t id)
{
	PyObject *frames = PyTuple_New((Py_ssize_t)stacks[id].len);
	if (frames == NULL)
		return NULL;
	for (uint32_t i = 0; i < stacks[id].len; i++) {
		PyObject *frame = Py_BuildValue("(Oi)", stacks[id].frames[i].info->code,
		                                stacks[id].frames[i].line);
		if (frame == NULL) {
			Py_DECREF(frames);
			return NULL;
		}
		PyTuple_SET_ITEM(frames, (Py_ssize_t)i, frame);
	}
	return Py_BuildValue("(IN)", id, frames);
}

PyObject *
stack_take(bool all, int64_t *since_ns)
{
	uint32_t from = all ? 0 : stacks_taken;
	uint32_t to =
	    all || stack_count - from <= STACKS_TAKE_MAX ? stack_count : from + STACKS_TAKE_MAX;
	PyObject *list = PyList_New(0);
	for (uint32_t id = from; list != NULL && id < to; id++) {
		PyObject *stack = stack_object(id);
		if (stack == NULL || PyList_Append(list, stack) < 0)
			Py_CLEAR(list);
		Py_XDECREF(stack);
		if (list != NULL)
			breathe(since_ns);
	}
	if (list != NULL && !all)
		stacks_taken = to;
	return list;
}

void
stack_after_fork(void)
{
	stacks_taken = 0;
}
