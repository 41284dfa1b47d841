/* What the thread jobs of a request took: one total per function, which goes out beside its
 * profile (docs/protocol.md, `threads` and `returns`). All of this runs under the GIL. */
#include "_engine.h"

#include <stdarg.h>

enum { FUNCTIONS_MAX = 32, ONE_BYTES = 128, TEXT_BYTES = 256 + FUNCTIONS_MAX * ONE_BYTES };

struct job_total {
	int32_t stack; /* STACK_NONE: the rest, with all places taken */
	uint32_t count;
	int64_t queue_ns, run_ns, cpu_ns, return_ns;
};

/* A function keeps its place for the request's life: a job's result may come back in the part after
 * the one that counted the job. */
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

uint8_t
jobs_add(struct request *request, const struct job *job, int64_t now_ns)
{
	if (request->jobs == NULL && (request->jobs = calloc(1, sizeof(*request->jobs))) == NULL) {
		engine_failed("memory");
		return 0;
	}
	int64_t run_ns = now_ns - job->begin_ns, cpu_ns = jobs_cpu_now_ns() - job->begin_cpu_ns;
	struct job_total *total = total_for(request->jobs, job->stack);
	total->count++;
	total->queue_ns += job->begin_ns - job->queued_ns;
	total->run_ns += run_ns;
	/* Two clocks: a job that never paused may seem to have computed longer than it ran. */
	total->cpu_ns += cpu_ns < 0 ? 0 : cpu_ns < run_ns ? cpu_ns : run_ns;
	return (uint8_t)(total - request->jobs->items + 1);
}

void
jobs_returned(struct request *request, uint8_t number, int64_t lag_ns)
{
	request->jobs->items[number - 1].return_ns += lag_ns;
}

__attribute__((format(printf, 3, 4))) static int
put(char *text, int len, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	len += vsnprintf(text + len, TEXT_BYTES - (size_t)len, format, args);
	va_end(args);
	return len;
}

/* What a member of the batch says of one function. */
static int
put_total(char *text, int len, enum beside which, const struct job_total *total)
{
	if (which == BESIDE_RETURNS)
		return put(text, len, "%lld", (long long)total->return_ns);
	return put(text, len, "[%d,%u,%lld,%lld,%lld]", total->stack, total->count,
	           (long long)total->queue_ns, (long long)total->run_ns, (long long)total->cpu_ns);
}

static bool
put_row(const struct request *request, enum beside which)
{
	char text[TEXT_BYTES], key[KEY_LEN];
	const struct job_totals *totals = request->jobs;
	request_key(request, key);
	int len = put(text, 0, "[\"%.*s\",%u,[", KEY_LEN, key, (unsigned)request->part),
	    begin = len;
	for (int i = 0; i < totals->len; i++) {
		const struct job_total *total = &totals->items[i];
		if (total->count == 0 && total->return_ns == 0)
			continue; /* nothing since the part before */
		len = put(text, len, "%s", len > begin ? "," : "");
		len = put_total(text, len, which, total);
	}
	if (len == begin)
		return true;
	len = put(text, len, "]]");
	return ring_put_beside(which, text, (size_t)len);
}

void
jobs_emit(struct request *request)
{
	struct job_totals *totals = request->jobs;
	if (totals == NULL)
		return;
	if (!put_row(request, BESIDE_THREADS) || !put_row(request, BESIDE_RETURNS))
		engine.rows_over++;
	for (int i = 0; i < totals->len; i++)
		totals->items[i] = (struct job_total){.stack = totals->items[i].stack};
}

void
jobs_free(struct request *request)
{
	free(request->jobs);
	request->jobs = NULL;
}
