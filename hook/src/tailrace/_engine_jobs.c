/* What the thread jobs of a request took: one total per function, which goes out beside its
 * profile (docs/protocol.md, `threads`). All of this runs under the GIL. */
#include "_engine.h"

enum { FUNCTIONS_MAX = 32, ONE_BYTES = 128, TEXT_BYTES = 256 + FUNCTIONS_MAX * ONE_BYTES };

struct job_total {
	int32_t stack; /* STACK_NONE: the rest, with all places taken */
	uint32_t count;
	int64_t queue_ns, run_ns, cpu_ns;
};

struct job_totals {
	int len;
	struct job_total items[FUNCTIONS_MAX];
};

int64_t
jobs_cpu_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static struct job_total *
total_for(struct job_totals *totals, int32_t stack)
{
	struct job_total *last = &totals->items[FUNCTIONS_MAX - 1];
	for (int i = 0; i < totals->len; i++)
		if (totals->items[i].stack == stack)
			return &totals->items[i];
	if (totals->len == FUNCTIONS_MAX) {
		last->stack = STACK_NONE;
		return last;
	}
	totals->items[totals->len].stack = stack;
	return &totals->items[totals->len++];
}

void
jobs_add(struct request *request, const struct job *job, int64_t now_ns)
{
	if (request->jobs == NULL && (request->jobs = calloc(1, sizeof(*request->jobs))) == NULL) {
		engine_failed("memory");
		return;
	}
	int64_t run_ns = now_ns - job->begin_ns, cpu_ns = jobs_cpu_now_ns() - job->begin_cpu_ns;
	struct job_total *total = total_for(request->jobs, job->stack);
	total->count++;
	total->queue_ns += job->begin_ns - job->queued_ns;
	total->run_ns += run_ns;
	/* Two clocks: a job that never paused may seem to have computed longer than it ran. */
	total->cpu_ns += cpu_ns < 0 ? 0 : cpu_ns < run_ns ? cpu_ns : run_ns;
}

void
jobs_emit(struct request *request)
{
	char text[TEXT_BYTES];
	struct job_totals *totals = request->jobs;
	if (totals == NULL)
		return;
	char key[KEY_LEN];
	request_key(request, key);
	int len =
	    snprintf(text, sizeof(text), "[\"%.*s\",%u,[", KEY_LEN, key, (unsigned)request->part);
	for (int i = 0; i < totals->len; i++) {
		const struct job_total *total = &totals->items[i];
		len += snprintf(text + len, sizeof(text) - (size_t)len, "%s[%d,%u,%lld,%lld,%lld]",
		                i > 0 ? "," : "", total->stack, total->count,
		                (long long)total->queue_ns, (long long)total->run_ns,
		                (long long)total->cpu_ns);
	}
	len += snprintf(text + len, sizeof(text) - (size_t)len, "]]");
	if (totals->len > 0 && !ring_put_jobs(text, (size_t)len))
		engine.rows_over++;
	totals->len = 0;
	memset(totals->items, 0, sizeof(totals->items));
}

void
jobs_free(struct request *request)
{
	free(request->jobs);
	request->jobs = NULL;
}
