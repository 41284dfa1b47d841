/* The begin of a request: is it one the gateway asks about, and which step is it in? */
#include "_engine_detail.h"

static PyObject *name_headers, *name_root_path;

static bool
is_hex(const char *text, int len)
{
	for (int i = 0; i < len; i++)
		if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
			return false;
	return true;
}

/* The value of x-tailrace, "1;<trace>-<span>" and perhaps more after a ';', or NULL. Borrowed. */
static const char *
find_header(PyObject *headers)
{
	if (headers == NULL || !PyList_Check(headers))
		return NULL;
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
		PyObject *pair = PyList_GET_ITEM(headers, i);
		PyObject *name = NULL, *value = NULL;
		if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
			name = PyTuple_GET_ITEM(pair, 0);
			value = PyTuple_GET_ITEM(pair, 1);
		} else if (PyList_Check(pair) && PyList_GET_SIZE(pair) == 2) {
			name = PyList_GET_ITEM(pair, 0);
			value = PyList_GET_ITEM(pair, 1);
		}
		if (name == NULL || !PyBytes_Check(name) || PyBytes_GET_SIZE(name) != 10 ||
		    memcmp(PyBytes_AS_STRING(name), "x-tailrace", 10) != 0 || !PyBytes_Check(value))
			continue;
		const char *text = PyBytes_AS_STRING(value);
		Py_ssize_t len = PyBytes_GET_SIZE(value);
		const Py_ssize_t whole = 2 + KEY_LEN;
		if (len < whole || memcmp(text, "1;", 2) != 0 || text[2 + TRACE_LEN] != '-' ||
		    !is_hex(text + 2, TRACE_LEN) || !is_hex(text + 3 + TRACE_LEN, SPAN_LEN) ||
		    (len > whole && text[whole] != ';'))
			return NULL;
		return text + 2;
	}
	return NULL;
}

/* Whether more follows the key: ";deep;<mac>" with a code that only the gateway can have made. */
static bool
is_asked_deep(const char *key)
{
	const char *rest = key + KEY_LEN;
	if (strncmp(rest, ";deep;", 6) != 0 || engine.allow_deep == NULL)
		return false;
	PyObject *allowed =
	    PyObject_CallFunction(engine.allow_deep, "s#s", key, (Py_ssize_t)KEY_LEN, rest + 6);
	bool result = allowed == Py_True;
	Py_XDECREF(allowed);
	PyErr_Clear();
	return result;
}

static struct identity *
identity_new(const char *trace)
{
	struct identity *who = malloc(sizeof(*who));
	if (who == NULL)
		return NULL;
	*who = (struct identity){.refs = 1, .first_stack = STACK_NONE};
	memcpy(who->trace, trace, TRACE_LEN);
	return who;
}

void
identity_unref(struct identity *who)
{
	if (who != NULL && --who->refs == 0)
		free(who);
}

static struct request *
request_new(PyObject *scope, PyObject *send, const char *key)
{
	struct request *request = PyObject_GC_New(struct request, &request_type);
	if (request == NULL)
		return NULL;
	memset((char *)request + sizeof(PyObject), 0, sizeof(*request) - sizeof(PyObject));
	request->who = identity_new(key);
	if (request->who == NULL) {
		PyObject_GC_Del(request);
		return (struct request *)PyErr_NoMemory();
	}
	request->vectorcall = request_send;
	Py_INCREF(scope);
	Py_INCREF(send);
	request->scope = scope;
	request->send = send;
	request->root_path = PyDict_GetItemWithError(scope, name_root_path);
	if (request->root_path == NULL) {
		engine_check("root_path");
		request->root_path = Py_None;
	}
	Py_INCREF(request->root_path);
	memcpy(request->span, key + TRACE_LEN + 1, SPAN_LEN);
	request->start_ns = request->end_ns = request->queued_ns = NO_TIME;
	request->generation = engine.generation;
	request->enter_ns = request->part_ns = clock_now_ns();
	PyObject_GC_Track(request);
	return request;
}

/* The running step becomes the first of the request's root lane. */
static void
take_root(struct request *request, struct loop *loop, bool deep)
{
	struct running *running = loop_running(loop);
	struct node *path = path_new(request->enter_ns);
	Py_INCREF(loop);
	request->loop = loop;
	detail_begin(request);
	if (loop->active++ == 0)
		sampler_step_begin(loop->slot, running->begin_ns);
	if (running->queued_ns != NO_TIME)
		request->queued_ns = running->begin_ns - running->queued_ns;
	struct lane *lane = lane_new(request, loop, running->task, path);
	if (lane == NULL)
		return;
	lane->started = lane->running = true;
	lane_unref(running->lane);
	running->lane = lane_ref(lane);
	Py_INCREF(request);
	Py_XSETREF(running->request, request);
	request->root = lane;
	if (deep)
		deep_begin(request);
}

/* begin(scope, send, anyway) -> Request; None where the request is not ours; False where no step
 * of ours runs and the loop has to be prepared first (with anyway the request then gets totals
 * only). */
static PyObject *
begin(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
	(void)module;
	if (count != 3) {
		PyErr_SetString(PyExc_TypeError, "begin(scope, send, anyway)");
		return NULL;
	}
	const char *key = engine.disabled || !PyDict_Check(args[0])
	                      ? NULL
	                      : find_header(PyDict_GetItemWithError(args[0], name_headers));
	if (key == NULL) {
		engine_check("headers");
		Py_RETURN_NONE;
	}
	struct loop *loop = loop_current();
	struct running *running = loop != NULL ? loop_running(loop) : NULL;
	bool stepping =
	    running != NULL && running->task != NULL && loop->thread == PyThreadState_Get();
	if (engine.stage == STAGE_TOTALS)
		stepping = false;
	else if (!stepping && args[2] != Py_True)
		Py_RETURN_FALSE;
	struct request *outer = stepping ? current_request(running) : NULL;
	if (outer != NULL && memcmp(outer->who->trace, key, TRACE_LEN) == 0 &&
	    memcmp(outer->span, key + TRACE_LEN + 1, SPAN_LEN) == 0)
		Py_RETURN_NONE; /* a second hook round the same app */
	struct request *request = request_new(args[0], args[1], key);
	if (request != NULL && stepping)
		take_root(request, loop, is_asked_deep(key));
	if (request == NULL) {
		engine_failed("begin");
		Py_RETURN_NONE;
	}
	sampler_wake();
	return (PyObject *)request;
}

PyMethodDef begin_functions[] = {
    {"begin", (PyCFunction)(void (*)(void))begin, METH_FASTCALL,
     "begin(scope, send, anyway) -> Request | None | False"},
    {NULL, NULL, 0, NULL},
};

bool
begin_init(void)
{
	name_headers = PyUnicode_InternFromString("headers");
	name_root_path = PyUnicode_InternFromString("root_path");
	return name_headers != NULL && name_root_path != NULL;
}
