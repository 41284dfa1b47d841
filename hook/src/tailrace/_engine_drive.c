/* The fallback where the loop's own calls cannot be watched (no __dict__, trio): an awaitable that
 * drives the app's coroutine and times it between two suspensions. It adds no frame. Who woke it
 * is known only where it awaited a task or a worker thread of its own request; when it was due is
 * not. */
#include "_engine.h"

struct drive {
	PyObject_HEAD PyObject *coro;
	PyObject *awaited;     /* what it last yielded to the loop; strong */
	struct identity *who;  /* strong: whose it is; the request itself may go */
	struct node *end_path; /* when it had ended */
	struct source woken;   /* who made it due, where the loop tells (trio) */
	bool is_woken;
	struct step step; /* no object: where its steps are kept */
	bool is_root, done;
};

static PyObject *name_loop, *name_get_coro, *name_children;

/* This thread's; borrowed, or NULL. Its steps are those of all that is driven here. */
static struct loop *
bare_loop(void)
{
	PyObject *dict = PyThreadState_GetDict();
	PyObject *loop = dict != NULL ? PyDict_GetItemWithError(dict, name_loop) : NULL;
	if (loop == NULL && dict != NULL && !PyErr_Occurred()) {
		loop = (PyObject *)loop_new_bare();
		if (loop != NULL && PyDict_SetItem(dict, name_loop, loop) == 0)
			Py_DECREF(loop); /* the dict keeps it */
		else
			Py_CLEAR(loop);
	}
	return (struct loop *)loop;
}

/* --- who woke it ------------------------------------------------------------------------------ */

/* The driven coroutine of a task (borrowed), where it has ended as part of the same request. */
static struct drive *
ended_child(const struct drive *drive, PyObject *task)
{
	PyObject *coro = PyObject_CallMethodNoArgs(task, name_get_coro);
	struct drive *child = (struct drive *)coro;
	if (coro == NULL)
		engine_check("drive");
	if (coro != NULL &&
	    (!Py_IS_TYPE(coro, &drive_type) || child->end_path == NULL || child->who != drive->who))
		child = NULL;
	Py_XDECREF(coro); /* the task keeps it */
	return child;
}

/* What it awaited: a task, or what gather() made of several, the last of which woke it. */
static struct drive *
waking_child(const struct drive *drive)
{
	PyObject *children = PyObject_GetAttr(drive->awaited, name_children);
	struct drive *last = NULL;
	if (children == NULL || !PyList_Check(children)) {
		engine_check("drive");
		Py_XDECREF(children);
		return PyObject_HasAttr(drive->awaited, name_get_coro)
		           ? ended_child(drive, drive->awaited)
		           : NULL;
	}
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(children); i++) {
		struct drive *child = ended_child(drive, PyList_GET_ITEM(children, i));
		if (child != NULL &&
		    (last == NULL || child->end_path->end_ns > last->end_path->end_ns))
			last = child;
	}
	Py_DECREF(children);
	return last;
}

static void
lead_from(struct source *source, enum source_kind kind, struct request *request, struct node *path)
{
	*source = (struct source){.kind = kind, .due_ns = path->end_ns};
	Py_INCREF(request);
	source->request = request;
	source->path = path_ref(path);
}

static void
forget_woken(struct drive *drive)
{
	Py_CLEAR(drive->woken.request);
	path_set(&drive->woken.path, NULL);
	identity_unref(drive->woken.who);
	drive->woken = (struct source){0};
	drive->is_woken = false;
}

/* It is due from now on; waker: whose step runs now or has just ended, NULL where that is not
 * driven: then what was due before the loop came to look is an estimate. */
static void
learn_woken(struct drive *drive, struct drive *waker)
{
	struct source *woken = &drive->woken;
	struct lane *lane = drive->step.lane, *from = waker != NULL ? waker->step.lane : NULL;
	forget_woken(drive);
	*woken = (struct source){.kind = SOURCE_IO, .due_ns = clock_now_ns()};
	drive->is_woken = true;
	if (waker == drive) {
		woken->kind = SOURCE_LANE;
		woken->lane = lane;
	} else if (from != NULL && from->request != NULL) {
		woken->kind = SOURCE_LANE;
		woken->lane = from;
		woken->number = from->number;
		woken->request = from->request;
		Py_INCREF(woken->request);
		woken->path = lane_path_at(from, woken->due_ns);
	} else if (waker != NULL && waker->end_path != NULL && waker->who == drive->who) {
		lead_from(woken, SOURCE_LANE, lane->request, waker->end_path);
	} else if (waker != NULL) {
		woken->kind = SOURCE_FOREIGN;
		woken->who = identity_ref(waker->who);
	}
}

static void
find_source(struct drive *drive, int64_t now_ns)
{
	struct lane *lane = drive->step.lane;
	struct source *source = &drive->step.source;
	if (drive->is_woken) {
		*source = drive->woken; /* with its references */
		drive->woken = (struct source){0};
		drive->is_woken = false;
		if (lane == NULL || lane->request == NULL || !lane->started)
			return;
		if (source->kind != SOURCE_IO || lane->job_path == NULL) {
			path_set(&lane->job_path, NULL);
			return;
		}
	}
	*source = (struct source){.kind = SOURCE_IO, .due_ns = now_ns};
	if (lane == NULL || lane->request == NULL || !lane->started)
		return;
	struct drive *child =
	    drive->awaited != NULL && drive->awaited != Py_None ? waking_child(drive) : NULL;
	if (child != NULL) {
		lead_from(source, SOURCE_LANE, lane->request, child->end_path);
	} else if (lane->job_path != NULL) {
		lead_from(source, SOURCE_THREAD, lane->request, lane->job_path);
		source->job = lane->job;
	} else if (drive->awaited == Py_None) {
		*source = (struct source){.kind = SOURCE_LANE, .due_ns = now_ns, .lane = lane};
	}
	path_set(&lane->job_path, NULL);
}

/* --- driving ---------------------------------------------------------------------------------- */

static void
resume(struct drive *drive)
{
	int64_t now_ns = clock_now_ns();
	find_source(drive, now_ns);
	Py_CLEAR(drive->awaited);
	step_enter(&drive->step, now_ns);
}

/* awaited: what it yielded; NULL when it has ended, by return or by an exception (which stays). */
static void
suspend(struct drive *drive, PyObject *awaited)
{
	PyObject *type, *value, *traceback;
	PyErr_Fetch(&type, &value, &traceback);
	struct lane *lane = drive->step.lane;
	Py_XINCREF(awaited);
	drive->awaited = awaited;
	drive->done = awaited == NULL;
	if (drive->done && !drive->is_root && lane != NULL && lane->request != NULL)
		drive->end_path = lane_path_at(lane, clock_now_ns());
	step_leave(&drive->step);
	PyErr_Restore(type, value, traceback);
}

static PySendResult
drive_am_send(PyObject *self, PyObject *arg, PyObject **ret)
{
	struct drive *drive = (struct drive *)self;
	resume(drive);
	PySendResult how = PyIter_Send(drive->coro, arg, ret);
	suspend(drive, how == PYGEN_NEXT ? *ret : NULL);
	return how;
}

static PyObject *
drive_send(PyObject *self, PyObject *arg)
{
	PyObject *result = NULL;
	PySendResult how = drive_am_send(self, arg, &result);
	return how == PYGEN_RETURN ? stop_iteration(result) : result;
}

static PyObject *
drive_iternext(PyObject *self)
{
	return drive_send(self, Py_None);
}

static PyObject *
drive_throw(PyObject *self, PyObject *args)
{
	struct drive *drive = (struct drive *)self;
	PyObject *method = app_attribute(drive->coro, "throw");
	if (method == NULL)
		return NULL;
	resume(drive);
	PyObject *result = app_call_tuple(method, args);
	suspend(drive, result);
	Py_DECREF(method);
	return result;
}

static PyObject *
drive_close(PyObject *self, PyObject *unused)
{
	struct drive *drive = (struct drive *)self;
	(void)unused;
	resume(drive);
	PyObject *method = app_attribute(drive->coro, "close");
	PyObject *result = method != NULL ? app_call(method, NULL, 0, NULL) : NULL;
	Py_XDECREF(method);
	suspend(drive, NULL);
	return result;
}

/* --- what tasks and walkers ask --------------------------------------------------------------- */

static PyObject *
drive_self(PyObject *self)
{
	Py_INCREF(self);
	return self;
}

static PyObject *
drive_get_coro(PyObject *self, PyObject *unused)
{
	(void)unused;
	return drive_self(((struct drive *)self)->coro);
}

static PyObject *
drive_done(PyObject *self, PyObject *unused)
{
	const struct drive *drive = (struct drive *)self;
	(void)unused;
	return PyBool_FromLong(drive->done && !drive->is_root);
}

static PyObject *
drive_await_method(PyObject *self, PyObject *unused)
{
	(void)unused;
	return drive_self(self);
}

/* cr_await, cr_frame, __name__ and the like are the coroutine's own. */
static PyObject *
drive_getattro(PyObject *self, PyObject *name)
{
	PyObject *own = PyObject_GenericGetAttr(self, name); /* the app asked */
	if (own != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError))
		return own;
	engine_check("drive");
	return app_get(((struct drive *)self)->coro, name);
}

static PyObject *
drive_repr(PyObject *self)
{
	return PyObject_Repr(((struct drive *)self)->coro);
}

static int
drive_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct drive *drive = (struct drive *)self;
	Py_VISIT(drive->coro);
	Py_VISIT(drive->awaited);
	return 0;
}

static int
drive_clear(PyObject *self)
{
	struct drive *drive = (struct drive *)self;
	Py_CLEAR(drive->awaited);
	return 0;
}

static void
drive_dealloc(PyObject *self)
{
	struct drive *drive = (struct drive *)self;
	PyObject_GC_UnTrack(self);
	if (drive->step.lane != NULL)
		lane_detach(drive->step.lane); /* its address is another's next */
	lane_unref(drive->step.lane);
	path_set(&drive->end_path, NULL);
	forget_woken(drive);
	Py_CLEAR(drive->awaited);
	identity_unref(drive->who);
	Py_CLEAR(drive->step.loop);
	Py_CLEAR(drive->coro);
	PyObject_GC_Del(self);
}

static PyMethodDef METHODS[] = {
    {"send", drive_send, METH_O, NULL},
    {"throw", drive_throw, METH_VARARGS, NULL},
    {"close", drive_close, METH_NOARGS, NULL},
    {"get_coro", drive_get_coro, METH_NOARGS, NULL},
    {"done", drive_done, METH_NOARGS, NULL},
    {"__await__", drive_await_method, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyAsyncMethods ASYNC_METHODS = {.am_await = drive_self, .am_send = drive_am_send};

PyTypeObject drive_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailrace._engine.Drive",
    .tp_basicsize = sizeof(struct drive),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = drive_dealloc,
    .tp_traverse = drive_traverse,
    .tp_clear = drive_clear,
    .tp_as_async = &ASYNC_METHODS,
    .tp_iter = drive_self,
    .tp_iternext = drive_iternext,
    .tp_getattro = drive_getattro,
    .tp_repr = drive_repr,
    .tp_methods = METHODS,
};

/* --- making them ------------------------------------------------------------------------------ */

static struct drive *
drive_new(PyObject *coro, struct loop *loop, struct request *request, struct node *path)
{
	struct drive *drive = PyObject_GC_New(struct drive, &drive_type);
	if (drive == NULL) {
		path_unref(path);
		return NULL;
	}
	memset((char *)drive + sizeof(PyObject), 0, sizeof(*drive) - sizeof(PyObject));
	Py_INCREF(coro);
	Py_INCREF(loop);
	drive->coro = coro;
	drive->who = identity_ref(request->who);
	drive->step.loop = loop;
	drive->step.task = (PyObject *)drive;
	drive->step.lane = lane_new(request, loop, (PyObject *)drive, path);
	PyObject_GC_Track(drive);
	return drive;
}

static PyObject *
drive_root(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
	(void)module;
	if (count != 2 || !Py_IS_TYPE(args[1], &request_type)) {
		PyErr_SetString(PyExc_TypeError, "drive(coroutine, request)");
		return NULL;
	}
	struct request *request = (struct request *)args[1];
	struct loop *loop = engine.disabled || request->loop != NULL ? NULL : bare_loop();
	if (loop != NULL) {
		Py_INCREF(loop);
		request->loop = loop;
		loop->active++;
	}
	struct node *path = loop != NULL ? path_new(request->enter_ns) : NULL;
	struct drive *drive = loop != NULL ? drive_new(args[0], loop, request, path) : NULL;
	if (drive == NULL) {
		if (PyErr_Occurred())
			engine_failed("drive");
		return drive_self(args[0]);
	}
	drive->is_root = true;
	request->root = lane_ref(drive->step.lane);
	return (PyObject *)drive;
}

static PyObject *
drive_child(PyObject *module, PyObject *coro)
{
	(void)module;
	struct loop *loop = engine.disabled ? NULL : bare_loop();
	struct running *running = loop != NULL ? loop->running : NULL;
	struct request *request = current_request(running);
	struct drive *drive = NULL;
	if (request != NULL && request->state != REQUEST_CLOSED && PyCoro_CheckExact(coro))
		drive = drive_new(coro, loop, request, lane_path_at(running->lane, clock_now_ns()));
	if (PyErr_Occurred())
		engine_failed("drive");
	return drive != NULL ? (PyObject *)drive : drive_self(coro);
}

static PyObject *
drive_woken(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
	(void)module;
	if (count == 2 && Py_IS_TYPE(args[0], &drive_type) && !engine.disabled) {
		struct drive *drive = (struct drive *)args[0];
		struct lane *lane = drive->step.lane;
		bool known = Py_IS_TYPE(args[1], &drive_type);
		if (lane != NULL && lane->request != NULL && lane->started && !lane->running)
			learn_woken(drive, known ? (struct drive *)args[1] : NULL);
	}
	Py_RETURN_NONE;
}

PyMethodDef drive_functions[] = {
    {"drive", (PyCFunction)(void (*)(void))drive_root, METH_FASTCALL,
     "drive(coroutine, request): an awaitable that times it for a request without a loop."},
    {"drive_child", drive_child, METH_O,
     "drive_child(coroutine): the same for a new task of the request that is driven now."},
    {"drive_woken", (PyCFunction)(void (*)(void))drive_woken, METH_FASTCALL,
     "drive_woken(driven, waker): it is due from now on, by the other where that is driven too."},
    {NULL, NULL, 0, NULL},
};

bool
drive_init(void)
{
	name_loop = PyUnicode_InternFromString("_tailrace_loop");
	name_get_coro = PyUnicode_InternFromString("get_coro");
	name_children = PyUnicode_InternFromString("_children");
	return name_loop != NULL && name_get_coro != NULL && name_children != NULL &&
	       PyType_Ready(&drive_type) == 0;
}
