/* Builds for tests only (TAILRACE_FAULTS): each call that may fail for want of memory is counted,
 * and one of them fails. Calls that stand for the app's own (app_call and the like) never do. */
#ifndef TAILRACE_ENGINE_FAULT_H
#define TAILRACE_ENGINE_FAULT_H

/* Is this the call that fails? Then MemoryError is set where the caller expects an exception. */
bool fault_due(bool raises);

#define FAULT_NULL(call) (fault_due(true) ? NULL : (call))
#define FAULT_QUIET(call) (fault_due(false) ? NULL : (call))
#define FAULT_MINUS(call) (fault_due(true) ? -1 : (call))

#undef Py_BuildValue
#undef PyCFunction_New
#undef PyObject_GC_New
#undef PyMem_New
#define PyObject_GC_New(type, typeobj) \
	((type *)(fault_due(true) ? NULL : _PyObject_GC_New(typeobj)))
#define PyMem_New(type, n) ((type *)(fault_due(false) ? NULL : PyMem_Malloc((n) * sizeof(type))))
#define PyObject_GetAttr(o, name) FAULT_NULL((PyObject_GetAttr)(o, name))
#define PyObject_GetAttrString(o, name) FAULT_NULL((PyObject_GetAttrString)(o, name))
#define PyObject_Vectorcall(f, args, n, names) FAULT_NULL((PyObject_Vectorcall)(f, args, n, names))
#define PyObject_CallNoArgs(f) FAULT_NULL((PyObject_CallNoArgs)(f))
#define PyObject_CallMethodNoArgs(o, name) \
	FAULT_NULL(PyObject_VectorcallMethod(name, &(o), 1, NULL))
#define PyUnicode_AsUTF8(text) FAULT_NULL((PyUnicode_AsUTF8)(text))
#define PyDict_GetItemWithError(d, key) FAULT_NULL((PyDict_GetItemWithError)(d, key))
#define PyTuple_New(n) FAULT_NULL((PyTuple_New)(n))
#define PyList_New(n) FAULT_NULL((PyList_New)(n))
#define PyList_Append(list, item) FAULT_MINUS((PyList_Append)(list, item))
#if PY_VERSION_HEX < 0x030d0000
#define Py_BuildValue(...) FAULT_NULL(_Py_BuildValue_SizeT(__VA_ARGS__))
#else
#define Py_BuildValue(...) FAULT_NULL((Py_BuildValue)(__VA_ARGS__))
#endif
#define PyTuple_Pack(...) FAULT_NULL((PyTuple_Pack)(__VA_ARGS__))
#define PyBytes_FromStringAndSize(from, n) FAULT_NULL((PyBytes_FromStringAndSize)(from, n))
#define PyObject_IsTrue(o) FAULT_MINUS((PyObject_IsTrue)(o))
#define PyCFunction_New(def, self) FAULT_NULL(PyCFunction_NewEx(def, self, NULL))
#define PyThreadState_GetDict() FAULT_QUIET((PyThreadState_GetDict)())
#define PyDict_SetItem(d, key, value) FAULT_MINUS((PyDict_SetItem)(d, key, value))
#define PyObject_SetAttr(o, name, v) FAULT_MINUS((PyObject_SetAttr)(o, name, v))
#define PyObject_SetAttrString(o, name, v) FAULT_MINUS((PyObject_SetAttrString)(o, name, v))
#define PyThreadState_GetFrame(thread) FAULT_NULL((PyThreadState_GetFrame)(thread))
#define PyFrame_GetBack(frame) FAULT_NULL((PyFrame_GetBack)(frame))
#define PyMem_RawCalloc(n, size) FAULT_QUIET((PyMem_RawCalloc)(n, size))
#define malloc(size) FAULT_QUIET((malloc)(size))
#define calloc(n, size) FAULT_QUIET((calloc)(n, size))
#define realloc(at, size) FAULT_QUIET((realloc)(at, size))

#endif
