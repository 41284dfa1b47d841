/* How requests are timed where call_soon() does not tell: eager tasks, driven coroutines. */
#ifndef TAILRACE_ENGINE_DRIVE_H
#define TAILRACE_ENGINE_DRIVE_H

#include "_engine.h"

/* --- eager ------------------------------------------------------------------------------------- */

bool eager_init(void);
struct running *eager_resolve(struct running *running);
void eager_bind(struct running *running, PyObject *task);
bool eager_follow_factory(struct loop *loop, PyObject *target);

/* What runs on the loop now; NULL: nothing that passes through us. */
static inline struct running *
loop_running(const struct loop *loop)
{
	struct running *running = loop->running;
	if (running != NULL && running->is_eager && running->task == NULL)
		return eager_resolve(running);
	return running;
}

/* --- drive ------------------------------------------------------------------------------------- */

bool drive_init(void);

#endif
