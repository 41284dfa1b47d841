/* A request: one ASGI call with the header x-tailrace. It is the `send` its app gets, and closes
 * when the last body message was sent or the app ended; then its lanes are let go. */
#include "_engine.h"

static PyObject *name_headers, *name_type, *name_more_body, *name_root_path;

static struct request *
current_request(const struct running *running)
{
	return running != NULL && running->lane != NULL ? running->lane->request : NULL;
}

/* The lane of this request that runs now; else its root. Borrowed. */
static struct lane *
sending_lane(const struct request *request)
{
	const struct running *running = request->loop->running;
	if (running != NULL && request->loop->thread == PyThreadState_Get() &&
	    current_request(running) == request)
		return running->lane;
	return request->root;
}

static struct node *
path_now(struct request *request, int64_t now_ns)
{
	struct lane *lane = request->loop != NULL ? sending_lane(request) : NULL;
	return lane != NULL && lane->request == request ? lane_path_at(lane, now_ns) : NULL;
}

/* --- its end ---------------------------------------------------------------------------------- */

static void
let_go(struct request *request)
{
	while (request->lanes != NULL)
		lane_detach(request->lanes);
	path_set(&request->start_path, NULL);
	path_set(&request->end_path, NULL);
	Py_CLEAR(request->scope);
	Py_CLEAR(request->root_path);
}

static void
request_close(struct request *request, int64_t tail_ns)
{
	if (request->state == REQUEST_CLOSED)
		return;
	request->state = REQUEST_CLOSED;
	if (request->loop != NULL && request->loop->active > 0)
		request->loop->active--;
	rows_emit(request, tail_ns, true);
	let_go(request);
}

/* The end of the step in which last body messages were sent: their rows are due. */
void
request_close_pending(struct loop *loop)
{
	while (loop->closing != NULL) {
		struct request *request = loop->closing;
		loop->closing = request->closing_next;
		request->closing_next = NULL;
		request_close(request, NO_TIME);
		Py_DECREF(request);
	}
}

/* False with an exception, as route_learn(). */
static bool
end_now(struct request *request, enum ended ended, int64_t now_ns)
{
	PyObject *type, *value, *traceback;
	if (request->who->route == NULL)
		(void)route_learn(request);
	PyErr_Fetch(&type, &value, &traceback);
	request->end_ns = now_ns;
	request->ended = (uint8_t)ended;
	request->end_path = path_now(request, now_ns);
	request->state = REQUEST_SENT;
	PyErr_Restore(type, value, traceback);
	return type == NULL;
}

static bool
is_stale(const struct request *request)
{
	return request->generation != engine.generation;
}

bool
request_sent_last(struct request *request)
{
	if (request->state != REQUEST_OPEN || is_stale(request))
		return true;
	bool good = end_now(request, ENDED_RESPONSE, clock_now_ns());
	if (request->loop != NULL && request->loop->running != NULL) {
		Py_INCREF(request);
		request->closing_next = request->loop->closing;
		request->loop->closing = request;
	}
	return good;
}

static PyObject *
sent_last(PyObject *self, PyObject *unused)
{
	(void)unused;
	if (!request_sent_last((struct request *)self))
		return NULL;
	Py_RETURN_NONE;
}

/* The app is done with this request: by return (ended is ENDED_DISCONNECT where the answer is
 * not whole) or not. */
static PyObject *
leave(struct request *request, enum ended ended)
{
	PyObject *type, *value, *traceback;
	int64_t now_ns = clock_now_ns();
	if (is_stale(request))
		Py_RETURN_NONE;
	if (request->state == REQUEST_CLOSED) {
		rows_emit_tail(request, now_ns - request->end_ns);
		Py_RETURN_NONE;
	}
	if (request->state == REQUEST_OPEN) {
		if (ended != ENDED_DISCONNECT && request->start_ns == NO_TIME) {
			request->start_ns = now_ns;
			request->start_path = path_now(request, now_ns);
		}
		(void)end_now(request, ended, now_ns);
	}
	PyErr_Fetch(&type, &value, &traceback);
	request_close(request, now_ns - request->end_ns);
	if (type == NULL)
		Py_RETURN_NONE;
	PyErr_Restore(type, value, traceback);
	return NULL;
}

static PyObject *
request_leave(PyObject *self, PyObject *unused)
{
	(void)unused;
	return leave((struct request *)self, ENDED_DISCONNECT);
}

static PyObject *
request_fail(PyObject *self, PyObject *cancelled)
{
	return leave((struct request *)self,
	             cancelled == Py_True ? ENDED_CANCELLED : ENDED_EXCEPTION);
}

/* --- send ------------------------------------------------------------------------------------- */

static bool
text_is(PyObject *text, const char *wanted, Py_ssize_t len)
{
	return text != NULL && PyUnicode_Check(text) && PyUnicode_GET_LENGTH(text) == len &&
	       PyUnicode_IS_ASCII(text) && memcmp(PyUnicode_DATA(text), wanted, (size_t)len) == 0;
}

/* False with an exception, as route_learn(): the message is then not sent. */
static bool
on_start(struct request *request)
{
	int64_t now_ns = clock_now_ns();
	if (request->start_ns != NO_TIME)
		return true;
	if (!route_learn(request))
		return false;
	request->start_ns = request->part_ns = now_ns;
	request->start_path = path_now(request, now_ns);
	return true;
}

/* A long response: what happened so far goes out as a part, and the path begins anew. */
static void
on_chunk(struct request *request)
{
	int64_t now_ns = clock_now_ns();
	if (request->start_ns == NO_TIME || now_ns - request->part_ns < engine.part_interval_ns)
		return;
	request->end_ns = now_ns;
	request->end_path = path_now(request, now_ns);
	rows_emit(request, NO_TIME, false);
	request->part++;
	request->part_ns = now_ns;
	path_set(&request->start_path, NULL);
	path_set(&request->end_path, NULL);
	struct lane *lane = request->loop != NULL ? sending_lane(request) : NULL;
	if (lane != NULL && lane->request == request)
		path_set(&lane->path, path_new(now_ns));
}

static bool
is_last(PyObject *message)
{
	PyObject *more = PyDict_GetItemWithError(message, name_more_body);
	if (more == NULL || more == Py_False)
		return true;
	int truth = more == Py_True ? 1 : PyObject_IsTrue(more);
	PyErr_Clear();
	return truth == 0;
}

/* False with an exception, as route_learn(). */
static bool
on_message(struct request *request, PyObject *message, bool *ret_last)
{
	PyObject *type = PyDict_GetItemWithError(message, name_type);
	if (text_is(type, "http.response.start", 19))
		return on_start(request);
	if (text_is(type, "http.response.body", 18) ||
	    text_is(type, "http.response.zerocopysend", 26))
		*ret_last = is_last(message);
	else if (text_is(type, "http.response.pathsend", 22))
		*ret_last = true;
	else
		return true;
	*ret_last &= engine.send_last != NULL;
	if (!*ret_last)
		on_chunk(request);
	return true;
}

static PyObject *
request_send(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
	struct request *request = (struct request *)self;
	PyObject *send = request->send, *result;
	bool live = request->state == REQUEST_OPEN && !engine.disabled && !is_stale(request);
	if (send == NULL) { /* only the garbage collector does that */
		PyErr_SetString(PyExc_RuntimeError, "the request is gone");
		return NULL;
	}
	Py_INCREF(send);
	PyObject *message = PyVectorcall_NARGS(nargsf) == 1 && names == NULL ? args[0] : NULL;
	bool good = true, last = false;
	if (live && message != NULL && PyDict_Check(message))
		good = on_message(request, message, &last);
	result = good ? PyObject_Vectorcall(send, args, nargsf, names) : NULL;
	Py_DECREF(send);
	return last ? last_send_new(request, result) : result;
}

/* --- its begin -------------------------------------------------------------------------------- */

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
		const Py_ssize_t whole = 2 + TRACE_LEN + 1 + SPAN_LEN;
		if (len < whole || memcmp(text, "1;", 2) != 0 || text[2 + TRACE_LEN] != '-' ||
		    !is_hex(text + 2, TRACE_LEN) || !is_hex(text + 3 + TRACE_LEN, SPAN_LEN) ||
		    (len > whole && text[whole] != ';'))
			return NULL;
		return text + 2;
	}
	return NULL;
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
	if (request->root_path == NULL)
		request->root_path = Py_None;
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
take_root(struct request *request, struct loop *loop)
{
	struct running *running = loop->running;
	struct node *path = path_new(request->enter_ns);
	Py_INCREF(loop);
	request->loop = loop;
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
	if (key == NULL)
		Py_RETURN_NONE;
	struct loop *loop = loop_current();
	struct running *running = loop != NULL && !engine.totals_only ? loop->running : NULL;
	bool stepping =
	    running != NULL && running->task != NULL && loop->thread == PyThreadState_Get();
	if (!stepping && !engine.totals_only && args[2] != Py_True)
		Py_RETURN_FALSE;
	struct request *outer = stepping ? current_request(running) : NULL;
	if (outer != NULL && memcmp(outer->who->trace, key, TRACE_LEN) == 0 &&
	    memcmp(outer->span, key + TRACE_LEN + 1, SPAN_LEN) == 0)
		Py_RETURN_NONE; /* a second hook round the same app */
	struct request *request = request_new(args[0], args[1], key);
	if (request != NULL && stepping)
		take_root(request, loop);
	if (request == NULL) {
		engine_failed("begin");
		Py_RETURN_NONE;
	}
	sampler_wake();
	return (PyObject *)request;
}

/* --- the type --------------------------------------------------------------------------------- */

static int
request_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct request *request = (struct request *)self;
	Py_VISIT(request->loop);
	Py_VISIT(request->send);
	Py_VISIT(request->scope);
	return 0;
}

static int
request_clear(PyObject *self)
{
	struct request *request = (struct request *)self;
	Py_CLEAR(request->send);
	Py_CLEAR(request->scope);
	return 0;
}

static void
request_dealloc(PyObject *self)
{
	struct request *request = (struct request *)self;
	PyObject_GC_UnTrack(self);
	if (request->state != REQUEST_CLOSED && !is_stale(request) && request->loop != NULL &&
	    request->loop->active > 0)
		request->loop->active--;
	let_go(request);
	Py_CLEAR(request->send);
	lane_unref(request->root);
	identity_unref(request->who);
	Py_CLEAR(request->loop);
	PyObject_GC_Del(self);
}

static PyMethodDef METHODS[] = {
    {"sent_last", sent_last, METH_NOARGS, "sent_last(): the last body message was sent."},
    {"leave", request_leave, METH_NOARGS, "leave(): the app returned."},
    {"fail", request_fail, METH_O, "fail(cancelled): the app raised."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject request_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailrace._engine.Request",
    .tp_basicsize = sizeof(struct request),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(struct request, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = request_dealloc,
    .tp_traverse = request_traverse,
    .tp_clear = request_clear,
    .tp_methods = METHODS,
};

PyMethodDef request_functions[] = {
    {"begin", (PyCFunction)(void (*)(void))begin, METH_FASTCALL,
     "begin(scope, send, anyway) -> Request | None | False"},
    {NULL, NULL, 0, NULL},
};

bool
request_init(void)
{
	name_headers = PyUnicode_InternFromString("headers");
	name_type = PyUnicode_InternFromString("type");
	name_more_body = PyUnicode_InternFromString("more_body");
	name_root_path = PyUnicode_InternFromString("root_path");
	return name_root_path != NULL && PyType_Ready(&request_type) == 0;
}
