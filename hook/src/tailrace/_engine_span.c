/* Explicit names: `with tailrace.span("render"):` puts a frame of that name into the stacks of what
 * happens inside, below the function that opened it; and whose request runs now. */
#include "_engine_detail.h"

enum { SPAN_NAMES_MAX = 1024 };

struct span {
	PyObject_HEAD PyObject *name; /* str */
	PyCodeObject *code;           /* strong: stands for the name in stacks */
	const PyCodeObject *owner;    /* of the function that opened it: identity only */
	struct lane *lane;            /* strong, while it is open in a lane */
	struct job *job;              /* strong, while it is open in a thread's job */
	struct span *outer;           /* borrowed: open in the same lane */
};

static PyObject *codes; /* (name, function, line) → the code object of that name */

static struct lane *
lane_now(void)
{
	struct loop *loop = loop_current();
	struct running *running = loop != NULL ? loop_running(loop) : NULL;
	if (running == NULL || loop->thread != PyThreadState_Get() || running->lane == NULL ||
	    running->lane->request == NULL)
		return NULL;
	return running->lane;
}

int32_t
span_stack(const struct span *span, int32_t stack)
{
	if (span == NULL)
		return stack;
	const struct span *outer = span->outer;
	const PyCodeObject *after =
	    outer != NULL && outer->owner == span->owner ? outer->code : span->owner;
	return stack_insert(span_stack(outer, stack), after, span->code);
}

/* The code object that names the span opened at this line: new reference, or NULL. */
static PyCodeObject *
code_for(PyObject *name, PyCodeObject *owner, int line)
{
	PyObject *key = Py_BuildValue("(Oni)", name, (Py_ssize_t)owner, line);
	PyObject *known = key != NULL ? PyDict_GetItemWithError(codes, key) : NULL;
	Py_XINCREF(known);
	if (known == NULL && key != NULL && !PyErr_Occurred()) {
		bool room = PyDict_GET_SIZE(codes) < SPAN_NAMES_MAX;
		const char *text = room ? PyUnicode_AsUTF8(name) : "(more spans)";
		const char *file = PyUnicode_AsUTF8(owner->co_filename);
		if (text != NULL && file != NULL)
			known = (PyObject *)PyCode_NewEmpty(file, text, line);
		if (known != NULL && room && PyDict_SetItem(codes, key, known) < 0)
			Py_CLEAR(known);
	}
	Py_XDECREF(key);
	PyErr_Clear();
	return (PyCodeObject *)known;
}

static void
learn_owner(struct span *span)
{
	PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
	PyCodeObject *owner = frame != NULL ? PyFrame_GetCode(frame) : NULL;
	if (owner != NULL) {
		Py_XSETREF(span->code, code_for(span->name, owner, PyFrame_GetLineNumber(frame)));
		span->owner = owner;
	}
	Py_XDECREF(owner);
	Py_XDECREF(frame);
}

static void
span_close(struct span *span)
{
	if (span->lane != NULL) {
		struct span **link = &span->lane->spans;
		while (*link != NULL && *link != span)
			link = &(*link)->outer;
		if (*link == span)
			*link = span->outer;
		lane_unref(span->lane);
		span->lane = NULL;
	}
	Py_CLEAR(span->job);
}

static PyObject *
span_enter(PyObject *self, PyObject *unused)
{
	struct span *span = (struct span *)self;
	(void)unused;
	if (span->lane == NULL && span->job == NULL && !engine.disabled) {
		struct lane *lane = lane_now();
		struct job *job = lane == NULL ? thread_job() : NULL;
		if (lane != NULL || job != NULL)
			learn_owner(span);
		if (lane != NULL && span->code != NULL) {
			path_unref(lane_path_at(lane, clock_now_ns())); /* what ran before */
			span->lane = lane_ref(lane);
			span->outer = lane->spans;
			lane->spans = span;
		} else if (job != NULL && span->code != NULL) {
			thread_cut(job, NULL, NULL);
			Py_INCREF(job);
			span->job = job;
		}
	}
	Py_INCREF(self);
	return self;
}

static PyObject *
span_exit(PyObject *self, PyObject *args)
{
	struct span *span = (struct span *)self;
	(void)args;
	if (span->lane != NULL && span->lane == lane_now())
		path_unref(lane_path_at(span->lane, clock_now_ns())); /* what ran in it */
	else if (span->job != NULL)
		thread_cut(span->job, span->owner, span->code);
	span_close(span);
	Py_RETURN_FALSE;
}

static PyObject *
span_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
	static char *names[] = {"name", NULL};
	PyObject *name;
	if (!PyArg_ParseTupleAndKeywords(args, named, "U", names, &name))
		return NULL;
	struct span *span = (struct span *)type->tp_alloc(type, 0);
	if (span != NULL) {
		Py_INCREF(name);
		span->name = name;
	}
	return (PyObject *)span;
}

static void
span_dealloc(PyObject *self)
{
	struct span *span = (struct span *)self;
	span_close(span);
	Py_CLEAR(span->name);
	Py_CLEAR(span->code);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef METHODS[] = {
    {"__enter__", span_enter, METH_NOARGS, NULL},
    {"__exit__", span_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject span_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailrace._engine.Span",
    .tp_basicsize = sizeof(struct span),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = span_new,
    .tp_dealloc = span_dealloc,
    .tp_methods = METHODS,
    .tp_doc = "Span(name): a context manager that names a part of a function in profiles.",
};

/* trace_id() -> str | None: of the request that runs on this thread now. */
static PyObject *
trace_id(PyObject *module, PyObject *unused)
{
	struct lane *lane = lane_now();
	struct job *job = lane == NULL ? thread_job() : NULL;
	(void)module;
	(void)unused;
	if (lane != NULL)
		return PyUnicode_FromString(lane->request->who->trace);
	if (job != NULL)
		return PyUnicode_FromString(job->request->who->trace);
	Py_RETURN_NONE;
}

PyMethodDef span_functions[] = {
    {"trace_id", trace_id, METH_NOARGS, "trace_id() -> str | None: of the request running here."},
    {NULL, NULL, 0, NULL},
};

bool
span_init(void)
{
	codes = PyDict_New();
	return codes != NULL && PyType_Ready(&span_type) == 0;
}
