/* Calls that stand for the app's own: they raise what they raise, and injected faults
 * (_engine_fault.h) leave them alone. */
#ifndef TAILRACE_ENGINE_APP_H
#define TAILRACE_ENGINE_APP_H

#include <Python.h>

static inline PyObject *
app_call(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *names)
{
	return PyObject_Vectorcall(callable, args, nargsf, names);
}

static inline PyObject *
app_call_tuple(PyObject *callable, PyObject *args)
{
	return PyObject_Call(callable, args, NULL);
}

static inline PyObject *
app_get(PyObject *object, PyObject *name)
{
	return PyObject_GetAttr(object, name);
}

static inline PyObject *
app_attribute(PyObject *object, const char *name)
{
	return PyObject_GetAttrString(object, name);
}

#endif
