/* What `await send(message)` of the last body message awaits: the server's own coroutine, driven
 * through so that its end is seen. A coroutine of Python round it would cost a frame a request. */
#include "_engine.h"

struct last_send {
	PyObject_HEAD struct request *request; /* strong; NULL once the end was seen */
	PyObject *inner;                       /* the coroutine, strong */
};

static PyObject *name_throw, *name_close;

/* The coroutine returned: its result, or NULL with an interrupt. */
static PyObject *
returned(struct last_send *last, PyObject *result)
{
	struct request *request = last->request;
	last->request = NULL;
	if (request != NULL && !request_sent_last(request))
		Py_CLEAR(result);
	Py_XDECREF((PyObject *)request);
	return result;
}

static PySendResult
last_am_send(PyObject *self, PyObject *value, PyObject **result)
{
	struct last_send *last = (struct last_send *)self;
	PySendResult sent = PyIter_Send(last->inner, value, result);
	if (sent == PYGEN_RETURN && (*result = returned(last, *result)) == NULL)
		return PYGEN_ERROR;
	return sent;
}

PyObject *
stop_iteration(PyObject *result)
{
	PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
	Py_DECREF(result);
	if (stop != NULL)
		PyErr_SetObject(PyExc_StopIteration, stop);
	Py_XDECREF(stop);
	return NULL;
}

static PyObject *
last_send(PyObject *self, PyObject *value)
{
	PyObject *result;
	PySendResult sent = last_am_send(self, value, &result);
	return sent == PYGEN_RETURN ? stop_iteration(result) : sent == PYGEN_NEXT ? result : NULL;
}

static PyObject *
last_iternext(PyObject *self)
{
	return last_send(self, Py_None);
}

static PyObject *
last_throw(PyObject *self, PyObject *args)
{
	struct last_send *last = (struct last_send *)self;
	PyObject *throw = app_get(last->inner, name_throw);
	PyObject *result = throw != NULL ? app_call_tuple(throw, args) : NULL;
	Py_XDECREF(throw);
	if (result != NULL || !PyErr_ExceptionMatches(PyExc_StopIteration))
		return result;
	PyObject *type, *value, *traceback;
	PyErr_Fetch(&type, &value, &traceback);
	result = returned(last, Py_NewRef(Py_None));
	Py_XDECREF(result);
	if (result != NULL) {
		PyErr_Restore(type, value, traceback);
		return NULL;
	}
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
	return NULL;
}

static PyObject *
last_close(PyObject *self, PyObject *unused)
{
	(void)unused;
	PyObject *close = app_get(((struct last_send *)self)->inner, name_close);
	PyObject *result = close != NULL ? app_call(close, NULL, 0, NULL) : NULL;
	Py_XDECREF(close);
	return result;
}

static PyObject *
last_await(PyObject *self)
{
	return Py_NewRef(self);
}

static PyObject *
last_await_method(PyObject *self, PyObject *unused)
{
	(void)unused;
	return Py_NewRef(self);
}

static int
last_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct last_send *last = (struct last_send *)self;
	Py_VISIT(last->inner);
	Py_VISIT(last->request);
	return 0;
}

static int
last_clear(PyObject *self)
{
	struct last_send *last = (struct last_send *)self;
	Py_CLEAR(last->inner);
	Py_CLEAR(last->request);
	return 0;
}

static void
last_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	(void)last_clear(self);
	PyObject_GC_Del(self);
}

/* What makes it a collections.abc.Coroutine, which asyncio.iscoroutine() asks for. */
static PyMethodDef METHODS[] = {
    {"__await__", last_await_method, METH_NOARGS, NULL},
    {"send", last_send, METH_O, NULL},
    {"throw", last_throw, METH_VARARGS, NULL},
    {"close", last_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods async_methods = {.am_await = last_await, .am_send = last_am_send};

static PyTypeObject last_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = LAST_SEND_NAME,
    .tp_basicsize = sizeof(struct last_send),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = last_dealloc,
    .tp_traverse = last_traverse,
    .tp_clear = last_clear,
    .tp_as_async = &async_methods,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = last_iternext,
    .tp_methods = METHODS,
};

PyObject *
last_send_new(struct request *request, PyObject *awaitable)
{
	if (awaitable == NULL)
		return NULL;
	if (!PyCoro_CheckExact(awaitable)) {
		PyObject *const args[] = {awaitable, (PyObject *)request};
		PyObject *result = PyObject_Vectorcall(engine.send_last, args, 2, NULL);
		if (result == NULL) {
			engine_failed("send");
			return awaitable;
		}
		Py_DECREF(awaitable);
		return result;
	}
	struct last_send *last = PyObject_GC_New(struct last_send, &last_type);
	if (last == NULL) {
		engine_failed("send");
		return awaitable;
	}
	last->inner = awaitable;
	last->request = request;
	Py_INCREF(request);
	PyObject_GC_Track(last);
	return (PyObject *)last;
}

bool
last_init(void)
{
	name_throw = PyUnicode_InternFromString("throw");
	name_close = PyUnicode_InternFromString("close");
	return name_throw != NULL && name_close != NULL && PyType_Ready(&last_type) == 0;
}
