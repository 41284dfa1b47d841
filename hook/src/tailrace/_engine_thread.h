/* Jobs of requests in worker threads, and what they took. Included by _engine.h, whose types it
 * needs. Called with the GIL held. */
#ifndef TAILRACE_ENGINE_THREAD_H
#define TAILRACE_ENGINE_THREAD_H

struct job {
	PyObject_HEAD vectorcallfunc vectorcall;
	PyObject *func;
	struct request *request; /* strong */
	struct lane *lane;       /* strong */
	struct node *path;
	PyThreadState *thread;
	PyCodeObject *base_code; /* borrowed from the code table */
	struct sample_set *samples;
	int64_t queued_ns, begin_ns, begin_cpu_ns;
	int32_t stack;
	uint16_t number; /* in its request's detail, 0 = not there */
	uint8_t total;   /* jobs_add()'s */
	bool running, run_counted;
};

bool thread_init(void);
void thread_source(struct source *source, int64_t now_ns);
PyObject *thread_wrap(PyObject *func, bool submitted);

/* --- jobs: what they took, by function --------------------------------------------------------- */

/* CPU time of the calling thread. */
int64_t jobs_cpu_now_ns(void);
/* On the job's thread, when it has ended. Its function's number in the request, from 1 on; 0 where
 * there is none. */
uint8_t jobs_add(struct request *request, const struct job *job, int64_t now_ns);
/* What awaited a job of that function goes on, so long after the job had ended. */
void jobs_returned(struct request *request, uint8_t number, int64_t lag_ns);
/* Behind the request's profile into the ring: what ended since the last one. */
void jobs_emit(struct request *request);
void jobs_free(struct request *request);

/* Round each walk of another thread's frames. A frame object is made for each; before CPython 3.12
 * that may start a collection, whose finalizers may hand the GIL to that thread: what it leaves
 * meanwhile the object would be left pointing at (sys._current_frames() guards itself likewise). */
static inline int
frames_hold(void)
{
	return PyGC_Disable();
}

static inline void
frames_release(int held)
{
	if (held)
		PyGC_Enable();
}

#endif
