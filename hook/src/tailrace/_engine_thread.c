/* Jobs: functions a request hands to worker threads, through anyio or the loop's executor. Each
 * is called through an object that times it and leads the path through the thread. */
#include "_engine_detail.h"

/* The job this thread runs, or has just ended and whose result it still has to hand over;
 * strong. */
static _Thread_local struct job *current;

static PyObject *job_call(PyObject *, PyObject *const *, size_t, PyObject *);

/* func as a job of the running lane: a new reference, to func itself where no lane of an open
 * request runs. submitted: it is queued now, else when its lane next pauses. */
PyObject *
thread_wrap(PyObject *func, bool submitted)
{
	struct loop *loop = loop_current();
	struct running *running = loop != NULL && !engine.disabled ? loop_running(loop) : NULL;
	struct lane *lane = running != NULL ? running->lane : NULL;
	struct job *job = NULL;
	if (lane != NULL && lane->request != NULL && PyCallable_Check(func) &&
	    loop->thread == PyThreadState_Get())
		job = PyObject_GC_New(struct job, &job_type);
	if (job == NULL) {
		engine_check("thread");
		Py_INCREF(func);
		return func;
	}
	memset((char *)job + sizeof(PyObject), 0, sizeof(*job) - sizeof(PyObject));
	Py_INCREF(func);
	Py_INCREF(lane->request);
	job->vectorcall = job_call;
	job->func = func;
	job->request = lane->request;
	job->lane = lane_ref(lane);
	job->stack = STACK_NONE;
	int64_t now_ns = clock_now_ns();
	job->queued_ns = submitted ? now_ns : NO_TIME;
	if (submitted)
		job->path = lane_path_at(lane, now_ns);
	job->number = detail_lane(job->request, lane->number, LANE_THREAD, STACK_NONE, now_ns);
	PyObject_GC_Track(job);
	return (PyObject *)job;
}

static bool
is_open(const struct job *job)
{
	return job->request->state != REQUEST_CLOSED &&
	       job->request->generation == engine.generation;
}

static void
drop_path(struct job *job)
{
	path_set(&job->path, NULL);
}

static void
add_run(struct job *job, int64_t now_ns)
{
	struct node *before = job->path;
	job->path = path_add_run(job->path, now_ns, job->stack, job->run_counted, SEG_THREAD_RUN,
	                         job->samples);
	job->run_counted |= job->path != before;
}

struct job *
thread_job(void)
{
	return current != NULL && current->running && is_open(current) ? current : NULL;
}

void
thread_cut(struct job *job, const PyCodeObject *owner, PyCodeObject *code)
{
	int64_t now_ns = clock_now_ns();
	int32_t stack = job->stack;
	if (!job->running || !is_open(job))
		return;
	if (code != NULL) {
		job->stack = stack_insert(stack, owner, code);
		for (uint32_t i = 0; job->samples != NULL && i < job->samples->len; i++)
			job->samples->items[i].stack =
			    stack_insert(job->samples->items[i].stack, owner, code);
	}
	add_run(job, now_ns);
	detail_add(job->request, job->number, SEG_THREAD_RUN, job->stack, 0, now_ns);
	job->stack = stack;
}

static void
job_begin(struct job *job, PyObject *const *args, Py_ssize_t count, int64_t now_ns)
{
	struct segment queue = {
	    .kind = SEG_THREAD_QUEUE, .cause = CAUSE_EXECUTOR, .stack = STACK_NONE, .exact = true};
	job->stack = walk_job(job->func, args, count);
	if (job->path == NULL && job->lane->request == job->request)
		job->path = lane_path_at(job->lane, now_ns);
	if (job->queued_ns == NO_TIME) /* when its lane paused */
		job->queued_ns = job->path != NULL ? job->path->end_ns : now_ns;
	job->path = path_add(job->path, &queue, now_ns);
	detail_name(job->request, job->number, job->stack);
	detail_add(job->request, job->number, SEG_THREAD_QUEUE, STACK_NONE, 0, now_ns);
	job->begin_ns = now_ns;
	job->running = true;
	job->thread = PyThreadState_Get();
	PyFrameObject *frame = PyThreadState_GetFrame(job->thread);
	PyCodeObject *base = frame != NULL ? PyFrame_GetCode(frame) : NULL;
	if (base != NULL && code_intern(base) != NULL)
		job->base_code = base;
	Py_XDECREF(base);
	Py_XDECREF(frame);
	engine_check("thread");
	job->begin_cpu_ns = jobs_cpu_now_ns();
}

static void
job_end(struct job *job)
{
	int64_t now_ns = clock_now_ns();
	job->running = false;
	if (is_open(job)) {
		job->total = jobs_add(job->request, job, now_ns);
		add_run(job, now_ns);
		detail_add(job->request, job->number, SEG_THREAD_RUN, job->stack, 0, now_ns);
		detail_lane_end(job->request, job->number);
	} else {
		drop_path(job);
	}
	if (job->lane->loop->is_bare && job->lane->request == job->request) {
		path_set(&job->lane->job_path, path_ref(job->path));
		job->lane->job = job->total;
	}
	PyMem_RawFree(job->samples);
	job->samples = NULL;
}

static PyObject *
job_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
	struct job *job = (struct job *)self, *outer = current;
	if (job->running || !is_open(job))
		return app_call(job->func, args, nargsf, names);
	Py_INCREF(self);
	current = job;
	if (outer != NULL && !outer->running)
		Py_CLEAR(outer); /* its result was never handed to a loop */
	int64_t now_ns = clock_now_ns();
	job_begin(job, args, PyVectorcall_NARGS(nargsf), now_ns);
	int slot = sampler_job_begin(job, now_ns);
	if (job->request->deep != NULL)
		deep_enter(job->request, job->number, job, now_ns);
	PyObject *result = app_call(job->func, args, nargsf, names);
	PyObject *type = NULL, *value = NULL, *traceback = NULL;
	if (result == NULL)
		PyErr_Fetch(&type, &value, &traceback);
	if (deep_threads > 0)
		deep_leave(job, clock_now_ns());
	sampler_job_end(slot);
	job_end(job);
	if (outer != NULL) {
		current = outer;
		Py_DECREF(self);
	}
	if (result == NULL)
		PyErr_Restore(type, value, traceback);
	return result;
}

/* Who schedules now from a thread that is not the loop's: the job it runs or has just ended, if
 * any. */
void
thread_source(struct source *source, int64_t now_ns)
{
	struct job *job = current;
	*source = (struct source){.kind = SOURCE_THREAD, .due_ns = now_ns};
	if (job == NULL)
		return;
	if (is_open(job)) {
		if (job->running)
			add_run(job, now_ns);
		source->request = job->request;
		source->number = job->number;
		Py_INCREF(source->request);
		source->path = path_ref(job->path);
		source->job = job->total;
	}
	if (!job->running) {
		current = NULL;
		Py_DECREF(job);
	}
}

static int
job_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct job *job = (struct job *)self;
	Py_VISIT(job->func);
	Py_VISIT(job->request);
	return 0;
}

static int
job_clear(PyObject *self)
{
	struct job *job = (struct job *)self;
	Py_CLEAR(job->func);
	return 0;
}

static void
job_dealloc(PyObject *self)
{
	struct job *job = (struct job *)self;
	PyObject_GC_UnTrack(self);
	drop_path(job);
	lane_unref(job->lane);
	Py_CLEAR(job->func);
	Py_CLEAR(job->request);
	PyMem_RawFree(job->samples);
	PyObject_GC_Del(self);
}

/* Pickled, a job is its function: a loop's default executor may be a pool of processes. */
static PyObject *
job_reduce(PyObject *self, PyObject *protocol)
{
	PyObject *tools = PyImport_ImportModule("functools");
	PyObject *partial = tools != NULL ? PyObject_GetAttrString(tools, "partial") : NULL;
	(void)protocol;
	Py_XDECREF(tools);
	return partial != NULL ? Py_BuildValue("N(O)", partial, ((struct job *)self)->func) : NULL;
}

static PyMethodDef JOB_REDUCE = {"__reduce_ex__", job_reduce, METH_O, NULL};

static PyObject *
job_getattro(PyObject *self, PyObject *name)
{
	if (PyUnicode_CompareWithASCIIString(name, "__reduce_ex__") == 0)
		return PyCFunction_New(&JOB_REDUCE, self);
	return app_get(((struct job *)self)->func, name);
}

static PyObject *
job_repr(PyObject *self)
{
	return PyObject_Repr(((struct job *)self)->func);
}

PyTypeObject job_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailrace._engine.Job",
    .tp_basicsize = sizeof(struct job),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(struct job, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = job_dealloc,
    .tp_traverse = job_traverse,
    .tp_clear = job_clear,
    .tp_getattro = job_getattro,
    .tp_repr = job_repr,
};

/* run_sync_in_worker_thread(cls, func, ...) with func as a job; self is the function it stands
 * for. The coroutine is the original's own: no frame is added. */
static PyObject *
worker_call(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	PyObject *few[ARGS_MAX];
	Py_ssize_t total = count + (names != NULL ? PyTuple_GET_SIZE(names) : 0);
	if (count < 2 || total > ARGS_MAX)
		return app_call(self, args, (size_t)count, names);
	memcpy(few, args, (size_t)total * sizeof(*args));
	few[1] = thread_wrap(args[1], false);
	PyObject *result = app_call(self, few, (size_t)count, names);
	Py_DECREF(few[1]);
	return result;
}

static PyMethodDef WORKER_CALL = {"run_sync_in_worker_thread",
                                  (PyCFunction)(void (*)(void))worker_call,
                                  METH_FASTCALL | METH_KEYWORDS, NULL};

static PyObject *
wrap_worker_call(PyObject *module, PyObject *function)
{
	(void)module;
	return PyCFunction_New(&WORKER_CALL, function);
}

static PyObject *
wrap_job(PyObject *module, PyObject *function)
{
	(void)module;
	return thread_wrap(function, true);
}

PyMethodDef thread_functions[] = {
    {"wrap_worker_call", wrap_worker_call, METH_O,
     "wrap_worker_call(function): anyio's run_sync_in_worker_thread with its jobs timed."},
    {"wrap_job", wrap_job, METH_O,
     "wrap_job(function): what to hand to a worker thread now in its place, so that it is timed."},
    {NULL, NULL, 0, NULL},
};

bool
thread_init(void)
{
	return PyType_Ready(&job_type) == 0;
}
