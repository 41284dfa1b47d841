/* Eager tasks (a task factory of CPython 3.12 and later): their first step runs inside
 * create_task() and passes no call_soon. While a task factory is set, create_task() is called
 * through here: what runs inside it as another task is a step of that task, inside the step of its
 * creator. */
#include "_engine.h"

static PyObject *current_task; /* asyncio.current_task */

/* The running step, or the one round it while the task that is being made has not begun. */
struct running *
eager_resolve(struct running *running)
{
	struct running *outer = running->outer;
	PyObject *task = PyObject_CallNoArgs(current_task);
	if (task == NULL)
		engine_check("eager task"); /* no loop runs: a task is made from outside */
	bool has_begun = task != NULL && task != Py_None && (outer == NULL || task != outer->task);
	if (has_begun)
		eager_bind(running, task);
	Py_XDECREF(task); /* who makes it keeps it */
	return has_begun ? running : outer;
}

/* The task has begun in this step. */
void
eager_bind(struct running *running, PyObject *task)
{
	struct request *owner = running->source.request;
	running->task = task;
	if (owner == NULL || owner->state == REQUEST_CLOSED || owner->loop != running->loop) {
		Py_CLEAR(running->request);
		return;
	}
	struct lane *lane = lane_new(owner, running->loop, task, path_ref(running->source.path));
	if (lane == NULL)
		return;
	lane->started = lane->running = true;
	if (lane->first_stack == STACK_LANE) {
		PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
		lane->made_at = walk_makers(frame);
		Py_XDECREF(frame);
	}
	lane_unref(running->lane);
	running->lane = lane;
}

/* Its creator waited for the step as for a function it called: its path leads through it. */
static void
lead_creator_through(struct running *running, int64_t now_ns)
{
	struct running *outer = running->outer;
	struct lane *lane = running->lane;
	if (lane == NULL || lane->request == NULL || current_request(outer) != lane->request)
		return;
	path_set(&outer->lane->path, lane_path_at(lane, now_ns));
	outer->lane->run_counted = true;
}

static PyObject *
create_task(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	struct loop *loop = (struct loop *)self;
	struct step *step = NULL;
	if (!engine.disabled && loop_on_own_thread(loop))
		step = step_enter_eager(loop);
	PyObject *task = app_call(loop->create_task, args, (size_t)count, names);
	if (step == NULL)
		return task;
	PyObject *type, *value, *traceback;
	struct running *running = &step->running;
	PyErr_Fetch(&type, &value, &traceback);
	/* One that has ended in it unseen was its creator's function; CPython 3.12.1 must not be
	 * asked for the coroutine it has let go. */
	bool ran = task != NULL && !running->has_queued && !walk_task_done(task);
	if (ran && running->task == NULL)
		eager_bind(running, task);
	if (running->task != NULL)
		lead_creator_through(running, clock_now_ns());
	step_leave_eager(step);
	PyErr_Restore(type, value, traceback);
	return task;
}

static PyMethodDef CREATE_TASK = {"create_task", (PyCFunction)(void (*)(void))create_task,
                                  METH_FASTCALL | METH_KEYWORDS, NULL};

/* Puts create_task() on the loop while it has a task factory, takes it off else. False with an
 * exception. */
bool
eager_follow_factory(struct loop *loop, PyObject *target)
{
	PyObject *factory = PyObject_CallMethod(target, "get_task_factory", NULL);
	bool wanted = factory != NULL && factory != Py_None;
	Py_XDECREF(factory);
	if (factory == NULL)
		return false;
	if (wanted == (loop->create_task != NULL))
		return true;
	if (!wanted) {
		Py_CLEAR(loop->create_task);
		return PyObject_DelAttrString(target, "create_task") == 0;
	}
	loop->create_task = PyObject_GetAttrString(target, "create_task");
	PyObject *method =
	    loop->create_task != NULL ? PyCFunction_New(&CREATE_TASK, (PyObject *)loop) : NULL;
	bool good = method != NULL && PyObject_SetAttrString(target, "create_task", method) == 0;
	Py_XDECREF(method);
	return good;
}

bool
eager_init(void)
{
	PyObject *tasks = PyImport_ImportModule("asyncio.tasks");
	current_task = tasks != NULL ? PyObject_GetAttrString(tasks, "current_task") : NULL;
	Py_XDECREF(tasks);
	return current_task != NULL;
}
