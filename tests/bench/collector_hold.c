/* collector_alone throughput: exchanges as fast as it goes. collector_alone hold: at a rate, in
 * real time, and a dashboard's questions beside them. */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "collector_alone.h"
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/history_fill.h"
#include "collector/query.h"

#define ASK_EVERY_MS 50
#define ASKED_MAX 100000

void
throughput(uint64_t exchanges)
{
	char more[512];
	uint64_t loop_ns = 0, last_ns = 0, begin_ns = clock_now_ns(), making_ns = 0;
	tell_stacks();
	wall_from_ns = clock_wall_ns();
	uint64_t process_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (uint64_t n = 0; n < exchanges; n += BATCH) {
		uint64_t from_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
		uint64_t spent_ns = feed(BATCH, n / BATCH % 2);
		making_ns += cpu_ns(CLOCK_THREAD_CPUTIME_ID) - from_ns - spent_ns;
		loop_ns += spent_ns;
		if (wall_ns() - last_ns >= NS_PER_S) {
			last_ns = wall_ns();
			loop_ns += tick();
		}
	}
	uint64_t wall_ns = clock_now_ns() - begin_ns;
	process_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - process_ns - making_ns;
	snprintf(more, sizeof(more),
	         "\"loop_per_s\": %.0f, \"all_threads_per_s\": %.0f, \"wall_per_s\": %.0f",
	         (double)exchanges * 1e9 / (double)loop_ns,
	         (double)exchanges * 1e9 / (double)process_ns,
	         (double)exchanges * 1e9 / (double)wall_ns);
	report(more);
}

/* --- in real time ------------------------------------------------------------------------ */

static struct event_base *base;
static struct event *timer;
static uint64_t hold_begin_ns, hold_ns, rate_per_s, asked_ns, second_ns, fed_ns, ticked_max_ns;
static double latencies_ms[ASKED_MAX], worst_ms[QUERY_COMPARE + 1];
static size_t asked, answered;
static bool over; /* what still waits is turned away */

static void
on_answer(void *arg, struct query_job *job)
{
	(void)arg;
	if (!over && job->status != 200 && job->status != 404) {
		fprintf(stderr, "question %d answered %d: %s\n", job->kind, job->status,
		        job->body.data != NULL ? job->body.data : "");
		exit(1);
	}
	uint64_t *begin_ns = job->arg;
	double ms = (double)(clock_now_ns() - *begin_ns) / 1e6;
	if (!over && answered < ASKED_MAX) {
		latencies_ms[answered++] = ms;
		worst_ms[job->kind] = ms > worst_ms[job->kind] ? ms : worst_ms[job->kind];
	}
	free(begin_ns);
	query_job_free(job);
}

/* The questions of a dashboard, one after the other. */
static void
ask(void)
{
	struct query_job *job = xcalloc(1, sizeof(*job));
	uint64_t *begin_ns = xcalloc(1, sizeof(*begin_ns));
	uint64_t now_s = clock_wall_ns() / NS_PER_S;
	static const enum query_kind kinds[] = {QUERY_REQUESTS, QUERY_SERIES,  QUERY_FLAME,
	                                        QUERY_REQUESTS, QUERY_REQUEST, QUERY_FLAME,
	                                        QUERY_SERIES,   QUERY_ROUTES};
	*begin_ns = clock_now_ns();
	job->kind = kinds[asked++ % (sizeof(kinds) / sizeof(kinds[0]))];
	job->limit = 50;
	job->slowest = asked % 2;
	job->window_s = 3600;
	job->arg = begin_ns;
	job->history.span = (struct query_span){now_s - 1800, now_s + 1};
	job->history.has_before = asked % 3 == 0;
	job->history.before = (struct query_span){now_s - 3600, now_s - 1800};
	if (job->kind == QUERY_FLAME || job->kind == QUERY_SERIES)
		history_fill(&service, job, 1 + random_next() % (routes_count(service.routes) - 1));
	if (!query_submit(service.query, job)) {
		fprintf(stderr, "a question was turned away\n");
		exit(1);
	}
}

static void
on_timer(evutil_socket_t fd, short events, void *arg)
{
	uint64_t now_ns = clock_now_ns();
	(void)fd;
	(void)events;
	(void)arg;
	while (made < (now_ns - hold_begin_ns) * rate_per_s / NS_PER_S)
		fed_ns += feed(50, made / 50 % 2);
	if (now_ns - second_ns >= NS_PER_S) {
		second_ns = now_ns;
		uint64_t ticked_ns = tick();
		ticked_max_ns = ticked_ns > ticked_max_ns ? ticked_ns : ticked_max_ns;
	}
	if (now_ns - asked_ns >= ASK_EVERY_MS * NS_PER_MS) {
		asked_ns = now_ns;
		ask();
	}
	if (now_ns - hold_begin_ns >= hold_ns)
		event_base_loopbreak(base);
}

static int
ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

void
hold(const char *path, uint64_t exchanges_per_s, uint64_t seconds)
{
	char more[512];
	struct timeval every = {.tv_usec = 5000};
	base = event_base_new();
	service.query = query_start(base, path, service.store, on_answer, NULL);
	tell_stacks();
	rate_per_s = exchanges_per_s;
	hold_ns = seconds * NS_PER_S;
	hold_begin_ns = second_ns = asked_ns = clock_now_ns();
	timer = event_new(base, -1, EV_PERSIST, on_timer, NULL);
	event_add(timer, &every);
	event_base_dispatch(base);
	over = true;
	query_stop(service.query);
	qsort(latencies_ms, answered, sizeof(latencies_ms[0]), ascending);
	snprintf(more, sizeof(more),
	         "\"asked\": %zu, \"api_p50_ms\": %.2f, \"api_p99_ms\": %.2f, \"api_max_ms\": %.2f,"
	         " \"loop_cpu_share\": %.3f, \"tick_max_ms\": %.2f, \"worst_ms\": {"
	         "\"requests\": %.1f, \"request\": %.1f, \"routes\": %.1f, \"series\": %.1f,"
	         " \"flame\": %.1f}",
	         answered, latencies_ms[answered / 2], latencies_ms[answered * 99 / 100],
	         latencies_ms[answered - 1], (double)fed_ns / (double)hold_ns,
	         (double)ticked_max_ns / 1e6, worst_ms[QUERY_REQUESTS], worst_ms[QUERY_REQUEST],
	         worst_ms[QUERY_ROUTES], worst_ms[QUERY_SERIES], worst_ms[QUERY_FLAME]);
	report(more);
	event_free(timer);
	event_base_free(base);
}
