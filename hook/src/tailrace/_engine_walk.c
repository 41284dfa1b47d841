/* Reads stacks: of a suspended task along what it awaits, of a running thread along its frames.
 * Code-only for library frames; the line is asked for in-app frames only. */
#include "_engine.h"

enum {
	WALK_DEPTH_MAX = 256,
	OUTER_KEPT = 16,
	MAKERS_MAX = 32,
	LINES_KNOWN = 1024, /* a power of two */
};

/* The task walked last: the next one mostly awaits through the same functions, and often in the
 * same lines. Codes are those of the code table, which are never freed. */
static struct {
	struct frame_ref items[WALK_DEPTH_MAX];
	const PyCodeObject *codes[WALK_DEPTH_MAX];
	int len;
	int32_t stack;
} last_walk;

/* The C function behind an attribute or a method without arguments: the lookup is done once. */
static getter cr_await, gi_yieldfrom, ag_await;
#if PY_VERSION_HEX >= 0x030b0000
static getter cr_frame, gi_frame, ag_frame;
#endif
static PyCFunction task_get_coro, task_done;
static PyObject *name_get_coro, *name_done;

static getter
find_getter(PyTypeObject *type, const char *name)
{
	PyObject *descr = PyObject_GetAttrString((PyObject *)type, name);
	getter found = NULL;
	if (descr != NULL && Py_IS_TYPE(descr, &PyGetSetDescr_Type))
		found = ((PyGetSetDescrObject *)descr)->d_getset->get;
	else
		PyErr_Format(PyExc_SystemError, "%s.%s is not what it was", type->tp_name, name);
	Py_XDECREF(descr); /* the type keeps it */
	return found;
}

static PyCFunction
find_method(PyTypeObject *type, const char *name)
{
	PyObject *descr = PyObject_GetAttrString((PyObject *)type, name);
	PyCFunction found = NULL;
	if (descr != NULL && Py_IS_TYPE(descr, &PyMethodDescr_Type)) {
		PyMethodDef *def = ((PyMethodDescrObject *)descr)->d_method;
		if (def->ml_flags == METH_NOARGS)
			found = def->ml_meth;
	}
	Py_XDECREF(descr);
	engine_check("walk");
	return found;
}

bool
walk_init(void)
{
	cr_await = find_getter(&PyCoro_Type, "cr_await");
	gi_yieldfrom = find_getter(&PyGen_Type, "gi_yieldfrom");
	ag_await = find_getter(&PyAsyncGen_Type, "ag_await");
	if (cr_await == NULL || gi_yieldfrom == NULL || ag_await == NULL)
		return false;
#if PY_VERSION_HEX >= 0x030b0000
	cr_frame = find_getter(&PyCoro_Type, "cr_frame");
	gi_frame = find_getter(&PyGen_Type, "gi_frame");
	ag_frame = find_getter(&PyAsyncGen_Type, "ag_frame");
	if (cr_frame == NULL || gi_frame == NULL || ag_frame == NULL)
		return false;
#endif
	task_get_coro = find_method(engine.task_type, "get_coro");
	task_done = find_method(engine.task_type, "done");
	name_get_coro = PyUnicode_InternFromString("get_coro");
	name_done = PyUnicode_InternFromString("done");
	return name_get_coro != NULL && name_done != NULL;
}

static PyObject *
task_call(PyObject *task, PyCFunction direct, PyObject *name)
{
	if (direct != NULL && PyObject_TypeCheck(task, engine.task_type))
		return direct(task, NULL);
	return PyObject_CallMethodNoArgs(task, name);
}

bool
walk_task_done(PyObject *task)
{
	PyObject *done = task_call(task, task_done, name_done);
	bool result = done == Py_True;
	if (done == NULL)
		engine_check("walk");
	Py_XDECREF(done);
	return result;
}

static bool
is_chain(PyObject *object)
{
	return PyCoro_CheckExact(object) || PyGen_CheckExact(object) ||
	       PyAsyncGen_CheckExact(object);
}

/* C objects between two links: they tell what they wrap only to the garbage collector. */
static bool
is_opaque_link(PyObject *object)
{
	static PyTypeObject *future_iter; /* strong: what nearly every chain ends with */
	if (Py_IS_TYPE(object, future_iter))
		return false;
	const char *name = Py_TYPE(object)->tp_name;
	if (future_iter == NULL && strcmp(name, "_asyncio.FutureIter") == 0) {
		Py_INCREF(Py_TYPE(object));
		future_iter = Py_TYPE(object);
	}
	return strcmp(name, "async_generator_asend") == 0 ||
	       strcmp(name, "async_generator_athrow") == 0 ||
	       strcmp(name, "coroutine_wrapper") == 0 || strcmp(name, "anext_awaitable") == 0 ||
	       strcmp(name, LAST_SEND_NAME) == 0;
}

static int
visit_link(PyObject *object, void *found)
{
	if (!is_chain(object) && !is_opaque_link(object))
		return 0;
	Py_INCREF(object);
	*(PyObject **)found = object;
	return 1;
}

/* New reference to the coroutine, generator or async generator behind link (which is given up),
 * or NULL. */
static PyObject *
unwrap_link(PyObject *link)
{
	for (int i = 0; link != NULL && i < 4; i++) {
		PyObject *inner = NULL;
		if (is_chain(link))
			return link;
		if (is_opaque_link(link) && Py_TYPE(link)->tp_traverse != NULL)
			Py_TYPE(link)->tp_traverse(link, visit_link, &inner);
		Py_DECREF(link);
		link = inner;
	}
	Py_XDECREF(link);
	return NULL;
}

static PyObject *
next_link(PyObject *link)
{
	getter get = PyCoro_CheckExact(link)  ? cr_await
	             : PyGen_CheckExact(link) ? gi_yieldfrom
	                                      : ag_await;
	PyObject *next = get(link, NULL);
	if (next == NULL)
		engine_check("walk");
	return next;
}

static PyCodeObject *
link_code(PyObject *link) /* new reference */
{
#if PY_VERSION_HEX >= 0x030c0000
	return PyGen_GetCode((PyGenObject *)link);
#else
	Py_XINCREF(((PyGenObject *)link)->gi_code);
	return (PyCodeObject *)((PyGenObject *)link)->gi_code;
#endif
}

/* The line the frame is in. CPython reads a function's table of lines from its beginning each time:
 * the answers are remembered by function and instruction. */
static int
frame_line(PyFrameObject *frame, const struct code_info *info)
{
	static struct {
		const struct code_info *info; /* never freed */
		int instruction, line;
	} known[LINES_KNOWN];
#if PY_VERSION_HEX >= 0x030b0000
	int instruction = PyFrame_GetLasti(frame);
#else
	int instruction = frame->f_lasti;
#endif
	uint32_t slot = (uint32_t)((uintptr_t)info >> 5) + (uint32_t)instruction;
	slot &= LINES_KNOWN - 1;
	if (known[slot].info != info || known[slot].instruction != instruction) {
		known[slot].line = PyFrame_GetLineNumber(frame);
		known[slot].instruction = instruction;
		known[slot].info = info;
	}
	return known[slot].line;
}

static int
link_line(PyObject *link, const PyCodeObject *code, const struct code_info *info)
{
#if PY_VERSION_HEX >= 0x030b0000
	getter get = PyCoro_CheckExact(link)  ? cr_frame
	             : PyGen_CheckExact(link) ? gi_frame
	                                      : ag_frame;
	PyObject *frame = get(link, NULL);
#else
	PyObject *frame = (PyObject *)((PyGenObject *)link)->gi_frame;
	Py_XINCREF(frame);
#endif
	int line = code->co_firstlineno;
	if (frame == NULL)
		engine_check("walk");
	else if (frame != Py_None)
		line = frame_line((PyFrameObject *)frame, info);
	Py_XDECREF(frame);
	return line;
}

/* The outermost and the innermost of items that fit into a stack. */
static int32_t
intern_cut(const struct frame_ref *items, int len)
{
	struct frame_list frames;
	frames.len = len < STACK_FRAMES_MAX ? len : STACK_FRAMES_MAX;
	if (len <= STACK_FRAMES_MAX) {
		memcpy(frames.items, items, (size_t)len * sizeof(*items));
	} else {
		int rest = STACK_FRAMES_MAX - OUTER_KEPT;
		memcpy(frames.items, items, OUTER_KEPT * sizeof(*items));
		memcpy(frames.items + OUTER_KEPT, items + len - rest,
		       (size_t)rest * sizeof(*items));
	}
	return stack_intern(&frames);
}

/* The stack of the task walked last where this one's is the same; else this is the last now. */
static int32_t
intern_again(const struct frame_ref *items, PyCodeObject *const *codes, int len)
{
	int same = 0;
	if (len == last_walk.len)
		while (same < len && items[same].info == last_walk.items[same].info &&
		       items[same].line == last_walk.items[same].line)
			same++;
	if (len > 0 && len == last_walk.len && same == len)
		return last_walk.stack;
	int32_t stack = intern_cut(items, len);
	last_walk.len = stack >= 0 ? len : 0;
	last_walk.stack = stack;
	for (int i = same; i < last_walk.len; i++) {
		last_walk.items[i] = items[i];
		last_walk.codes[i] = codes[i];
	}
	return stack;
}

/* Most links are those of the task's last walk. With many tasks in flight none of them is in the
 * cache any more, and each names the next: all are asked for at once. A dead one does no harm. */
static void
prefetch_links(const struct lane *lane)
{
	for (int i = 0; i < lane->link_count; i++) {
		const char *link = lane->links[i];
		__builtin_prefetch(link);
		__builtin_prefetch(link + 64);
		__builtin_prefetch(link + 128);
	}
}

int32_t
walk_task(PyObject *task, struct lane *lane)
{
	struct frame_ref items[WALK_DEPTH_MAX];
	PyCodeObject *codes[WALK_DEPTH_MAX];
	int len = 0, kept = 0;
	if (lane != NULL)
		prefetch_links(lane);
	PyObject *link = task_call(task, task_get_coro, name_get_coro);
	if (link == NULL)
		engine_check("walk");
	link = unwrap_link(link);
	while (link != NULL && len < WALK_DEPTH_MAX) {
		PyCodeObject *code = link_code(link);
		const struct code_info *info = NULL;
		if (lane != NULL && kept < LINKS_KEPT)
			lane->links[kept++] = link;
		if (code != NULL && len < last_walk.len && last_walk.codes[len] == code)
			info = last_walk.items[len].info;
		else if (code != NULL)
			info = code_intern(code);
		if (info != NULL) {
			int line =
			    code_in_app(info) ? link_line(link, code, info) : code->co_firstlineno;
			codes[len] = code;
			items[len++] = (struct frame_ref){info, line};
		}
		Py_XDECREF(code);
		PyObject *next = info != NULL ? next_link(link) : NULL;
		Py_DECREF(link);
		link = next == NULL || PyCoro_CheckExact(next) ? next : unwrap_link(next);
	}
	Py_XDECREF(link);
	if (lane != NULL)
		lane->link_count = (uint8_t)kept;
	return intern_again(items, codes, len);
}

PyCodeObject *
walk_task_code(PyObject *task)
{
	if (walk_task_done(task)) /* it may have let go of its coroutine */
		return NULL;
	PyObject *coro = task_call(task, task_get_coro, name_get_coro);
	PyCodeObject *code = NULL;
	if (coro == NULL)
		engine_check("walk");
	else if (is_chain(coro))
		code = link_code(coro);
	Py_XDECREF(coro);
	Py_XDECREF(code); /* the task keeps it */
	return code;
}

/* A running thread's frames, innermost first. */
struct frames {
	struct frame_ref items[WALK_DEPTH_MAX];
	int len;
	int cut;       /* how many of them are inside the outermost asked for, or -1 */
	bool has_base; /* they end above the base asked for */
};

static struct frame_ref
frame_at(PyFrameObject *frame, PyCodeObject *code, const struct code_info *info)
{
	int line = code_in_app(info) ? frame_line(frame, info) : code->co_firstlineno;
	return (struct frame_ref){info, line};
}

static void
collect_frames(struct frames *frames, PyFrameObject *frame, const PyCodeObject *base,
               const PyCodeObject *outermost)
{
	frames->len = 0;
	frames->cut = -1;
	frames->has_base = false;
	Py_XINCREF(frame);
	while (frame != NULL && frames->len < WALK_DEPTH_MAX) {
		PyCodeObject *code = PyFrame_GetCode(frame);
		const struct code_info *info = code != base ? code_intern(code) : NULL;
		frames->has_base = code == base;
		if (info != NULL) {
			frames->items[frames->len++] = frame_at(frame, code, info);
			if (code == outermost)
				frames->cut = frames->len;
		}
		Py_DECREF(code);
		PyFrameObject *back = info != NULL ? PyFrame_GetBack(frame) : NULL;
		Py_DECREF(frame);
		frame = back;
	}
	Py_XDECREF(frame);
	engine_check("frames");
}

static int32_t
intern_reversed(const struct frame_ref *found, int len)
{
	struct frame_ref items[WALK_DEPTH_MAX];
	for (int i = 0; i < len; i++)
		items[i] = found[len - 1 - i];
	return intern_cut(items, len);
}

int32_t
walk_frames(PyFrameObject *frame, const PyCodeObject *base, const PyCodeObject *outermost)
{
	struct frames frames;
	collect_frames(&frames, frame, base, outermost);
	return intern_reversed(frames.items, frames.cut >= 0 ? frames.cut : frames.len);
}

int32_t
walk_above(PyFrameObject *frame, const PyCodeObject *base)
{
	struct frames frames;
	collect_frames(&frames, frame, base, NULL);
	return frames.has_base ? intern_reversed(frames.items, frames.len) : STACK_NONE;
}

int32_t
walk_makers(PyFrameObject *frame)
{
	struct frame_ref found[MAKERS_MAX];
	int len = 0;
	bool reached = false;
	Py_XINCREF(frame);
	for (int i = 0; frame != NULL && i < MAKERS_MAX; i++) {
		PyCodeObject *code = PyFrame_GetCode(frame);
		const struct code_info *info = code_intern(code);
		bool in_app = info != NULL && code_in_app(info);
		if (in_app || (!reached && info != NULL && code_is_client(info)))
			found[len++] = frame_at(frame, code, info);
		Py_DECREF(code);
		reached |= in_app;
		PyFrameObject *back = in_app || !reached ? PyFrame_GetBack(frame) : NULL;
		Py_DECREF(frame);
		frame = back;
	}
	Py_XDECREF(frame);
	engine_check("frames");
	return intern_reversed(found, reached ? len : 0);
}

static bool
is_partial(PyObject *callable)
{
	return strcmp(Py_TYPE(callable)->tp_name, "functools.partial") == 0;
}

static PyObject *
partial_target(PyObject *callable) /* new reference, or NULL */
{
	static PyObject *name_func, *name_args;
	if (name_func == NULL && (name_func = PyUnicode_InternFromString("func")) == NULL)
		return NULL;
	if (name_args == NULL && (name_args = PyUnicode_InternFromString("args")) == NULL)
		return NULL;
	PyObject *func = PyObject_GetAttr(callable, name_func);
	if (func == NULL || !PyCFunction_Check(func) || PyCFunction_GET_SELF(func) == NULL ||
	    !PyContext_CheckExact(PyCFunction_GET_SELF(func)))
		return func;
	/* asyncio.to_thread: partial(context.run, function, ...) */
	PyObject *args = PyObject_GetAttr(callable, name_args);
	Py_DECREF(func);
	func = args != NULL && PyTuple_Check(args) && PyTuple_GET_SIZE(args) > 0
	           ? PyTuple_GET_ITEM(args, 0)
	           : NULL;
	Py_XINCREF(func);
	Py_XDECREF(args);
	return func;
}

PyCodeObject *
walk_callable_code(PyObject *callable)
{
	Py_INCREF(callable);
	for (int i = 0; callable != NULL && i < 8; i++) {
		PyObject *next = NULL;
		if (PyFunction_Check(callable)) {
			PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(callable);
			Py_DECREF(callable);
			return code;
		}
		if (PyMethod_Check(callable)) {
			next = PyMethod_GET_FUNCTION(callable);
			Py_INCREF(next);
		} else if (is_partial(callable)) {
			next = partial_target(callable);
		} else if (Py_TYPE(callable)->tp_flags & Py_TPFLAGS_HEAPTYPE) {
			next = PyObject_GetAttrString((PyObject *)Py_TYPE(callable), "__call__");
		}
		engine_check("walk");
		Py_DECREF(callable);
		callable = next;
	}
	Py_XDECREF(callable);
	return NULL;
}

static PyCodeObject *
in_app_code_of(PyObject *object) /* borrowed, or NULL */
{
	PyCodeObject *code = NULL;
	if (is_chain(object)) {
		code = link_code(object);
		Py_XDECREF(code); /* the generator keeps it */
	} else if (PyCallable_Check(object) && !PyType_Check(object)) {
		code = walk_callable_code(object);
	}
	const struct code_info *info = code != NULL ? code_intern(code) : NULL;
	return info != NULL && code_in_app(info) ? code : NULL;
}

static PyCodeObject *
in_app_code_among(PyObject *args, PyObject *named)
{
	PyCodeObject *code = NULL;
	PyObject *key, *value;
	Py_ssize_t at = 0;
	for (Py_ssize_t i = 0; code == NULL && PyTuple_Check(args) && i < PyTuple_GET_SIZE(args);
	     i++)
		code = in_app_code_of(PyTuple_GET_ITEM(args, i));
	while (code == NULL && PyDict_Check(named) && PyDict_Next(named, &at, &key, &value)) {
		Py_INCREF(value);
		code = in_app_code_of(value);
		Py_DECREF(value);
	}
	return code;
}

/* The app's function a framework's job stands for: handed to it as an argument, or the generator
 * behind a context manager's method. Borrowed, or NULL. */
static PyCodeObject *
job_inner_code(PyObject *callable)
{
	PyCodeObject *code = NULL;
	if (is_partial(callable)) {
		PyObject *args = PyObject_GetAttrString(callable, "args");
		PyObject *named = PyObject_GetAttrString(callable, "keywords");
		PyObject *func = PyObject_GetAttrString(callable, "func");
		if (args != NULL && named != NULL)
			code = in_app_code_among(args, named);
		if (code == NULL && func != NULL && (is_partial(func) || PyMethod_Check(func)))
			code = job_inner_code(func);
		Py_XDECREF(args);
		Py_XDECREF(named);
		Py_XDECREF(func);
	} else if (PyMethod_Check(callable)) {
		PyObject *generator = PyObject_GetAttrString(PyMethod_GET_SELF(callable), "gen");
		if (generator != NULL && is_chain(generator))
			code = in_app_code_of(generator);
		Py_XDECREF(generator);
	}
	engine_check("walk");
	return code;
}

int32_t
walk_job(PyObject *callable, PyObject *const *args, Py_ssize_t count)
{
	PyCodeObject *code = walk_callable_code(callable);
	const struct code_info *info = code != NULL ? code_intern(code) : NULL;
	int32_t stack = info != NULL ? stack_of_code(code) : STACK_NONE;
	if (info != NULL && code_in_app(info))
		return stack;
	code = job_inner_code(callable);
	for (Py_ssize_t i = 0; code == NULL && i < count; i++)
		code = in_app_code_of(args[i]);
	return code != NULL ? stack_join(stack, stack_of_code(code)) : stack;
}
