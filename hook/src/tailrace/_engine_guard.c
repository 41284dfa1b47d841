/* What the engine itself costs, measured at one step in 64, and what it gives up where that is
 * too much: short waits' stacks first, then all stacks, then everything but totals. Comes back by
 * itself when things are calm. Each change is said. */
#include "_engine.h"

enum {
	SAMPLED_EACH = 64,      /* a power of two */
	SAMPLE_NS_MAX = 100000, /* longer, and the thread has lost its processor meanwhile */
	CALM_WINDOWS = 30,
	CALM_WINDOWS_MAX = 960,
	COARSE_FACTOR = 10,
};

static struct {
	uint32_t steps, high, calm, calm_wanted;
	int64_t window_ns, own_ns; /* since when, and the engine's time in it */
	/* Too much and little again, percent of the loop's time; so many windows of that long. */
	long long high_percent, low_percent, high_windows, length_ns;
} guard = {.calm_wanted = CALM_WINDOWS,
           .high_percent = 10,
           .low_percent = 2,
           .high_windows = 3,
           .length_ns = 1000000000};

void
guard_apply(enum stage stage)
{
	engine.stage = stage;
	engine.walk_min_ns = engine.wait_threshold_ns;
	if (stage == STAGE_COARSE)
		engine.walk_min_ns *= COARSE_FACTOR;
}

static void
change(enum stage stage, int64_t percent)
{
	guard.high = guard.calm = 0;
	guard_apply(stage);
	if (engine.say_stage == NULL)
		return;
	PyObject *said =
	    PyObject_CallFunction(engine.say_stage, "sL", guard_stage_name(), (long long)percent);
	if (said == NULL)
		engine_failed("guard");
	Py_XDECREF(said);
}

static void
judge(int64_t percent)
{
	guard.high = percent >= guard.high_percent ? guard.high + 1 : 0;
	guard.calm = percent < guard.low_percent ? guard.calm + 1 : 0;
	if (guard.high >= guard.high_windows && engine.stage < STAGE_TOTALS) {
		if (guard.calm_wanted < CALM_WINDOWS_MAX)
			guard.calm_wanted *= 2;
		change(engine.stage + 1, percent);
	} else if (guard.calm >= guard.calm_wanted && engine.stage > STAGE_FULL) {
		change(engine.stage - 1, percent);
	}
}

bool
guard_samples(void)
{
	return (++guard.steps & (SAMPLED_EACH - 1)) == 0;
}

void
guard_add(int64_t own_ns, int64_t now_ns)
{
	guard.own_ns += (own_ns < SAMPLE_NS_MAX ? own_ns : SAMPLE_NS_MAX) * SAMPLED_EACH;
	int64_t passed_ns = now_ns - guard.window_ns;
	if (passed_ns < guard.length_ns)
		return;
	int64_t percent = guard.own_ns * 100 / passed_ns;
	guard.own_ns = 0;
	guard.window_ns = now_ns;
	if (passed_ns < 2 * guard.length_ns) /* else nothing ran for a while */
		judge(percent);
	else
		judge(0);
}

const char *
guard_stage_name(void)
{
	static const char *const NAMES[] = {"full", "coarse", "no_stacks", "totals"};
	return NAMES[engine.stage];
}

static PyObject *
guard_limits(PyObject *module, PyObject *args)
{
	(void)module;
	if (!PyArg_ParseTuple(args, "LLLL", &guard.high_percent, &guard.low_percent,
	                      &guard.high_windows, &guard.length_ns))
		return NULL;
	guard.calm_wanted = CALM_WINDOWS;
	Py_RETURN_NONE;
}

PyMethodDef guard_functions[] = {
    {"guard_limits", guard_limits, METH_VARARGS,
     "guard_limits(high_percent, low_percent, windows, window_ns)"},
    {NULL, NULL, 0, NULL},
};
