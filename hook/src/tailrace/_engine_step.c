/* Callbacks on their way through the loop: each is wrapped in a step, which knows who made it
 * due, when and by which path, and times it. Free-listed: one is made per callback. */
#include "_engine_detail.h"

#include <unistd.h>

#ifdef TAILRACE_FAULTS
enum { SPARE_MAX = 1 }; /* so that most are made, which can fail */
#else
enum { SPARE_MAX = 256 };
#endif

static struct step *spare[SPARE_MAX];
static int spare_count;
static PyObject *no_args;

/* _asyncio.TaskStepMethWrapper begins with the task; verified against __self__ before it is
 * relied on. */
struct task_step {
	PyObject_HEAD PyObject *task;
};

static void
source_clear(struct source *source)
{
	Py_CLEAR(source->request);
	path_set(&source->path, NULL);
	identity_unref(source->who);
	source->who = NULL;
}

static void
source_copy(struct source *to, const struct source *from)
{
	*to = *from;
	Py_XINCREF(to->request);
	path_ref(to->path);
	identity_ref(to->who);
}

/* Who schedules now on the loop's own thread: fills source, which owns its references. */
static void
source_capture(struct loop *loop, struct source *source, int64_t now_ns)
{
	const struct running *running = loop_running(loop);
	*source = (struct source){.kind = SOURCE_IO, .due_ns = now_ns, .turn = loop->turn};
	if (running == NULL)
		return;
	if (running->task != NULL) {
		struct lane *lane = running->lane;
		source->kind = SOURCE_FOREIGN;
		source->who = lane != NULL ? identity_ref(lane->who) : NULL;
		if (lane == NULL || lane->request == NULL)
			return;
		source->kind = SOURCE_LANE;
		source->lane = lane;
		source->number = lane->number;
		source->request = lane->request;
		Py_INCREF(source->request);
		source->path = lane_path_at(lane, now_ns);
		return;
	}
	/* A plain callback hands on what made it due; not for ever, where it keeps scheduling
	 * itself. */
	const struct source *from = &running->source;
	if (from->hops >= CALLBACK_HOPS_MAX ||
	    (from->request != NULL && from->request->state == REQUEST_CLOSED)) {
		struct identity *who = from->request != NULL ? from->request->who : from->who;
		source->kind = SOURCE_FOREIGN;
		source->who = identity_ref(who);
		return;
	}
	source_copy(source, from);
	source->hops++;
}

static bool
learn_step_type(PyObject *callback)
{
	const char *name = Py_TYPE(callback)->tp_name;
	const char *last = strrchr(name, '.');
	if (strcmp(last != NULL ? last + 1 : name, "TaskStepMethWrapper") != 0)
		return false;
	PyObject *task = PyObject_GetAttrString(callback, "__self__");
	bool known = task != NULL && task == ((struct task_step *)callback)->task &&
	             PyObject_TypeCheck(task, engine.task_type);
	engine_check("step");
	Py_XDECREF(task);
	if (known)
		engine.step_type = Py_TYPE(callback);
	return known;
}

/* The task a bound method of the pure Python Task belongs to. */
static PyObject *
python_task_of(PyObject *callback, bool *ret_is_step)
{
	PyObject *self = PyMethod_GET_SELF(callback), *func = PyMethod_GET_FUNCTION(callback);
	if (engine.py_task_type == NULL || !PyObject_TypeCheck(self, engine.py_task_type) ||
	    !PyFunction_Check(func))
		return NULL;
	PyObject *name = ((PyFunctionObject *)func)->func_name;
	*ret_is_step = PyUnicode_CompareWithASCIIString(name, "__step") == 0;
	if (!*ret_is_step && PyUnicode_CompareWithASCIIString(name, "__wakeup") != 0)
		return NULL;
	return self;
}

/* The task this callback is a step or a wakeup of (borrowed), or NULL. */
static PyObject *
task_of(PyObject *callback, bool *ret_is_step)
{
	*ret_is_step = false;
	if (Py_IS_TYPE(callback, engine.step_type) ||
	    (engine.step_type == NULL && learn_step_type(callback))) {
		*ret_is_step = true;
		return ((struct task_step *)callback)->task;
	}
	if (PyCFunction_CheckExact(callback)) {
		PyMethodDef *def = ((PyCFunctionObject *)callback)->m_ml;
		PyObject *self = PyCFunction_GET_SELF(callback);
		if (def == engine.wakeup_def)
			return self;
		if (engine.wakeup_def != NULL || strcmp(def->ml_name, "task_wakeup") != 0 ||
		    self == NULL || !PyObject_TypeCheck(self, engine.task_type))
			return NULL;
		engine.wakeup_def = def;
		return self;
	}
	return PyMethod_Check(callback) ? python_task_of(callback, ret_is_step) : NULL;
}

static PyObject *step_call(PyObject *, PyObject *const *, size_t, PyObject *);

static struct step *
step_new(struct loop *loop, PyObject *callback)
{
	struct step *step = spare_count > 0 ? spare[--spare_count] : NULL;
	if (step == NULL)
		step = PyObject_GC_New(struct step, &step_type);
	else
		(void)PyObject_Init((PyObject *)step, &step_type);
	if (step == NULL)
		return NULL;
	Py_INCREF(callback);
	Py_INCREF(loop);
	step->vectorcall = step_call;
	step->callback = callback;
	step->loop = loop;
	step->task = NULL;
	step->lane = NULL;
	step->is_first = step->is_running = false;
	step->source = (struct source){.kind = SOURCE_IO};
	return step;
}

static int32_t
makers_of(const struct step *step)
{
	const struct running *running = loop_running(step->loop);
	if (running == NULL || running->lane == NULL || running->lane != step->source.lane)
		return STACK_NONE;
	PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
	int32_t makers = walk_makers(frame);
	Py_XDECREF(frame);
	return makers >= 0 ? makers : running->lane->made_at;
}

/* Binds a task's step to its lane, making one where a lane creates a task. */
static void
bind_lane(struct step *step, bool is_step)
{
	struct running *running = loop_running(step->loop);
	bool self = running != NULL && running->task == step->task;
	struct lane *lane = self ? running->lane : NULL;
	if (lane == NULL || lane->task != step->task ||
	    (lane->request == NULL && lane->who == NULL)) /* not in the table */
		lane = lane_find(step->task);
	step->is_first = is_step && !self;
	if (step->is_first && step->loop->running != running)
		step->loop->running->has_queued = true;
	if (!step->is_first) {
		step->lane = lane_ref(lane);
		return;
	}
	struct request *owner = step->source.request;
	if (owner != NULL && owner->state != REQUEST_CLOSED && owner->loop == step->loop)
		step->lane = lane_new(owner, step->loop, step->task, path_ref(step->source.path));
	if (step->lane != NULL && step->lane->first_stack == STACK_LANE)
		step->lane->made_at = makers_of(step);
	if (step->lane == NULL && lane != NULL && lane_find(step->task) == lane)
		lane_detach(lane); /* the address of a task that is gone */
}

static bool
is_coroutine_function(PyObject *callback)
{
	return PyCoro_CheckExact(callback) ||
	       (PyFunction_Check(callback) &&
	        ((PyCodeObject *)PyFunction_GET_CODE(callback))->co_flags & CO_COROUTINE);
}

/* What to hand to the loop instead of callback: a new reference, to callback itself where it is
 * not to be timed. timer_due_ns: its deadline, NO_TIME where it is due at once. */
PyObject *
step_wrap(struct loop *loop, PyObject *callback, int64_t timer_due_ns, bool from_thread)
{
	bool is_step = false;
	PyObject *task = engine.disabled || Py_IS_TYPE(callback, &step_type)
	                     ? NULL
	                     : task_of(callback, &is_step);
	struct step *step = NULL;
	const struct running *running;
	if (engine.disabled || Py_IS_TYPE(callback, &step_type) ||
	    (loop->active == 0 && !(task != NULL && is_step)) ||
	    (task == NULL && (!PyCallable_Check(callback) || is_coroutine_function(callback))) ||
	    (step = step_new(loop, callback)) == NULL) {
		engine_check("step");
		Py_INCREF(callback);
		return callback;
	}
	bool is_due = timer_due_ns == NO_TIME && !from_thread;
	running = task != NULL && is_due ? loop_running(loop) : NULL;
	bool self = running != NULL && running->task == task && running->lane != NULL;
	/* When a timer was set or a task that runs on asked is of no use: no clock is read. */
	int64_t now_ns = self                                      ? running->begin_ns
	                 : task == NULL && timer_due_ns != NO_TIME ? timer_due_ns
	                                                           : clock_now_ns();
	step->scheduled_ns = now_ns;
	step->scheduled_turn = loop->turn;
	step->task = task;
	if (timer_due_ns != NO_TIME)
		step->source = (struct source){.kind = SOURCE_TIMER, .due_ns = timer_due_ns};
	else if (from_thread)
		thread_source(&step->source, now_ns);
	else if (running != NULL && running->task == task)
		step->source = (struct source){.kind = SOURCE_LANE,
		                               .due_ns = now_ns, /* itself */
		                               .turn = loop->turn,
		                               .lane = running->lane};
	else
		source_capture(loop, &step->source, now_ns);
	if (task != NULL)
		bind_lane(step, is_step);
	PyObject_GC_Track(step);
	return (PyObject *)step;
}

/* The frame that runs the loop's callbacks: sampled stacks end above it. */
static void
learn_base_code(struct loop *loop)
{
	PyFrameObject *frame = PyThreadState_GetFrame(loop->thread);
	PyCodeObject *code = frame != NULL ? PyFrame_GetCode(frame) : NULL;
	if (code != NULL && code_intern(code) != NULL)
		loop->base_code = code;
	Py_XDECREF(code);
	Py_XDECREF(frame);
	engine_check("step");
}

static void
push_running(struct step *step, int64_t now_ns)
{
	struct loop *loop = step->loop;
	struct running *running = &step->running;
	*running = (struct running){.outer = loop->running,
	                            .loop = loop,
	                            .task = step->task,
	                            .lane = lane_ref(step->lane),
	                            .begin_ns = now_ns,
	                            .queued_ns = NO_TIME,
	                            .stack = STACK_NONE};
	loop->running = running;
	PyThreadState *thread = PyThreadState_Get();
	if (loop->thread != thread || loop->native_id == 0)
		loop->native_id = (int)gettid();
	loop->thread = thread;
	loop->thread_key = PyThreadState_GetID(thread);
	if (loop->base_code == NULL && !loop->is_bare)
		learn_base_code(loop);
	loop->steps_seen++;
	if (loop->io.begin_ns != 0)
		loop_io_ended(loop, now_ns);
	loop_set_current(loop);
}

/* When it was due, where the loop is known to have been busy or idle before. */
static void
place_due(struct step *step, int64_t now_ns)
{
	struct loop *loop = step->loop;
	if (step->scheduled_turn >= loop->turn && step->source.kind != SOURCE_TIMER)
		loop->turn = step->scheduled_turn + 1;
	/* What was due before the last step ended was not slept for: a gap between the two (another
	 * thread with the GIL, another process) is no idle time. */
	bool is_timer = step->source.kind == SOURCE_TIMER && step->source.hops == 0;
	bool overdue = (is_timer ? step->source.due_ns : step->scheduled_ns) <= loop->last_end_ns;
	if (now_ns - loop->last_end_ns > IDLE_GAP_NS && !overdue) {
		loop->busy_since_ns = now_ns;
		loop->steps_since_idle = 0;
	}
	/* A timer is late only where the loop was busy; else the kernel's own delay belongs to
	 * the wait. */
	if (is_timer) {
		if (step->source.due_ns < loop->busy_since_ns)
			step->source.due_ns = loop->busy_since_ns;
		if (step->source.due_ns > now_ns)
			step->source.due_ns = now_ns;
	}
	/* Nor was it busy where only that timer's callback ran since: the turn to the task is
	 * the wait's. */
	if (step->source.kind == SOURCE_TIMER && step->source.hops == 1 &&
	    loop->steps_since_idle <= 1)
		step->source.due_ns = now_ns;
	if (loop->steps_since_idle < UINT32_MAX)
		loop->steps_since_idle++;
}

void
step_enter(struct step *step, int64_t now_ns)
{
	struct loop *loop = step->loop;
	struct running *running = &step->running;
	push_running(step, now_ns);
	place_due(step, now_ns);
	if (step->is_first)
		running->queued_ns = step->scheduled_ns;
	running->request = step->task == NULL      ? step->source.request
	                   : running->lane != NULL ? running->lane->request
	                                           : NULL;
	Py_XINCREF(running->request);
	if (step->task == NULL)
		source_copy(&running->source, &step->source);
	else if (running->request != NULL)
		lane_resume(running->lane, step, now_ns);
	if (running->request != NULL && running->request->deep != NULL && step->task != NULL)
		deep_enter(running->request, running->lane->number, running, now_ns);
	if (loop->active > 0 && running->outer == NULL)
		sampler_step_begin(loop->slot, now_ns);
}

/* A plain callback that took long, as a lane of its own. */
static void
note_callback(struct running *running, int64_t now_ns)
{
	struct request *request = running->request;
	const struct step *step =
	    (const struct step *)(const void *)((char *)running - offsetof(struct step, running));
	if (now_ns - running->begin_ns < engine.wait_threshold_ns ||
	    request->state == REQUEST_CLOSED || step->callback == NULL)
		return;
	PyCodeObject *code = walk_callable_code(step->callback);
	int32_t stack = code != NULL ? stack_of_code(code) : STACK_NONE;
	uint16_t number =
	    detail_lane(request, running->source.number, LANE_CALLBACK, stack, running->begin_ns);
	detail_add(request, number, SEG_RUN, stack, 0, now_ns);
	detail_lane_end(request, number);
}

static void
pop_running(struct running *running)
{
	running->loop->running = running->outer;
	source_clear(&running->source);
	Py_CLEAR(running->request);
	lane_unref(running->lane);
	PyMem_RawFree(running->samples);
}

void
step_leave(struct step *step)
{
	struct running *running = &step->running;
	struct loop *loop = step->loop;
	int64_t now_ns = step->ended_ns = clock_now_ns();
	if (running->outer == NULL)
		sampler_step_end(loop->slot, now_ns, loop->active > 0);
	if (deep_threads > 0)
		deep_leave(running, now_ns);
	if (running->request != NULL && running->task == NULL)
		note_callback(running, now_ns);
	if (running->lane != NULL && running->lane->request != NULL)
		lane_pause(running->lane, running, now_ns);
	if (now_ns - running->begin_ns >= LONG_STEP_MIN_NS)
		loop_note(loop, running, now_ns);
	loop->last_end_ns = now_ns;
	loop->running = running->outer;
	if (loop->closing != NULL)
		request_close_pending(loop);
	pop_running(running);
	source_clear(&step->source);
}

/* --- eager tasks ------------------------------------------------------------------------------ */

struct step *
step_enter_eager(struct loop *loop)
{
	struct step *step = step_new(loop, Py_None);
	int64_t now_ns = clock_now_ns();
	if (step == NULL) {
		engine_failed("eager task");
		return NULL;
	}
	source_capture(loop, &step->source, now_ns);
	push_running(step, now_ns);
	step->running.is_eager = true;
	step->running.queued_ns = now_ns;
	source_copy(&step->running.source, &step->source);
	step->running.request = step->source.request;
	Py_XINCREF(step->running.request);
	if (loop->active > 0 && step->running.outer == NULL)
		sampler_step_begin(loop->slot, now_ns);
	return step;
}

void
step_leave_eager(struct step *step)
{
	struct running *running = &step->running;
	if (running->task != NULL) {
		step_leave(step);
	} else { /* nothing has run as a step: the task waits for its own */
		if (running->outer == NULL)
			sampler_step_end(step->loop->slot, running->begin_ns,
			                 step->loop->active > 0);
		pop_running(running);
	}
	Py_DECREF(step);
}

/* A task's step without the way round by way of a vector of arguments, which it has not. */
static PyObject *
call_back(PyObject *callback, PyObject *const *args, size_t nargsf, PyObject *names)
{
	if (Py_IS_TYPE(callback, engine.step_type) && PyVectorcall_NARGS(nargsf) == 0 &&
	    names == NULL)
		return Py_TYPE(callback)->tp_call(callback, no_args, NULL);
	return app_call(callback, args, nargsf, names);
}

static PyObject *
step_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
	struct step *step = (struct step *)self;
	PyObject *callback = step->callback;
	if (step->is_running)
		return app_call(callback, args, nargsf, names);
	Py_INCREF(self); /* the callback may cancel its own handle */
	step->is_running = true;
	int64_t called_ns = clock_now_ns(), own_ns = 0;
	bool is_measured = guard_samples();
	step_enter(step, called_ns);
	if (is_measured)
		own_ns = clock_now_ns() - called_ns;
	PyObject *result = call_back(callback, args, nargsf, names);
	if (result != NULL) {
		step_leave(step);
	} else {
		PyObject *type, *value, *traceback;
		PyErr_Fetch(&type, &value, &traceback);
		step_leave(step);
		PyErr_Restore(type, value, traceback);
	}
	if (is_measured) {
		int64_t now_ns = clock_now_ns();
		guard_add(own_ns + now_ns - step->ended_ns, now_ns);
	}
	step->is_running = false;
	/* The app may keep the handle: that holds nothing of the request. */
	lane_unref(step->lane);
	step->lane = NULL;
	Py_DECREF(self);
	return result;
}

static int
step_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct step *step = (struct step *)self;
	Py_VISIT(step->callback);
	Py_VISIT(step->loop);
	Py_VISIT(step->source.request);
	return 0;
}

static void
step_dealloc(PyObject *self)
{
	struct step *step = (struct step *)self;
	PyObject_GC_UnTrack(self);
	lane_unref(step->lane);
	source_clear(&step->source);
	Py_CLEAR(step->loop);
	Py_CLEAR(step->callback);
	if (spare_count < SPARE_MAX)
		spare[spare_count++] = step;
	else
		PyObject_GC_Del(self);
}

/* To whoever looks, it is the callback: handles show the app's own function. */
static PyObject *
step_getattro(PyObject *self, PyObject *name)
{
	struct step *step = (struct step *)self;
	if (PyUnicode_CompareWithASCIIString(name, "__wrapped__") == 0) {
		Py_INCREF(step->callback);
		return step->callback;
	}
	return app_get(step->callback, name);
}

static PyObject *
step_repr(PyObject *self)
{
	return PyObject_Repr(((struct step *)self)->callback);
}

PyTypeObject step_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tailrace._engine.Step",
    .tp_basicsize = sizeof(struct step),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(struct step, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = step_dealloc,
    .tp_traverse = step_traverse,
    .tp_getattro = step_getattro,
    .tp_repr = step_repr,
};

bool
step_init(void)
{
	no_args = PyTuple_New(0);
	return no_args != NULL && PyType_Ready(&step_type) == 0;
}
