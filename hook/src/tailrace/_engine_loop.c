/* One event loop with our methods on its instance: call_soon, call_later, call_at,
 * call_soon_threadsafe and run_in_executor. Each hands the loop a timed callback and calls the
 * method it replaced. */
#include "_engine.h"

/* The loop that last ran a step on this thread: it may be gone since. */
static _Thread_local int current_slot;
static _Thread_local uint64_t current_id;
static struct loop *loops[LOOPS_MAX]; /* borrowed; by slot, for the sampler under the GIL */
static uint64_t last_id;
static PyObject *name_attribute;

struct loop *
loop_current(void)
{
	struct loop *loop = loops[current_slot];
	return loop != NULL && loop->id == current_id ? loop : NULL;
}

void
loop_set_current(struct loop *loop)
{
	current_slot = loop->slot;
	current_id = loop->id;
}

struct loop *
loop_at(int slot)
{
	return loops[slot];
}

/* Takes who's reference. */
static void
note(struct loop *loop, const struct stall *stall)
{
	loop->recent[loop->recent_next++ % RECENT_STEPS_MAX] =
	    (struct recent_step){stall->begin_ns, stall->end_ns, loop->turn};
	/* Also where no request is open: one may wait in its socket. */
	if (stall->end_ns - stall->begin_ns < engine.stall_threshold_ns) {
		identity_unref(stall->who);
		return;
	}
	struct stall *place = &loop->stalls[loop->stalls_next++ % STALL_LOG_MAX];
	struct identity *old = place->who;
	*place = *stall;
	identity_unref(old);
}

/* A step or callback of 1 ms and more has ended. */
void
loop_note(struct loop *loop, const struct running *running, int64_t end_ns)
{
	int32_t sampled = sample_top(running->samples);
	struct identity *who = running->request != NULL ? running->request->who
	                       : running->lane != NULL  ? running->lane->who
	                                                : running->source.who;
	const struct stall stall = {.begin_ns = running->begin_ns,
	                            .end_ns = end_ns,
	                            .who = identity_ref(who),
	                            .stack = sampled != STACK_NONE ? sampled : running->stack,
	                            .kind = running->task != NULL ? STALL_STEP : STALL_CALLBACK,
	                            .state = (uint8_t)running->hold.state};
	note(loop, &stall);
}

void
loop_io_ended(struct loop *loop, int64_t end_ns)
{
	const struct stall stall = {.begin_ns = loop->io.begin_ns,
	                            .end_ns = end_ns,
	                            .stack = sample_top(loop->io.samples),
	                            .kind = STALL_IO_CALLBACK,
	                            .state = (uint8_t)loop->io.hold.state};
	note(loop, &stall);
	loop->busy_since_ns = loop->io.begin_ns;
	loop->last_end_ns = end_ns;
	loop->steps_since_idle = 1;
	PyMem_RawFree(loop->io.samples);
	loop->io = (struct io_hold){.begin_ns = 0};
}

/* Where turns are not known: how long such steps, one right after the other, held the thread up to
 * to_ns. */
static int64_t
held_before(const struct loop *loop, int64_t from_ns, int64_t to_ns)
{
	int64_t since_ns = to_ns;
	for (uint32_t i = 1; i <= RECENT_STEPS_MAX && i <= loop->recent_next; i++) {
		const struct recent_step *step =
		    &loop->recent[(loop->recent_next - i) % RECENT_STEPS_MAX];
		if (step->end_ns < since_ns - LONG_STEP_MIN_NS)
			break;
		since_ns = step->begin_ns;
	}
	return to_ns - (since_ns > from_ns ? since_ns : from_ns);
}

/* How long steps of 1 ms and more held the loop between from and to, in the turn before or at
 * the given one: so long a socket may have been ready at most. */
int64_t
loop_recent_overlap(const struct loop *loop, uint64_t turn, int64_t from_ns, int64_t to_ns)
{
	int64_t sum_ns = 0;
	if (loop->is_bare)
		return held_before(loop, from_ns, to_ns);
	for (int i = 0; i < RECENT_STEPS_MAX; i++) {
		const struct recent_step *step = &loop->recent[i];
		int64_t begin_ns = step->begin_ns > from_ns ? step->begin_ns : from_ns;
		int64_t end_ns = step->end_ns < to_ns ? step->end_ns : to_ns;
		if (end_ns > begin_ns && step->turn + 1 >= turn && step->turn <= turn)
			sum_ns += end_ns - begin_ns;
	}
	return sum_ns;
}

/* Calls method with args[index] replaced by callback (whose reference is taken). */
static PyObject *
call_with(PyObject *method, PyObject *const *args, Py_ssize_t count, PyObject *names,
          Py_ssize_t index, PyObject *callback)
{
	PyObject *few[ARGS_MAX + 1], **all = few;
	Py_ssize_t total = count + (names != NULL ? PyTuple_GET_SIZE(names) : 0);
	if (callback == NULL)
		return NULL;
	if (total > ARGS_MAX && (all = PyMem_New(PyObject *, total + 1)) == NULL) {
		Py_DECREF(callback);
		return PyErr_NoMemory();
	}
	memcpy(all + 1, args, (size_t)total * sizeof(*args));
	all[1 + index] = callback;
	PyObject *result =
	    app_call(method, all + 1, (size_t)count | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
	if (all != few)
		PyMem_Free(all);
	Py_DECREF(callback);
	return result;
}

bool
loop_on_own_thread(const struct loop *loop)
{
	return loop->thread == NULL || loop->thread == PyThreadState_Get();
}

static PyObject *
loop_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct loop *loop = (struct loop *)self;
	if (count < 1 || !loop_on_own_thread(loop))
		return app_call(loop->call_soon, args, (size_t)count, names);
	return call_with(loop->call_soon, args, count, names, 0,
	                 step_wrap(loop, args[0], NO_TIME, false));
}

static PyObject *
loop_call_soon_threadsafe(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct loop *loop = (struct loop *)self;
	if (count < 1)
		return app_call(loop->call_soon_threadsafe, args, (size_t)count, names);
	return call_with(loop->call_soon_threadsafe, args, count, names, 0,
	                 step_wrap(loop, args[0], NO_TIME, !loop_on_own_thread(loop)));
}

/* The deadline of a timer, or NO_TIME where the delay is no number: the loop's own method then
 * complains. */
static int64_t
deadline_ns(const struct loop *loop, PyObject *delay, double base_s)
{
	double seconds = PyFloat_AsDouble(delay);
	if (seconds == -1.0 && PyErr_Occurred()) {
		engine_check("loop");
		return NO_TIME;
	}
	seconds -= base_s;
	if (!(seconds > 0))
		seconds = 0;
	if (seconds > 1e9)
		seconds = 1e9;
	double ns = loop->is_uvloop ? (double)(int64_t)(seconds * 1e3 + 0.5) * 1e6 : seconds * 1e9;
	return clock_now_ns() + (int64_t)ns;
}

static PyObject *
loop_call_later(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct loop *loop = (struct loop *)self;
	int64_t due_ns = count < 2 || loop->active == 0 ? NO_TIME : deadline_ns(loop, args[0], 0);
	if (due_ns == NO_TIME)
		return app_call(loop->call_later, args, (size_t)count, names);
	return call_with(loop->call_later, args, count, names, 1,
	                 step_wrap(loop, args[1], due_ns, false));
}

static PyObject *
loop_call_at(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct loop *loop = (struct loop *)self;
	if (count < 2 || loop->active == 0)
		return app_call(loop->call_at, args, (size_t)count, names);
	PyObject *time = PyObject_CallNoArgs(loop->time);
	double now_s = time != NULL ? PyFloat_AsDouble(time) : 0;
	Py_XDECREF(time);
	bool told = PyErr_Occurred() == NULL;
	engine_check("loop");
	int64_t due_ns = told ? deadline_ns(loop, args[0], now_s) : NO_TIME;
	if (due_ns == NO_TIME)
		return app_call(loop->call_at, args, (size_t)count, names);
	return call_with(loop->call_at, args, count, names, 1,
	                 step_wrap(loop, args[1], due_ns, false));
}

/* Only a pool of threads: another executor may want to pickle the function. */
static PyObject *
loop_run_in_executor(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct loop *loop = (struct loop *)self;
	if (count < 2 || names != NULL || !loop_on_own_thread(loop) ||
	    (args[0] != Py_None && !PyObject_TypeCheck(args[0], engine.thread_pool_type)))
		return app_call(loop->run_in_executor, args, (size_t)count, names);
	return call_with(loop->run_in_executor, args, count, names, 1, thread_wrap(args[1], true));
}

static PyObject *
loop_set_task_factory(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct loop *loop = (struct loop *)self;
	PyObject *result = app_call(loop->set_task_factory, args, (size_t)count, names);
	PyObject *target =
	    result != NULL ? PyObject_GetAttrString(loop->set_task_factory, "__self__") : NULL;
	if (result != NULL && (target == NULL || !eager_follow_factory(loop, target)))
		engine_failed("task factory");
	Py_XDECREF(target);
	return result;
}

static PyMethodDef REPLACED[] = {
    {"call_soon", (PyCFunction)(void (*)(void))loop_call_soon, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"call_later", (PyCFunction)(void (*)(void))loop_call_later, METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"call_at", (PyCFunction)(void (*)(void))loop_call_at, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"call_soon_threadsafe", (PyCFunction)(void (*)(void))loop_call_soon_threadsafe,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"run_in_executor", (PyCFunction)(void (*)(void))loop_run_in_executor,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"set_task_factory", (PyCFunction)(void (*)(void))loop_set_task_factory,
     METH_FASTCALL | METH_KEYWORDS, NULL},
};
enum { REPLACED_COUNT = sizeof(REPLACED) / sizeof(REPLACED[0]) };

static PyObject **
original(struct loop *loop, int index)
{
	PyObject **const slots[] = {&loop->call_soon,       &loop->call_later,
	                            &loop->call_at,         &loop->call_soon_threadsafe,
	                            &loop->run_in_executor, &loop->set_task_factory};
	return slots[index];
}

static int
loop_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct loop *loop = (struct loop *)self;
	for (int i = 0; i < REPLACED_COUNT; i++)
		Py_VISIT(*original(loop, i));
	Py_VISIT(loop->time);
	Py_VISIT(loop->create_task);
	return 0;
}

static int
loop_clear(PyObject *self)
{
	struct loop *loop = (struct loop *)self;
	for (int i = 0; i < REPLACED_COUNT; i++)
		Py_CLEAR(*original(loop, i));
	Py_CLEAR(loop->time);
	Py_CLEAR(loop->create_task);
	return 0;
}

static void
loop_dealloc(PyObject *self)
{
	struct loop *loop = (struct loop *)self;
	PyObject_GC_UnTrack(self);
	loop_clear(self);
	for (int i = 0; i < STALL_LOG_MAX; i++)
		identity_unref(loop->stalls[i].who);
	PyMem_RawFree(loop->io.samples);
	loops[loop->slot] = NULL;
	PyObject_GC_Del(self);
}

PyTypeObject loop_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailrace._engine.Loop",
    .tp_basicsize = sizeof(struct loop),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_dealloc = loop_dealloc,
    .tp_traverse = loop_traverse,
    .tp_clear = loop_clear,
};

/* Not tracked yet. */
static struct loop *
loop_alloc(void)
{
	int slot = 0;
	while (slot < LOOPS_MAX && loops[slot] != NULL)
		slot++;
	if (slot == LOOPS_MAX) {
		PyErr_SetString(PyExc_RuntimeError, "too many event loops");
		return NULL;
	}
	struct loop *loop = PyObject_GC_New(struct loop, &loop_type);
	if (loop == NULL)
		return NULL;
	memset((char *)loop + sizeof(PyObject), 0, sizeof(*loop) - sizeof(PyObject));
	loop->id = ++last_id;
	loop->slot = slot;
	loops[slot] = loop;
	return loop;
}

struct loop *
loop_new_bare(void)
{
	struct loop *loop = loop_alloc();
	if (loop != NULL) {
		loop->is_bare = true;
		PyObject_GC_Track(loop);
	}
	return loop;
}

static struct loop *
loop_new(PyObject *target)
{
	struct loop *loop = loop_alloc();
	if (loop == NULL)
		return NULL;
	PyObject *module = PyObject_GetAttrString((PyObject *)Py_TYPE(target), "__module__");
	const char *name =
	    module != NULL && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : NULL;
	loop->is_uvloop = name != NULL && strncmp(name, "uvloop", 6) == 0;
	Py_XDECREF(module);
	engine_check("loop");
	loop->time = PyObject_GetAttrString(target, "time");
	bool good = loop->time != NULL;
	for (int i = 0; good && i < REPLACED_COUNT; i++) {
		*original(loop, i) = PyObject_GetAttrString(target, REPLACED[i].ml_name);
		good = *original(loop, i) != NULL;
	}
	PyObject_GC_Track(loop);
	if (!good)
		Py_CLEAR(loop);
	return loop;
}

/* install(loop) -> bool: puts our methods on the loop; False where they are there already. Raises
 * AttributeError for loops without __dict__. */
static PyObject *
install(PyObject *module, PyObject *target)
{
	(void)module;
	PyObject *dict = PyObject_GenericGetDict(target, NULL);
	if (dict == NULL)
		return NULL;
	struct loop *loop = (struct loop *)PyDict_GetItemWithError(dict, name_attribute);
	Py_DECREF(dict);
	if (loop != NULL) {
		if (loop->running == NULL) { /* it may run on another thread now */
			loop->thread = PyThreadState_Get();
			loop->thread_key = PyThreadState_GetID(loop->thread);
		}
		Py_RETURN_FALSE;
	}
	loop = loop_new(target);
	if (loop == NULL)
		return NULL;
	int failed = PyObject_SetAttr(target, name_attribute, (PyObject *)loop);
	for (int i = 0; failed == 0 && i < REPLACED_COUNT; i++) {
		PyObject *method = PyCFunction_New(&REPLACED[i], (PyObject *)loop);
		failed = method == NULL ||
		         PyObject_SetAttrString(target, REPLACED[i].ml_name, method) < 0;
		Py_XDECREF(method);
	}
	if (failed == 0 && !eager_follow_factory(loop, target))
		failed = -1;
	Py_DECREF(loop);
	if (failed)
		return NULL;
	Py_RETURN_TRUE;
}

/* uninstall(loop): takes our methods off again, where they are still ours. */
static PyObject *
uninstall(PyObject *module, PyObject *target)
{
	(void)module;
	PyObject *loop = PyObject_GetAttr(target, name_attribute);
	if (loop == NULL)
		return NULL;
	for (int i = 0; i < REPLACED_COUNT; i++) {
		PyObject *method = PyObject_GetAttrString(target, REPLACED[i].ml_name);
		if (method != NULL && PyCFunction_Check(method) &&
		    PyCFunction_GET_SELF(method) == loop)
			PyObject_DelAttrString(target, REPLACED[i].ml_name);
		Py_XDECREF(method);
		engine_check("loop");
	}
	if (((struct loop *)loop)->create_task != NULL)
		PyObject_DelAttrString(target, "create_task");
	engine_check("loop");
	PyObject_DelAttr(target, name_attribute);
	Py_DECREF(loop);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

/* steps_seen(loop) -> int: how many callbacks of the loop passed through us; for the self-test. */
static PyObject *
steps_seen(PyObject *module, PyObject *target)
{
	(void)module;
	PyObject *loop = PyObject_GetAttr(target, name_attribute);
	if (loop == NULL)
		return NULL;
	uint32_t seen = ((struct loop *)loop)->steps_seen;
	Py_DECREF(loop);
	return PyLong_FromUnsignedLong(seen);
}

PyMethodDef loop_functions[] = {
    {"install", install, METH_O, "install(loop) -> bool: put our methods on the loop's instance."},
    {"uninstall", uninstall, METH_O, "uninstall(loop): take them off again."},
    {"steps_seen", steps_seen, METH_O,
     "steps_seen(loop) -> int: callbacks that passed through us."},
    {NULL, NULL, 0, NULL},
};

bool
loop_init(void)
{
	name_attribute = PyUnicode_InternFromString("_tailrace");
	return name_attribute != NULL && PyType_Ready(&loop_type) == 0;
}

/* In the child nothing of what ran is running, except the thread that forked: the states of other
 * threads are freed. */
void
loop_after_fork(void)
{
	for (int i = 0; i < LOOPS_MAX; i++) {
		if (loops[i] == NULL)
			continue;
		loops[i]->active = 0;
		loops[i]->closing = NULL;
		if (loops[i]->thread == PyThreadState_Get())
			continue;
		loops[i]->thread = NULL;
		loops[i]->running = NULL;
		sampler_step_end(i, 0, false);
	}
}
