/* The module tailrace._engine: its settings, what the sender calls, and what happens after an
 * error in here. */
#include "_engine_detail.h"

struct engine engine = {.wait_threshold_ns = 100000,
                        .stall_threshold_ns = 5 * NS_PER_MS,
                        .part_interval_ns = 10000 * NS_PER_MS,
                        .walk_min_ns = 100000,
                        .name = "steps",
                        .loop_name = "asyncio"};

/* An error of ours, not of the app: from now on requests pass as if there were no hook. Said
 * once. */
void
engine_failed(const char *where)
{
	PyObject *type, *value, *traceback;
	PyErr_Fetch(&type, &value, &traceback);
	bool first = !engine.disabled;
	engine.disabled = true;
	if (first && engine.report != NULL) {
		PyObject *said = PyObject_CallFunction(engine.report, "sO", where,
		                                       value != NULL  ? value
		                                       : type != NULL ? type
		                                                      : Py_None);
		Py_XDECREF(said);
		PyErr_Clear();
	}
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
}

void
engine_check(const char *where)
{
	if (PyErr_Occurred() == NULL)
		return;
	if (PyErr_ExceptionMatches(PyExc_MemoryError) || PyErr_ExceptionMatches(PyExc_SystemError))
		engine_failed(where);
	else
		PyErr_Clear();
}

static PyObject *
configure(PyObject *module, PyObject *args, PyObject *named)
{
	static char *names[] = {"in_app",
	                        "library_prefixes",
	                        "wait_threshold_ns",
	                        "stall_threshold_ns",
	                        "part_interval_ns",
	                        NULL};
	PyObject *in_app = NULL, *prefixes = NULL;
	long long wait_ns = engine.wait_threshold_ns, stall_ns = engine.stall_threshold_ns;
	long long part_ns = engine.part_interval_ns;
	(void)module;
	if (!PyArg_ParseTupleAndKeywords(args, named, "|$OOLLL", names, &in_app, &prefixes,
	                                 &wait_ns, &stall_ns, &part_ns))
		return NULL;
	if (in_app == NULL || prefixes == NULL) {
		PyErr_SetString(PyExc_TypeError, "in_app and library_prefixes are needed");
		return NULL;
	}
	if (!stack_configure(in_app, prefixes))
		return NULL;
	engine.wait_threshold_ns = wait_ns;
	engine.stall_threshold_ns = stall_ns;
	engine.part_interval_ns = part_ns;
	guard_apply(engine.stage);
	Py_RETURN_NONE;
}

static PyObject *
bind(PyObject *module, PyObject *args)
{
	PyObject *send_last, *name_route, *report, *allow_deep = NULL;
	(void)module;
	if (!PyArg_ParseTuple(args, "OOO|O", &send_last, &name_route, &report, &allow_deep))
		return NULL;
	Py_XINCREF(allow_deep);
	Py_XSETREF(engine.allow_deep, allow_deep);
	Py_INCREF(send_last);
	Py_INCREF(name_route);
	Py_INCREF(report);
	Py_XSETREF(engine.send_last, send_last);
	Py_XSETREF(engine.name_route, name_route);
	route_forget();
	Py_XSETREF(engine.report, report);
	Py_RETURN_NONE;
}

/* thresholds(wait_ns, stall_ns): as the gateway's configuration says. */
static PyObject *
thresholds(PyObject *module, PyObject *args)
{
	long long wait_ns, stall_ns;
	(void)module;
	if (!PyArg_ParseTuple(args, "LL", &wait_ns, &stall_ns))
		return NULL;
	if (wait_ns > 0)
		engine.wait_threshold_ns = wait_ns;
	if (stall_ns > 0)
		engine.stall_threshold_ns = stall_ns;
	guard_apply(engine.stage);
	Py_RETURN_NONE;
}

static PyObject *
bind_guard(PyObject *module, PyObject *say_stage)
{
	(void)module;
	Py_INCREF(say_stage);
	Py_XSETREF(engine.say_stage, say_stage);
	Py_RETURN_NONE;
}

static bool is_taking; /* the GIL is given away in between: only one may */

static PyObject *
take_now(size_t max)
{
	/* Rows wait until the stacks they name have gone ahead of them or go with them: those that
	 * come while the stacks are taken may name others. */
	int64_t since_ns = clock_now_ns();
	size_t due = max > 0 ? ring_due() : 0;
	PyObject *stacks = stack_take(false, &since_ns);
	if (stacks == NULL)
		return NULL;
	bool all = PyList_GET_SIZE(stacks) < STACKS_TAKE_MAX;
	PyObject *rows = ring_take(all ? due : 0, all ? max : 0);
	if (rows == NULL) {
		Py_DECREF(stacks);
		return NULL;
	}
	PyObject *result =
	    PyTuple_Pack(3, PyTuple_GET_ITEM(rows, 0), PyTuple_GET_ITEM(rows, 1), stacks);
	Py_DECREF(rows);
	Py_DECREF(stacks);
	return result;
}

static PyObject *
take(PyObject *module, PyObject *arg)
{
	Py_ssize_t max = PyLong_AsSsize_t(arg);
	(void)module;
	if (max == -1 && PyErr_Occurred())
		return NULL;
	if (is_taking)
		return Py_BuildValue("(yy[])", "", "");
	is_taking = true;
	PyObject *result = take_now(max > 0 ? (size_t)max : 0);
	is_taking = false;
	return result;
}

static PyObject *
take_beside(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	PyObject *rows = PyTuple_New(BESIDE_COUNT);
	for (int i = 0; rows != NULL && i < BESIDE_COUNT; i++) {
		PyObject *taken = ring_take_beside((enum beside)i);
		if (taken == NULL)
			Py_CLEAR(rows);
		else
			PyTuple_SET_ITEM(rows, i, taken);
	}
	return rows;
}

static PyObject *
longest_held_ns(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyLong_FromLongLong(breathe_longest_ns());
}

static PyObject *
all_stacks(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	int64_t since_ns = clock_now_ns();
	return stack_take(true, &since_ns);
}

static PyObject *
frame_in_app(PyObject *module, PyObject *code)
{
	(void)module;
	if (!PyCode_Check(code)) {
		PyErr_SetString(PyExc_TypeError, "a code object is needed");
		return NULL;
	}
	return PyBool_FromLong(code_frame_in_app((PyCodeObject *)code));
}

static PyObject *
dropped(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyLong_FromUnsignedLongLong(engine.dropped);
}

static PyObject *
tails_dropped(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyLong_FromUnsignedLongLong(engine.tails_dropped);
}

static PyObject *
engine_name(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyUnicode_FromString(engine.name);
}

static PyObject *
loop_name(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyUnicode_FromString(engine.loop_name);
}

static PyObject *
use(PyObject *module, PyObject *args)
{
	static const char *const NAMES[] = {"steps", "drive", "totals"};
	const char *loop, *name;
	(void)module;
	if (!PyArg_ParseTuple(args, "ss", &loop, &name))
		return NULL;
	snprintf(engine.loop_name, sizeof(engine.loop_name), "%s", loop);
	for (int i = 0; i < 3; i++)
		if (strcmp(NAMES[i], name) == 0)
			engine.name = NAMES[i];
	Py_RETURN_NONE;
}

static PyObject *
limits(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return Py_BuildValue("{s:s,s:K,s:K,s:K,s:K,s:K}", "stage", guard_stage_name(), "lanes",
	                     engine.lanes_over, "segments", engine.segments_over, "rows",
	                     engine.rows_over, "codes", engine.codes_over, "stacks",
	                     engine.stacks_over);
}

static PyObject *
set_stage(PyObject *module, PyObject *arg)
{
	long stage = PyLong_AsLong(arg);
	(void)module;
	if (stage == -1 && PyErr_Occurred())
		return NULL;
	if (stage < STAGE_FULL || stage > STAGE_TOTALS) {
		PyErr_SetString(PyExc_ValueError, "0 to 3");
		return NULL;
	}
	guard_apply((enum stage)stage);
	Py_RETURN_NONE;
}

static PyObject *
after_fork(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	engine.generation++;
	is_taking = false;
	engine.dropped = engine.tails_dropped = 0;
	ring_after_fork();
	stack_after_fork();
	detail_after_fork();
	record_after_fork();
	deep_after_fork();
	loop_after_fork();
	sampler_after_fork();
	Py_RETURN_NONE;
}

static PyObject *
stop(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	sampler_stop();
	Py_RETURN_NONE;
}

static PyObject *
is_disabled(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyBool_FromLong(engine.disabled);
}

static PyMethodDef FUNCTIONS[] = {
    {"configure", (PyCFunction)(void (*)(void))configure, METH_VARARGS | METH_KEYWORDS,
     "configure(*, in_app, library_prefixes, wait_threshold_ns=100000, "
     "stall_threshold_ns=5000000, part_interval_ns=10**10)"},
    {"bind", bind, METH_VARARGS,
     "bind(send_last, name_route, report, allow_deep=None): the functions the engine calls."},
    {"thresholds", thresholds, METH_VARARGS,
     "thresholds(wait_ns, stall_ns): from which waits and stalls on there are stacks."},
    {"bind_guard", bind_guard, METH_O, "bind_guard(say_stage): what hears of the guard's stages."},
    {"take_beside", take_beside, METH_NOARGS,
     "take_beside() -> rows that go beside the profiles taken so far: (what thread jobs took, what "
     "their results waited, who held the loop before the ASGI calls)"},
    {"take", take, METH_O, "take(max_bytes) -> (profile rows, tail rows, stacks not taken before)"},
    {"longest_held_ns", longest_held_ns, METH_NOARGS,
     "longest_held_ns() -> int: how long take() and the like kept the GIL before they gave it "
     "away, at most, since this was asked last."},
    {"stacks", all_stacks, METH_NOARGS, "stacks() -> list: all stacks of this process."},
    {"frame_in_app", frame_in_app, METH_O, "frame_in_app(code) -> bool: the app's own code?"},
    {"dropped", dropped, METH_NOARGS, "dropped() -> int: profiles lost to the engine's limits."},
    {"tails_dropped", tails_dropped, METH_NOARGS, "tails_dropped() -> int: tail rows lost."},
    {"engine_name", engine_name, METH_NOARGS, "engine_name() -> str: steps, drive or totals."},
    {"limits", limits, METH_NOARGS,
     "limits() -> dict: the stage of the overhead guard, and what maxima cut so far."},
    {"set_stage", set_stage, METH_O, "set_stage(n): the guard's stage, 0 (full) to 3 (totals)."},
    {"loop_name", loop_name, METH_NOARGS, "loop_name() -> str"},
    {"use", use, METH_VARARGS, "use(loop_name, engine): what the self-test found."},
    {"after_fork", after_fork, METH_NOARGS,
     "after_fork(): in the child, forget what is the parent's."},
    {"stop", stop, METH_NOARGS, "stop(): the interpreter ends, nothing is sampled any more."},
    {"is_disabled", is_disabled, METH_NOARGS,
     "is_disabled() -> bool: an error of ours stopped it."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject *
import_type(const char *module, const char *name)
{
	PyObject *found = PyImport_ImportModule(module);
	PyObject *type = found != NULL ? PyObject_GetAttrString(found, name) : NULL;
	Py_XDECREF(found);
	if (type != NULL && !PyType_Check(type))
		Py_CLEAR(type);
	return (PyTypeObject *)type;
}

static bool
add_object(PyObject *module, const char *name, PyObject *object)
{
	Py_INCREF(object);
	return PyModule_AddObject(module, name, object) == 0;
}

static int
module_exec(PyObject *module)
{
	static bool done;
	if (done) {
		PyErr_SetString(PyExc_ImportError, "tailrace._engine is loaded once per process");
		return -1;
	}
	engine.task_type = import_type("_asyncio", "Task");
	engine.py_task_type = import_type("asyncio.tasks", "_PyTask");
	engine.thread_pool_type = import_type("concurrent.futures", "ThreadPoolExecutor");
	if (engine.task_type == NULL || engine.thread_pool_type == NULL)
		return -1;
	if (engine.py_task_type == NULL)
		PyErr_Clear();
	if (!stack_init() || !walk_init() || !step_init() || !loop_init() || !request_init() ||
	    !route_init() || !last_init() || !begin_init() || !thread_init() || !eager_init() ||
	    !drive_init() || !detail_init() || !deep_init() || !span_init())
		return -1;
	if (PyModule_AddFunctions(module, loop_functions) < 0 ||
	    PyModule_AddFunctions(module, begin_functions) < 0 ||
	    PyModule_AddFunctions(module, thread_functions) < 0 ||
	    PyModule_AddFunctions(module, drive_functions) < 0 ||
	    PyModule_AddFunctions(module, fault_functions) < 0 ||
	    PyModule_AddFunctions(module, guard_functions) < 0 ||
	    PyModule_AddFunctions(module, detail_functions) < 0 ||
	    PyModule_AddFunctions(module, record_functions) < 0 ||
	    PyModule_AddFunctions(module, deep_functions) < 0 ||
	    PyModule_AddFunctions(module, span_functions) < 0 ||
	    !add_object(module, "Span", (PyObject *)&span_type) ||
	    !add_object(module, "Request", (PyObject *)&request_type))
		return -1;
	done = true;
	return 0;
}

static PyModuleDef_Slot SLOTS[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tailrace._engine",
    .m_doc =
        "Times every step of an asyncio or uvloop event loop for the requests that ask for it.",
    .m_methods = FUNCTIONS,
    .m_slots = SLOTS,
};

PyMODINIT_FUNC
PyInit__engine(void)
{
	return PyModuleDef_Init(&MODULE);
}
