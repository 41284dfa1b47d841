/* Which route a request took: asked of middleware.py once per route, context and method, and
 * remembered. */
#include "_engine_detail.h"

enum { ROUTES_MAX = 4096, ANSWERS_MAX = 1024 };

/* Route names made so far, by the identity of the string middleware.py returned; both are kept
 * for good. */
static struct {
	PyObject *name; /* strong */
	char *escaped;
} routes[ROUTES_MAX * 2];
static int route_count;

static PyObject *name_route_key, *name_fastapi, *name_context, *name_endpoint, *name_method,
    *name_root_path;
/* As frameworks.py puts them into the scope, and Litestar does. */
static PyObject *name_own_route, *name_own_endpoint, *name_template, *name_handler, *name_function;

static char *
escape(const char *text)
{
	size_t len = strlen(text);
	if (len > ROUTE_BYTES_MAX)
		return NULL;
	char *escaped = malloc(len * 6 + 1), *to = escaped;
	for (; escaped != NULL && *text != '\0'; text++) {
		if ((unsigned char)*text < 0x20)
			to += sprintf(to, "\\u%04x", (unsigned)*text);
		else if (*text == '"' || *text == '\\')
			to += sprintf(to, "\\%c", *text);
		else
			*to++ = *text;
	}
	if (escaped != NULL)
		*to = '\0';
	return escaped;
}

static const char *
route_text(PyObject *name)
{
	uint32_t i = (uint32_t)(((uintptr_t)name >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 40);
	for (i %= ROUTES_MAX * 2; routes[i].name != NULL; i = (i + 1) % (ROUTES_MAX * 2))
		if (routes[i].name == name)
			return routes[i].escaped;
	const char *text = PyUnicode_AsUTF8(name);
	if (text == NULL)
		engine_check("route"); /* lone surrogates: no name the gateway could be told */
	if (text == NULL || route_count == ROUTES_MAX)
		return NULL;
	Py_INCREF(name);
	routes[i].name = name;
	routes[i].escaped = escape(text);
	if (routes[i].escaped == NULL && strlen(text) <= ROUTE_BYTES_MAX)
		engine_failed("memory");
	route_count++;
	return routes[i].escaped;
}

/* Borrowed. */
static PyObject *
item(PyObject *dict, PyObject *key)
{
	return dict != NULL && PyDict_Check(dict) ? PyDict_GetItemWithError(dict, key) : NULL;
}

/* Borrowed, or NULL. */
static PyObject *
endpoint_of(PyObject *scope)
{
	PyObject *own = item(scope, name_own_endpoint);
	if (own == NULL)
		own = item(scope, name_endpoint);
	return own != NULL ? own : item(scope, name_handler);
}

/* What the route's name is made of: borrowed, or NULL. */
static PyObject *
route_of(PyObject *scope)
{
	PyObject *route = item(scope, name_own_route);
	if (route == NULL)
		route = item(scope, name_route_key);
	return route != NULL ? route : item(scope, name_template);
}

/* The stack of the endpoint's code where that is the app's own, else STACK_NONE. */
static int32_t
endpoint_stack(struct request *request)
{
	PyObject *endpoint = endpoint_of(request->scope);
	PyObject *function = NULL;
	if (endpoint != NULL && endpoint == item(request->scope, name_handler)) {
		function = PyObject_GetAttr(endpoint, name_function);
		engine_check("route");
		endpoint = function;
	}
	PyCodeObject *code = endpoint != NULL ? walk_callable_code(endpoint) : NULL;
	const struct code_info *info = code != NULL ? code_intern(code) : NULL;
	Py_XDECREF(function); /* the handler keeps it */
	return info != NULL && code_in_app(info) ? stack_of_code(code) : STACK_NONE;
}

static void
learn(struct request *request, const char *name, int32_t first_stack)
{
	if (name != NULL)
		request->who->route = name;
	if (first_stack != STACK_NONE)
		request->who->first_stack = first_stack;
}

static bool
ask(struct request *request, const char **ret_name, int32_t *ret_stack)
{
	PyObject *const args[] = {request->scope, request->root_path};
	void *muted = deep_mute();
	PyObject *name = PyObject_Vectorcall(engine.name_route, args, 2, NULL);
	deep_unmute(muted);
	*ret_name = name != NULL && PyUnicode_Check(name) ? route_text(name) : NULL;
	*ret_stack =
	    name != NULL && PyDict_Check(request->scope) ? endpoint_stack(request) : STACK_NONE;
	Py_XDECREF(name);
	if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))
		return false;
	if (PyErr_Occurred())
		engine_failed("route");
	return true;
}

/* --- what was answered before ---------------------------------------------------------------- */

/* All that the name of a route outside any mount is made of, and the answer. Objects are strong
 * and told apart by identity, the method by its text. */
static struct answer {
	PyObject *route, *context, *endpoint, *method;
	const char *name;
	int32_t first_stack;
} answers[ANSWERS_MAX];

static bool
same_text(PyObject *a, PyObject *b)
{
	if (a == b)
		return true;
	return a != NULL && b != NULL && PyUnicode_CheckExact(a) && PyUnicode_CheckExact(b) &&
	       PyUnicode_IS_COMPACT_ASCII(a) && PyUnicode_IS_COMPACT_ASCII(b) &&
	       PyUnicode_GET_LENGTH(a) == PyUnicode_GET_LENGTH(b) &&
	       memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)PyUnicode_GET_LENGTH(a)) == 0;
}

/* What would be asked about, in *ret (borrowed). False where the answer depends on more: no
 * route, or a mount, whose part of the name is looked for in the path. */
static bool
question(const struct request *request, struct answer *ret)
{
	PyObject *scope = request->scope;
	PyObject *mounted = item(scope, name_root_path), *fastapi = item(scope, name_fastapi);
	if (mounted == NULL)
		mounted = Py_None;
	*ret = (struct answer){.route = route_of(scope),
	                       .context = item(fastapi, name_context),
	                       .endpoint = endpoint_of(scope),
	                       .method = item(scope, name_method)};
	return !PyErr_Occurred() && ret->route != NULL && ret->method != NULL &&
	       (fastapi == NULL || PyDict_Check(fastapi)) && same_text(mounted, request->root_path);
}

static struct answer *
answer_at(const struct answer *asked)
{
	uint64_t mixed = ((uintptr_t)asked->route >> 4) * UINT64_C(0x9e3779b97f4a7c15) ^
	                 ((uintptr_t)asked->context >> 4) * UINT64_C(0xc2b2ae3d27d4eb4f);
	return &answers[mixed >> 32 & (ANSWERS_MAX - 1)];
}

static void
remember(struct answer *at, const struct answer *asked)
{
	struct answer old = *at;
	*at = *asked;
	Py_INCREF(at->route);
	Py_XINCREF(at->context);
	Py_XINCREF(at->endpoint);
	Py_INCREF(at->method);
	Py_XDECREF(old.route);
	Py_XDECREF(old.context);
	Py_XDECREF(old.endpoint);
	Py_XDECREF(old.method);
}

bool
route_learn(struct request *request)
{
	struct answer asked;
	if (request->scope == NULL || engine.name_route == NULL)
		return true;
	bool plain = question(request, &asked);
	engine_check("route");
	struct answer *at = answer_at(&asked);
	if (plain && at->route == asked.route && at->context == asked.context &&
	    at->endpoint == asked.endpoint && same_text(at->method, asked.method)) {
		learn(request, at->name, at->first_stack);
		return true;
	}
	if (!ask(request, &asked.name, &asked.first_stack))
		return false;
	learn(request, asked.name, asked.first_stack);
	if (plain && asked.name != NULL)
		remember(at, &asked);
	return true;
}

void
route_forget(void)
{
	for (int i = 0; i < ANSWERS_MAX; i++) {
		struct answer old = answers[i];
		answers[i] = (struct answer){0};
		Py_XDECREF(old.route);
		Py_XDECREF(old.context);
		Py_XDECREF(old.endpoint);
		Py_XDECREF(old.method);
	}
}

bool
route_init(void)
{
	name_route_key = PyUnicode_InternFromString("route");
	name_fastapi = PyUnicode_InternFromString("fastapi");
	name_context = PyUnicode_InternFromString("effective_route_context");
	name_endpoint = PyUnicode_InternFromString("endpoint");
	name_method = PyUnicode_InternFromString("method");
	name_root_path = PyUnicode_InternFromString("root_path");
	name_own_route = PyUnicode_InternFromString("tailrace.route");
	name_own_endpoint = PyUnicode_InternFromString("tailrace.endpoint");
	name_template = PyUnicode_InternFromString("path_template");
	name_handler = PyUnicode_InternFromString("route_handler");
	name_function = PyUnicode_InternFromString("fn");
	return name_root_path != NULL && name_function != NULL;
}
