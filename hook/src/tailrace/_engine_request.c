/* A request: one ASGI call with the header x-tailrace. It is the `send` its app gets, and closes
 * when the last body message was sent or the app ended; then its lanes are let go. */
#include "_engine_detail.h"

static PyObject *name_type, *name_more_body;

/* The lane of this request that runs now; else its root. Borrowed. */
static struct lane *
sending_lane(const struct request *request)
{
	const struct running *running = loop_running(request->loop);
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
let_go(struct request *request, bool has_left)
{
	/* The rest of its app is no latency; what it does to others is still told by its name. */
	if (!has_left && request->root != NULL)
		lane_haunt(request->root, request->who);
	detail_drop(request);
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
	detail_close(request);
	let_go(request, tail_ns != NO_TIME);
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
		if (request->root != NULL)
			lane_detach(request->root);
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
	int truth = more == Py_True;
	if (more != NULL && more != Py_True && more != Py_False)
		truth = PyObject_IsTrue(more);
	engine_check("message");
	return truth == 0 && !engine.disabled;
}

/* What a message means; the first match counts. */
static const struct {
	const char *type;
	bool starts, is_body, ends;
} MESSAGES[] = {
    {"http.response.start", .starts = true},
    {"http.response.body", .is_body = true},
    {"http.response.zerocopysend", .is_body = true},
    {"http.response.pathsend", .ends = true},
    /* A WebSocket's handshake is the request; what goes through it later is no latency. */
    {"websocket.accept", .starts = true, .ends = true},
    {"websocket.close", .starts = true, .ends = true},
    {"websocket.http.response.start", .starts = true},
    {"websocket.http.response.body", .is_body = true},
};
enum { MESSAGE_COUNT = sizeof(MESSAGES) / sizeof(MESSAGES[0]) };

static int
kind_of_text(PyObject *type)
{
	if (!PyUnicode_Check(type) || !PyUnicode_IS_ASCII(type))
		return MESSAGE_COUNT;
	size_t len = (size_t)PyUnicode_GET_LENGTH(type);
	int i = 0;
	while (i < MESSAGE_COUNT && (strncmp(MESSAGES[i].type, PyUnicode_DATA(type), len) != 0 ||
	                             MESSAGES[i].type[len] != '\0'))
		i++;
	return i;
}

/* The index in MESSAGES, MESSAGE_COUNT where it is none of them. An app's type is nearly always the
 * same constant of its framework's code: the last one of each kind is kept and known again. */
static int
message_kind(PyObject *message)
{
	static PyObject *known[MESSAGE_COUNT]; /* strong */
	PyObject *type = PyDict_GetItemWithError(message, name_type);
	if (type == NULL) {
		engine_check("message");
		return MESSAGE_COUNT;
	}
	for (int i = 0; i < MESSAGE_COUNT; i++)
		if (known[i] == type)
			return i;
	int kind = kind_of_text(type);
	if (kind < MESSAGE_COUNT && PyUnicode_CheckExact(type)) {
		PyObject *before = known[kind];
		known[kind] = Py_NewRef(type);
		Py_XDECREF(before);
	}
	return kind;
}

PyObject *
request_send(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
	struct request *request = (struct request *)self;
	PyObject *send = request->send, *result = NULL;
	bool live = request->state == REQUEST_OPEN && !engine.disabled && !is_stale(request);
	if (send == NULL) { /* only the garbage collector does that */
		PyErr_SetString(PyExc_RuntimeError, "the request is gone");
		return NULL;
	}
	Py_INCREF(send);
	PyObject *message = PyVectorcall_NARGS(nargsf) == 1 && names == NULL ? args[0] : NULL;
	bool is_message = live && message != NULL && PyDict_Check(message);
	int kind = is_message ? message_kind(message) : MESSAGE_COUNT;
	if (kind < MESSAGE_COUNT && MESSAGES[kind].starts && !on_start(request)) {
		Py_DECREF(send);
		return NULL;
	}
	bool ends = kind < MESSAGE_COUNT &&
	            (MESSAGES[kind].ends || (MESSAGES[kind].is_body && is_last(message)));
	if (kind < MESSAGE_COUNT && MESSAGES[kind].is_body && !ends)
		on_chunk(request);
	result = app_call(send, args, nargsf, names);
	Py_DECREF(send);
	return ends && !engine.disabled ? last_send_new(request, result) : result;
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
	let_go(request, true);
	Py_CLEAR(request->send);
	if (request->root != NULL)
		lane_detach(request->root);
	lane_unref(request->root);
	identity_unref(request->who);
	jobs_free(request);
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

bool
request_init(void)
{
	name_type = PyUnicode_InternFromString("type");
	name_more_body = PyUnicode_InternFromString("more_body");
	return name_type != NULL && name_more_body != NULL && PyType_Ready(&request_type) == 0;
}
