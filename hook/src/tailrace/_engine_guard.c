/* What the engine itself costs, measured at one step in 64, and what it gives up where that is
 * too much: short waits' stacks first, then all stacks, then everything but totals. Comes back by
 * itself when things are calm. Each change is said. */
#include "_engine.h"

enum {
	SAMPLED_EACH = 64, /* a power of two */
	WINDOW_NS = 1000000000,
	SAMPLE_NS_MAX = 100000, /* longer, and the thread has lost its processor meanwhile */
	HIGH_PERCENT = 10,
	LOW_PERCENT = 2,
	HIGH_WINDOWS = 3,
	CALM_WINDOWS = 30,
	CALM_WINDOWS_MAX = 960,
	COARSE_FACTOR = 10,
};

static struct {
	uint32_t steps, high, calm, calm_wanted;
	int64_t window_ns, own_ns; /* since when, and the engine's time in it */
} guard = {.calm_wanted = CALM_WINDOWS};

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
	guard.high = percent >= HIGH_PERCENT ? guard.high + 1 : 0;
	guard.calm = percent < LOW_PERCENT ? guard.calm + 1 : 0;
	if (guard.high >= HIGH_WINDOWS && engine.stage < STAGE_TOTALS) {
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
	if (passed_ns < WINDOW_NS)
		return;
	int64_t percent = guard.own_ns * 100 / passed_ns;
	guard.own_ns = 0;
	guard.window_ns = now_ns;
	if (passed_ns < 2 * WINDOW_NS) /* else nothing ran for a while */
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
