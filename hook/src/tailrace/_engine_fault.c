/* Which call is to fail, in builds for tests. */
#include "_engine.h"

#ifdef TAILRACE_FAULTS
static int64_t fault_left; /* calls until the one that fails; 0: none */
static uint64_t fault_calls;

bool
fault_due(bool raises)
{
	fault_calls++;
	if (fault_left == 0 || --fault_left > 0)
		return false;
	if (raises)
		PyErr_NoMemory();
	return true;
}

static PyObject *
fault_at(PyObject *module, PyObject *arg)
{
	uint64_t calls = fault_calls;
	(void)module;
	fault_left = PyLong_AsLongLong(arg);
	fault_calls = 0;
	engine.disabled = false;
	return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(calls);
}
#endif

PyMethodDef fault_functions[] = {
#ifdef TAILRACE_FAULTS
    {"fault_at", fault_at, METH_O,
     "fault_at(n) -> int: the n-th fallible call from now fails (0: none) and the hook is on "
     "again. Returns how many there were since the last time."},
#endif
    {NULL, NULL, 0, NULL},
};
