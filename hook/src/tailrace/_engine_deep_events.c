/* Where deep profiles' events come from. CPython 3.10 and 3.11: the thread's profile function, set
 * and cleared with each step and job. From 3.12 on: sys.monitoring with a tool ID of our own, on
 * from the first deep request to the last, for steps are many and each change instruments all code
 * anew. */
#include "_engine_deep.h"

#if PY_VERSION_HEX < 0x030c0000

/* Whether a frame begins (false: it goes on after a suspension). */
static bool
is_first(PyFrameObject *frame, const PyCodeObject *code)
{
	if (!(code->co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR)))
		return true;
#if PY_VERSION_HEX >= 0x030b0000
	/* RESUME (or what it specialises to), whose argument is 0 at a function's begin; thrown
	 * into, it stands elsewhere. */
	enum { RESUME = 151, RESUME_QUICK = 150 };
	int at = PyFrame_GetLasti(frame);
	const unsigned char *bytes = (const unsigned char *)code->co_code_adaptive;
	return at >= 0 && (bytes[at] == RESUME || bytes[at] == RESUME_QUICK) && bytes[at + 1] == 0;
#else
	return frame->f_lasti < 0;
#endif
}

static bool
is_suspended(PyFrameObject *frame, const PyCodeObject *code, const PyObject *value)
{
	if (value == NULL || !(code->co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR)))
		return false;
#if PY_VERSION_HEX >= 0x030b0000
	enum { SUSPENDED = -1 };
	PyObject *generator = PyFrame_GetGenerator(frame);
	bool result = generator != NULL && ((PyGenObject *)generator)->gi_frame_state == SUSPENDED;
	Py_XDECREF(generator);
	return result;
#else
	return frame->f_state == FRAME_SUSPENDED;
#endif
}

static int
on_event(PyObject *unused, PyFrameObject *frame, int what, PyObject *arg)
{
	struct deep_context *context = deep_current;
	PyCodeObject *code;
	(void)unused;
	if (context == NULL)
		return 0;
	switch (what) {
	case PyTrace_CALL:
		code = PyFrame_GetCode(frame);
		deep_called(context, frame, code, is_first(frame, code));
		Py_DECREF(code);
		break;
	case PyTrace_RETURN:
		code = PyFrame_GetCode(frame);
		deep_returned(context, frame, is_suspended(frame, code, arg), arg);
		Py_DECREF(code);
		break;
	case PyTrace_C_CALL:
		if (PyCFunction_Check(arg))
			deep_called_c(context, arg);
		break;
	case PyTrace_C_RETURN:
	case PyTrace_C_EXCEPTION:
		if (PyCFunction_Check(arg))
			deep_returned_c(context, arg);
		break;
	default:
		break;
	}
	return 0;
}

bool
deep_events_init(void)
{
	return true;
}

bool
deep_events_open(void)
{
	return true;
}

void
deep_events_close(void)
{
}

bool
deep_events_on(struct deep_context *context)
{
	const PyThreadState *thread = PyThreadState_Get();
	if (thread->c_profilefunc == on_event) /* a step inside a step */
		return true;
	if (thread->c_profilefunc != NULL)
		return false;
	PyEval_SetProfile(on_event, NULL);
	context->hooked = true;
	return true;
}

bool
deep_events_off(struct deep_context *context)
{
	if (!context->hooked)
		return true;
	if (PyThreadState_Get()->c_profilefunc != on_event)
		return false;
	PyEval_SetProfile(NULL, NULL);
	return true;
}

bool
deep_events_cost_all(void)
{
	return false;
}

#else

enum { TOOL_FIRST = 3, TOOL_LAST = 4 }; /* 0 to 2 and 5 have names of their own */

static PyObject *monitoring; /* sys.monitoring */
static int tool = -1;

/* Handlers: (code, offset, …); what else they are told depends on the event. */
#define HANDLER(name) static PyObject *name(PyObject *self, PyObject *const *args, Py_ssize_t count)

HANDLER(on_start)
{
	struct deep_context *context = deep_current;
	(void)self;
	if (context != NULL && count >= 1)
		deep_called(context, args[0], (PyCodeObject *)args[0], true);
	Py_RETURN_NONE;
}

HANDLER(on_resume)
{
	struct deep_context *context = deep_current;
	(void)self;
	if (context != NULL && count >= 1)
		deep_called(context, args[0], (PyCodeObject *)args[0], false);
	Py_RETURN_NONE;
}

HANDLER(on_return)
{
	struct deep_context *context = deep_current;
	(void)self;
	if (context != NULL && count >= 1)
		deep_returned(context, args[0], false, NULL);
	Py_RETURN_NONE;
}

HANDLER(on_yield)
{
	struct deep_context *context = deep_current;
	(void)self;
	if (context != NULL && count >= 3)
		deep_returned(context, args[0], true, args[2]);
	Py_RETURN_NONE;
}

/* Everything that is called: Python's own functions have events of their own. */
HANDLER(on_call)
{
	struct deep_context *context = deep_current;
	(void)self;
	if (context != NULL && count >= 3 && PyCFunction_Check(args[2]))
		deep_called_c(context, args[2]);
	Py_RETURN_NONE;
}

HANDLER(on_c_return)
{
	struct deep_context *context = deep_current;
	(void)self;
	if (context != NULL && count >= 3 && PyCFunction_Check(args[2]))
		deep_returned_c(context, args[2]);
	Py_RETURN_NONE;
}

#define METHOD(name)                                                          \
	{                                                                     \
#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL \
	}

static struct {
	const char *event;
	PyMethodDef method;
} handlers[] = {
    {"PY_START", METHOD(on_start)},   {"PY_RESUME", METHOD(on_resume)},
    {"PY_THROW", METHOD(on_resume)},  {"PY_RETURN", METHOD(on_return)},
    {"PY_UNWIND", METHOD(on_return)}, {"PY_YIELD", METHOD(on_yield)},
    {"CALL", METHOD(on_call)},        {"C_RETURN", METHOD(on_c_return)},
    {"C_RAISE", METHOD(on_c_return)},
};

/* The value of sys.monitoring.events.<name>; -1 with an exception. */
static long
event_bit(const char *name)
{
	PyObject *events = PyObject_GetAttrString(monitoring, "events");
	PyObject *bit = events != NULL ? PyObject_GetAttrString(events, name) : NULL;
	long value = bit != NULL ? PyLong_AsLong(bit) : -1;
	Py_XDECREF(bit);
	Py_XDECREF(events);
	return value;
}

static bool
call_ok(PyObject *result)
{
	bool good = result != NULL;
	Py_XDECREF(result);
	PyErr_Clear();
	return good;
}

static bool
take_tool(void)
{
	for (int id = TOOL_FIRST; tool < 0 && id <= TOOL_LAST; id++)
		if (call_ok(PyObject_CallMethod(monitoring, "use_tool_id", "is", id, "tailrace")))
			tool = id;
	return tool >= 0;
}

bool
deep_events_init(void)
{
	monitoring = PySys_GetObject("monitoring"); /* borrowed */
	Py_XINCREF(monitoring);
	return true;
}

bool
deep_events_open(void)
{
	long events = 0;
	if (monitoring == NULL || !take_tool())
		return false;
	for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
		long bit = event_bit(handlers[i].event);
		PyObject *handler = PyCFunction_New(&handlers[i].method, NULL);
		PyErr_Clear();
		bool good = bit > 0 && handler != NULL &&
		            call_ok(PyObject_CallMethod(monitoring, "register_callback", "ilO",
		                                        tool, bit, handler));
		Py_XDECREF(handler);
		if (!good)
			return false;
		/* C_RETURN and C_RAISE come with CALL and cannot be asked for. */
		if (strncmp(handlers[i].event, "C_", 2) != 0)
			events |= bit;
	}
	return call_ok(PyObject_CallMethod(monitoring, "set_events", "il", tool, events));
}

void
deep_events_close(void)
{
	if (monitoring == NULL || tool < 0)
		return;
	(void)call_ok(PyObject_CallMethod(monitoring, "set_events", "il", tool, 0L));
	(void)call_ok(PyObject_CallMethod(monitoring, "free_tool_id", "i", tool));
	tool = -1;
}

bool
deep_events_on(struct deep_context *context)
{
	context->hooked = true;
	return true;
}

bool
deep_events_off(struct deep_context *context)
{
	(void)context;
	return true;
}

bool
deep_events_cost_all(void)
{
	return true;
}

#endif
