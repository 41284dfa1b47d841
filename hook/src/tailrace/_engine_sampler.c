/* The watchdog thread: sleeps until the earliest time at which a step or a thread's job can have
 * run for long, looks, without the GIL, whether one has; only then it takes the GIL and reads that
 * thread's frames. Sleeps for good while no request comes. */
#include "_engine.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { GAP_MIN_NS = 4000000, IDLE_NS = 1000000000, LOOKS_PER_AGE = 10 };
#define REST_NS NS_PER_MS /* after a look: what was due and could not be sampled is no spin */

/* When the step or job is to be looked at next; 0: none runs. Negative: no step runs, the loop is
 * to be looked at then. Written under the GIL. */
static _Atomic int64_t step_look_ns[LOOPS_MAX];
static _Atomic int64_t job_look_ns[JOBS_MAX];
static struct job *jobs[JOBS_MAX];        /* borrowed; under the GIL */
static _Atomic int loops_high, jobs_high; /* slots ever used */
static int job_next;
static _Atomic uint32_t activity;
static _Atomic bool asleep, stopping;
static bool started;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

void
sampler_step_begin(int slot, int64_t now_ns)
{
	atomic_store_explicit(&step_look_ns[slot], now_ns + STEP_SAMPLE_MIN_NS,
	                      memory_order_relaxed);
	if (slot >= atomic_load_explicit(&loops_high, memory_order_relaxed))
		atomic_store_explicit(&loops_high, slot + 1, memory_order_relaxed);
}

void
sampler_step_end(int slot, int64_t now_ns, bool is_active)
{
	atomic_store_explicit(&step_look_ns[slot], is_active ? -(now_ns + IDLE_LOOK_NS) : 0,
	                      memory_order_relaxed);
}

int
sampler_job_begin(struct job *job, int64_t now_ns)
{
	for (int i = 0; i < JOBS_MAX; i++) {
		int slot = (job_next + i) % JOBS_MAX;
		if (jobs[slot] != NULL)
			continue;
		/* The lowest free slot next time keeps the scan short. */
		job_next = 0;
		jobs[slot] = job;
		atomic_store(&job_look_ns[slot], now_ns + JOB_SAMPLE_MIN_NS);
		if (slot >= atomic_load(&jobs_high))
			atomic_store(&jobs_high, slot + 1);
		return slot;
	}
	return -1;
}

void
sampler_job_end(int slot)
{
	if (slot < 0)
		return;
	atomic_store(&job_look_ns[slot], 0);
	jobs[slot] = NULL;
}

/* Ever rarer: what blocks for long costs less and less. About 25 looks in the first 200 ms, 60
 * more up to a minute. */
static int64_t
next_look(int64_t begin_ns, int64_t now_ns)
{
	int64_t gap_ns = (now_ns - begin_ns) / LOOKS_PER_AGE;
	return now_ns + (gap_ns > GAP_MIN_NS ? gap_ns : GAP_MIN_NS);
}

static bool
is_due(int64_t look_ns, int64_t now_ns)
{
	return look_ns != 0 && now_ns >= (look_ns < 0 ? -look_ns : look_ns);
}

/* The next time at which something can be due: of what runs now its own, and what begins later is
 * not looked at before it is STEP_SAMPLE_MIN_NS old. */
static int64_t
next_due_ns(int64_t now_ns)
{
	int64_t next_ns = now_ns + STEP_SAMPLE_MIN_NS;
	int loops = atomic_load(&loops_high), count = atomic_load(&jobs_high);
	for (int i = 0; i < loops; i++) {
		int64_t look_ns = llabs(atomic_load(&step_look_ns[i]));
		if (look_ns != 0 && look_ns < next_ns)
			next_ns = look_ns;
	}
	for (int i = 0; i < count; i++) {
		int64_t look_ns = atomic_load(&job_look_ns[i]);
		if (look_ns != 0 && look_ns < next_ns)
			next_ns = look_ns;
	}
	return next_ns;
}

/* A sample speaks for the time halfway to its neighbours: as the gaps grow, whoever comes next
 * would else be given what was the one's before. */
static void
add_sample(struct sample_set **set, int32_t stack, int64_t begin_ns, int64_t now_ns)
{
	if (*set == NULL) {
		*set = PyMem_RawCalloc(1, sizeof(**set));
		if (*set == NULL)
			return;
	}
	if ((*set)->last_ns < begin_ns)
		(*set)->last_ns = begin_ns;
	int64_t gap_ns = now_ns - (*set)->last_ns;
	int64_t before_ns = (*set)->len > 0 ? gap_ns / 2 : 0;
	(*set)->items[(*set)->last].ns += before_ns;
	uint32_t i = 0;
	while (i < (*set)->len && (*set)->items[i].stack != stack)
		i++;
	if (i == SAMPLE_STACKS_MAX)
		i--; /* the last one stands for all others */
	if (i == (*set)->len)
		(*set)->items[(*set)->len++] = (struct sample){.stack = stack};
	(*set)->items[i].count++;
	(*set)->items[i].ns += gap_ns - before_ns;
	(*set)->last = i;
	(*set)->last_ns = now_ns;
}

int32_t
sample_top(const struct sample_set *samples)
{
	const struct sample *top = NULL;
	for (uint32_t i = 0; samples != NULL && i < samples->len; i++)
		if (top == NULL || samples->items[i].ns > top->ns)
			top = &samples->items[i];
	return top != NULL ? top->stack : STACK_NONE;
}

/* How long the loop's thread has computed or waited for a processor: on a full machine a busy
 * thread gets few of them. False where it is not known. */
static bool
thread_busy_ns(const struct loop *loop, int64_t *ret_ns)
{
	char path[64], text[64];
	unsigned long long ran_ns, delayed_ns;
	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", loop->native_id);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = file >= 0 ? read(file, text, sizeof(text) - 1) : -1;
	if (file >= 0)
		close(file);
	if (len > 0) {
		text[len] = '\0';
		if (sscanf(text, "%llu %llu", &ran_ns, &delayed_ns) == 2 && ran_ns > 0) {
			*ret_ns = (int64_t)(ran_ns + delayed_ns);
			return true;
		}
	}
	clockid_t clock;
	struct timespec ts;
	if (pthread_getcpuclockid((pthread_t)loop->thread->thread_id, &clock) != 0 ||
	    clock_gettime(clock, &ts) != 0)
		return false;
	*ret_ns = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
	return true;
}

/* Busy or blocked: between two looks. */
static void
judge_hold(struct hold *hold, const struct loop *loop, int64_t now_ns)
{
	int64_t busy_ns;
	if (!thread_busy_ns(loop, &busy_ns))
		return;
	if (hold->at_ns == 0) {
		hold->at_ns = now_ns;
		hold->cpu_ns = busy_ns;
	} else if (now_ns - hold->at_ns >= NS_PER_MS) {
		bool busy = (busy_ns - hold->cpu_ns) * 2 > now_ns - hold->at_ns;
		hold->state = busy ? HOLD_BUSY : HOLD_BLOCKED;
	}
}

static void
sample_step(struct loop *loop)
{
	struct running *running = loop->running;
	int64_t now_ns = clock_now_ns();
	if (running == NULL)
		return;
	if (now_ns - running->begin_ns < STEP_SAMPLE_MIN_NS) { /* one inside the one that was due */
		atomic_store(&step_look_ns[loop->slot], running->begin_ns + STEP_SAMPLE_MIN_NS);
		return;
	}
	int64_t begin_ns = running->begin_ns;
	if (running->lane != NULL && running->lane->path != NULL &&
	    running->lane->path->end_ns > begin_ns)
		begin_ns = running->lane->path->end_ns;
	PyCodeObject *outermost = running->task != NULL ? walk_task_code(running->task) : NULL;
	PyFrameObject *frame = PyThreadState_GetFrame(loop->thread);
	int32_t stack = walk_frames(frame, loop->base_code, outermost);
	Py_XDECREF(frame);
	if (loop->running != running)
		return;
	atomic_store(&step_look_ns[loop->slot], next_look(running->begin_ns, now_ns));
	add_sample(&running->samples, stack, begin_ns, now_ns);
	judge_hold(&running->hold, loop, now_ns);
}

/* Its thread has not ended since: a thread state's address may be another's by now. */
static bool
thread_lives(const struct loop *loop)
{
	PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
	while (thread != NULL && thread != loop->thread)
		thread = PyThreadState_Next(thread);
	return thread != NULL && PyThreadState_GetID(thread) == loop->thread_key;
}

/* No step runs: either the loop waits for something to do or it runs what does not pass through
 * us. */
static void
sample_idle(struct loop *loop)
{
	struct io_hold *io = &loop->io;
	int64_t now_ns = clock_now_ns(), look_ns = IDLE_LOOK_NS;
	if (loop->active == 0 || loop->running != NULL || !thread_lives(loop)) {
		if (loop->running == NULL)
			sampler_step_end(loop->slot, 0, false);
		return;
	}
	uint32_t seen = loop->steps_seen;
	PyFrameObject *frame = PyThreadState_GetFrame(loop->thread);
	int32_t stack = walk_above(frame, loop->base_code);
	Py_XDECREF(frame);
	if (loop->running != NULL || loop->steps_seen != seen)
		return;
	int64_t idle_ns = io->idle_ns > loop->last_end_ns ? io->idle_ns : loop->last_end_ns;
	if (stack >= 0) {
		if (io->begin_ns == 0)
			io->begin_ns = idle_ns + (now_ns - idle_ns) / 2;
		add_sample(&io->samples, stack, io->begin_ns, now_ns);
		judge_hold(&io->hold, loop, now_ns);
		look_ns = next_look(io->begin_ns, now_ns) - now_ns;
	} else {
		if (io->begin_ns != 0)
			loop_io_ended(loop, now_ns);
		io->idle_ns = now_ns;
	}
	atomic_store(&step_look_ns[loop->slot], -(now_ns + look_ns));
}

static void
sample_job(int slot)
{
	struct job *job = jobs[slot];
	int64_t now_ns = clock_now_ns();
	if (job == NULL || !job->running || now_ns - job->begin_ns < JOB_SAMPLE_MIN_NS)
		return;
	int64_t begin_ns = job->path != NULL ? job->path->end_ns : job->begin_ns;
	PyFrameObject *frame = PyThreadState_GetFrame(job->thread);
	int32_t stack = walk_frames(frame, job->base_code, NULL);
	Py_XDECREF(frame);
	if (jobs[slot] != job)
		return;
	atomic_store(&job_look_ns[slot], next_look(job->begin_ns, now_ns));
	add_sample(&job->samples, stack, begin_ns, now_ns);
}

static void
sample_all(void) /* with the GIL */
{
	int64_t now_ns = clock_now_ns();
	int count = atomic_load(&loops_high), held = frames_hold();
	for (int i = 0; i < count; i++) {
		int64_t look_ns = atomic_load(&step_look_ns[i]);
		if (loop_at(i) == NULL || !is_due(look_ns, now_ns))
			continue;
		if (look_ns < 0)
			sample_idle(loop_at(i));
		else
			sample_step(loop_at(i));
	}
	count = atomic_load(&jobs_high);
	for (int i = 0; i < count; i++)
		if (is_due(atomic_load(&job_look_ns[i]), now_ns))
			sample_job(i);
	frames_release(held);
	engine_check("sampler");
}

static bool
anything_runs(void)
{
	int count = atomic_load(&jobs_high);
	for (int i = 0; i < count; i++)
		if (atomic_load(&job_look_ns[i]) != 0)
			return true;
	count = atomic_load(&loops_high);
	for (int i = 0; i < count; i++)
		if (atomic_load(&step_look_ns[i]) != 0)
			return true;
	return false;
}

static void
sleep_until_woken(void)
{
	pthread_mutex_lock(&mutex);
	atomic_store(&asleep, true);
	while (atomic_load(&asleep))
		pthread_cond_wait(&wake, &mutex);
	pthread_mutex_unlock(&mutex);
}

/* Returns once it is next_ns, or later after a second without requests. */
static void
sleep_until(int64_t next_ns, uint32_t *seen, int64_t *seen_ns)
{
	struct timespec until = {.tv_sec = next_ns / 1000000000, .tv_nsec = next_ns % 1000000000};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	uint32_t now = atomic_load(&activity);
	if (now != *seen || anything_runs()) {
		*seen = now;
		*seen_ns = next_ns;
	} else if (next_ns - *seen_ns > IDLE_NS) {
		sleep_until_woken();
		*seen_ns = clock_now_ns();
	}
}

static void *
sampler_main(void *arg)
{
	PyThreadState *thread = NULL;
	uint32_t seen = 0;
	int64_t now_ns = clock_now_ns(), rest_ns = 0, seen_ns = now_ns;
	(void)arg;
	(void)pthread_setname_np(pthread_self(), "tailrace-watch");
	for (;;) {
		int64_t next_ns = next_due_ns(now_ns);
		sleep_until(next_ns > rest_ns ? next_ns : rest_ns, &seen, &seen_ns);
		if (atomic_load(&stopping))
			return NULL;
		now_ns = clock_now_ns();
		if (next_due_ns(now_ns) > now_ns)
			continue;
		/* One thread state for good; where the interpreter ends, this call ends the
		 * thread. */
		if (thread == NULL)
			(void)PyGILState_Ensure();
		else
			PyEval_RestoreThread(thread);
		sample_all();
		thread = PyEval_SaveThread();
		now_ns = clock_now_ns();
		rest_ns = now_ns + REST_NS;
	}
}

/* The interpreter ends: the thread touches it no more. */
void
sampler_stop(void)
{
	atomic_store(&stopping, true);
}

/* Signals are for the app's threads. */
static void
start_thread(void)
{
	pthread_t thread;
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	started = pthread_create(&thread, NULL, sampler_main, NULL) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (started)
		pthread_detach(thread);
}

/* A request begins. */
void
sampler_wake(void)
{
	atomic_fetch_add_explicit(&activity, 1, memory_order_relaxed);
	if (!started)
		start_thread();
	else if (atomic_load_explicit(&asleep, memory_order_relaxed)) {
		pthread_mutex_lock(&mutex);
		atomic_store(&asleep, false);
		pthread_cond_signal(&wake);
		pthread_mutex_unlock(&mutex);
	}
}

/* The thread is the parent's; the mutex may have been held by it. */
void
sampler_after_fork(void)
{
	started = false;
	atomic_store(&asleep, false);
	pthread_mutex_init(&mutex, NULL);
	pthread_cond_init(&wake, NULL);
	for (int i = 0; i < JOBS_MAX; i++) {
		jobs[i] = NULL;
		atomic_store(&job_look_ns[i], 0);
	}
}
