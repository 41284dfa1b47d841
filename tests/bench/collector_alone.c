/* The collector's parts without its processes: hand-made records and posted batches (as JSON, as a
 * hook sends them) go in at the join, store and query threads run as they do in the gateway.
 *
 * collector_alone throughput STORE ROUTES ROWS EXCHANGES   as fast as it goes, on a wall clock that
 *     runs as if 20 000 exchanges came a second
 * collector_alone memory STORE ROUTES ROWS FRAMES          16 minutes of windows and 48 h of the
 *     detector at 5 requests/s a route, both of made-up time, then half a minute as it comes
 * collector_alone hold STORE ROUTES ROWS RATE SECONDS      in real time, the collector in a process
 *     of its own, with questions beside it
 *
 * Prints one JSON object. Times of threads are CPU, without the making of the input. */
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "collector_alone.h"
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/aggregate.h"
#include "collector/configs.h"
#include "collector/hooks.h"
#include "collector/ingest.h"
#include "collector/live.h"
#include "collector/service.h"
#include "collector/spans.h"
#include "collector/status.h"
#include "collector/store.h"
#include "collector/wants.h"
#include "collector/watch_inside.h"
#include "model/json_arena.h"
#include "model/retention.h"

#define ROWS_MAX 64
#define THROUGHPUT_PER_S 20000
#define MEMORY_FEED_S 20
#define MEMORY_FEED_PER_S 1000

static struct config *config;
static struct board board;
static struct service service = {.board = &board};
static struct text answer;

uint64_t
cpu_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t
status_kib(const char *key)
{
	char line[256];
	unsigned long value = 0;
	FILE *file = fopen("/proc/self/status", "r");
	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, key, strlen(key)) == 0)
			value = strtoul(line + strlen(key) + 1, NULL, 10);
	if (file != NULL)
		fclose(file);
	return value;
}

/* The wall clock: in `throughput` it goes by what was made. */
uint64_t wall_from_ns;
uint64_t
wall_ns(void)
{
	return wall_from_ns == 0 ? clock_wall_ns()
	                         : wall_from_ns + made * (NS_PER_S / THROUGHPUT_PER_S);
}

static void
on_detected(void *arg, size_t route, const struct detector_event *event)
{
	(void)arg;
	(void)route;
	(void)event;
}

static void
on_ruled(void *arg, size_t route, const struct rule_track *track, enum rule_change change,
         int64_t t)
{
	(void)arg;
	(void)route;
	(void)track;
	(void)change;
	(void)t;
}

static void
config_make(void)
{
	static const char minimal[] = "{\"listeners\":[{\"address\":\"127.0.0.1:8080\"}],"
	                              "\"upstreams\":{\"app\":{\"servers\":[\"127.0.0.1:8000\"]}}}";
	struct config_errors errors = {0};
	if (config_load_bytes("minimal", minimal, sizeof(minimal) - 1, &config, &errors) != 0)
		exit(1);
	service.config = config;
}

static void
service_make(const char *path)
{
	const struct watch_events watched = {.detected = on_detected, .ruled = on_ruled};
	struct store_options store = {.path = path,
	                              .max_bytes = 1 << 30,
	                              .max_age_hours = 168,
	                              .queue_max = STORE_QUEUE_MAX,
	                              .queue_bytes_max = STORE_QUEUE_BYTES_MAX};
	struct stacks_limits limits = {STACKS_INSTANCES_MAX, STACKS_MAX, STACKS_BYTES_MAX};
	struct spans_options spans = {.span_ms = SPANS_SPAN_MS,
	                              .join_timeout_ms = 10000,
	                              .bytes_max = SPANS_BYTES_MAX,
	                              .rows_max = ROLLUP_ROWS_MAX,
	                              .stacks_max = FLAME_STACKS_MAX,
	                              .frames_max = FLAME_FRAMES_MAX};
	struct correlator_options correlator = {
	    .join_timeout_ns = 10 * NS_PER_S,
	    .exchanges_max = CORRELATOR_EXCHANGES_MAX,
	    .profiles_max = CORRELATOR_PROFILES_MAX,
	    .profile_bytes_max = CORRELATOR_PROFILE_BYTES_MAX,
	    .done_max = CORRELATOR_DONE_MAX,
	    .events = {&service, service_on_exchange, service_on_late, service_on_tail}};
	clock_identity(correlator.boot_id, &correlator.time_namespace);
	memcpy(boot_id, correlator.boot_id, sizeof(boot_id));
	time_namespace = correlator.time_namespace;
	store_prepare(path, (uid_t)-1, (gid_t)-1);
	service.routes = routes_new(ROUTES_MAX);
	service.stacks = stacks_new(&limits);
	service.store = store_start(&store);
	service.aggregate = aggregate_new(service.routes, service.store);
	service.spans = spans_new(&spans, service.routes, service.store);
	service.retention = retention_new(ROUTES_MAX + 1, 10, 10, 1);
	service.wants = wants_new();
	service.hooks = hooks_new();
	service.status = status_new(clock_now_ns());
	service.live = live_new(service.counters);
	service.correlator = correlator_new(&correlator);
	service.configs = configs_new(config, &board, NULL, NULL);
	service.watch = watch_new(config, service.routes, service.store, &watched);
}

static void
service_clear(void)
{
	correlator_free(service.correlator);
	aggregate_free(service.aggregate);
	spans_free(service.spans);
	retention_free(service.retention);
	wants_free(service.wants);
	hooks_free(service.hooks);
	status_free(service.status);
	live_free(service.live);
	watch_free(service.watch);
	store_stop(service.store);
	stacks_free(service.stacks);
	routes_free(service.routes);
}

/* --- the input --------------------------------------------------------------------- */

static void
take_batch(const char *json, size_t length)
{
	text_reset(&answer);
	if (ingest_batch(&service, json, length, false, clock_now_ns(), &answer) != 200 ||
	    strstr(answer.data, "\"stacks\":\"ok\"") == NULL) {
		fprintf(stderr, "not taken: %s\n", answer.data);
		exit(1);
	}
}

static void
take_record(const struct exchange_record *record, size_t size)
{
	correlator_record(service.correlator, record, size, clock_now_ns());
}

static const struct input_taker by_hand = {take_batch, take_record};

/* What the test itself holds lies apart, so that it is not counted. */
#define TOLD_BYTES ((size_t)256 << 20)
static char *told_bytes;
static size_t told_used;

/* A stack as the hook's, which are interned. */
static struct stack *
told_stack(unsigned number)
{
	struct text json = {0};
	uint64_t key = 0;
	text_puts(&json, "[");
	for (unsigned k = 0; k < frames; k++) {
		char module[64], function[64];
		snprintf(module, sizeof(module), "app.module%u", k);
		snprintf(function, sizeof(function), "function_%u_%u", k, whose(number, k));
		key = flame_key(key, module, function);
		text_printf(&json,
		            "%s{\"module\":\"%s\",\"function\":\"%s\",\"file\":", k > 0 ? "," : "",
		            module, function);
		text_printf(&json, "\"app/module.py\",\"line\":%u,\"in_app\":true}", k + 1);
	}
	text_puts(&json, "]");
	size_t size = (sizeof(struct stack) + json.length + 1 + 15) / 16 * 16;
	if (told_used + size > TOLD_BYTES)
		exit(1);
	/* All frames in one, which is written like many. */
	struct stack *stack = (struct stack *)(told_bytes + told_used);
	told_used += size;
	stack->key = key;
	stack->length = (uint32_t)json.length - 2;
	memcpy(stack->text, json.data + 1, json.length - 2);
	text_free(&json);
	return stack;
}

static uint64_t
tick(void)
{
	uint64_t from_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
	correlator_expire(service.correlator, clock_now_ns(), 100000);
	aggregate_flush(service.aggregate);
	spans_tick(service.spans, wall_ns());
	watch_tick(service.watch);
	return cpu_ns(CLOCK_THREAD_CPUTIME_ID) - from_ns;
}

/* --- what is measured ---------------------------------------------------------------- */

static void
report(const char *more)
{
	struct correlator_stats join;
	struct store_stats store;
	struct spans_stats spans;
	correlator_stats(service.correlator, &join);
	store_stats(service.store, &store);
	spans_stats(service.spans, &spans);
	printf("{%s, \"joined\": %llu, \"made\": %llu, \"displaced\": %llu, \"dropped_full\": %llu,"
	       " \"dropped_error\": %llu, \"written\": %llu, \"retention\": %llu,"
	       " \"file_bytes\": %llu, \"rollup_bytes\": %llu, \"folded_window\": %llu,"
	       " \"folded_route\": %llu, \"stacks\": %zu, \"stacks_overflowed\": %llu,"
	       " \"packed_bytes\": %zu, \"packed\": %zu, \"left_early\": %llu, \"rss_kib\": %llu,"
	       " \"rss_max_kib\": %llu}\n",
	       more, (unsigned long long)join.outcomes[PROFILE_JOINED], (unsigned long long)made,
	       (unsigned long long)join.exchanges_displaced, (unsigned long long)store.dropped_full,
	       (unsigned long long)store.dropped_error, (unsigned long long)store.exchanges_written,
	       (unsigned long long)store.evicted_retention, (unsigned long long)store.file_bytes,
	       (unsigned long long)store.rollup_bytes, (unsigned long long)spans.rows_folded_window,
	       (unsigned long long)spans.rows_folded_route, spans.stacks,
	       (unsigned long long)spans.stacks_overflowed, spans.packed_bytes, spans.packed,
	       (unsigned long long)spans.left_early, (unsigned long long)status_kib("VmRSS:"),
	       (unsigned long long)status_kib("VmHWM:"));
}

static uint64_t peak_kib;

static uint64_t
resident_kib(void)
{
	uint64_t kib = status_kib("VmRSS:") - (told_bytes != NULL ? told_used >> 10 : 0);
	peak_kib = kib > peak_kib ? kib : peak_kib;
	return kib;
}

/* One exchange of made-up time, of `rows` waits, into the windows. */
static void
window_exchange(struct stack *const *told, unsigned route, uint64_t now_ns)
{
	static struct profile_row parts[ROWS_MAX];
	struct exchange_record record = {.attempts = 1, .status = 200, .died_in = PHASE_COUNT};
	struct join join = {.shared = true};
	struct profile profile = {.breakdown = {parts, rows}};
	join.app_ns = 0;
	for (unsigned i = 0; i < rows; i++) {
		parts[i] = (struct profile_row){.kind = PROFILE_WAIT,
		                                .cause = PROFILE_CAUSE_DATABASE,
		                                .exact = true,
		                                .stack = told[route * rows + i],
		                                .ns = 100000 + random_next() % 9000000,
		                                .count = 1};
		join.app_ns += parts[i].ns;
	}
	for (unsigned i = 0; i < MARK_COUNT; i++)
		record.marks_ns[i] = 1000 + i * 900 + (i >= MARK_READ_FIRST ? join.app_ns : 0);
	join.app_queue_ns =
	    record.marks_ns[MARK_READ_FIRST] - record.marks_ns[MARK_SENT_FIRST] - join.app_ns;
	record.start_wall_ns = now_ns;
	spans_add(service.spans, route + 1, &record, &profile, &join, MISSING_NOT, now_ns);
}

/* Every route has three exchanges in each of 96 windows: 16 minutes. */
static void
make_windows(void)
{
	uint64_t now_ns = clock_wall_ns() - 960 * NS_PER_S;
	struct stack **told;
	told_bytes =
	    mmap(NULL, TOLD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	told = (struct stack **)told_bytes;
	told_used = routes * rows * sizeof(*told);
	for (unsigned i = 0; i < routes * rows; i++)
		told[i] = told_stack(i);
	for (unsigned window = 0; window < 96; window++, now_ns += 10 * NS_PER_S) {
		for (unsigned n = 0; n < 3 * routes; n++)
			window_exchange(told, n % routes, now_ns);
		while (spans_tick(service.spans, now_ns))
			continue;
		store_sync(service.store, 10000);
		resident_kib();
	}
	munmap(told_bytes, TOLD_BYTES);
	told_bytes = NULL;
}

static double
uniform(void)
{
	return ((double)(random_next() >> 11) + 0.5) / 9007199254740992.0;
}

static uint64_t
poisson(double mean)
{
	double left = exp(-mean), spread = sqrt(mean);
	uint64_t n = 0;
	if (mean > 20) {
		double z = sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform());
		return (uint64_t)fmax(0, mean + spread * z + 0.5);
	}
	for (double product = uniform(); product > left; product *= uniform())
		n++;
	return n;
}

/* `requests` log-normal latencies, a route's median being 20 to 170 ms, one in 300 an outlier. */
static size_t
made_cells(unsigned route, double requests, struct detector_cell cells[DETECTOR_BUCKETS])
{
	static double share[DETECTOR_BUCKETS];
	static unsigned of = UINT32_MAX;
	size_t used = 0;
	if (of != route) {
		double median = 20 + route % 16 * 10.0, below = 0;
		for (unsigned i = 0; i < DETECTOR_BUCKETS; i++) {
			double x = log(detector_edge_ms(i) / median);
			double at = 0.9967 * erfc(-x / 0.5 / sqrt(2)) / 2;
			at += x > 0 ? 0.0033 * (1 - exp(-x / 1.2)) : 0;
			share[i] = at - below;
			below = at;
		}
		of = route;
	}
	for (unsigned i = 0; i < DETECTOR_BUCKETS; i++) {
		uint64_t n = requests * share[i] > 1e-6 ? poisson(requests * share[i]) : 0;
		if (n > 0)
			cells[used++] = (struct detector_cell){i, n};
	}
	return used;
}

/* What the detector knows of a route after two days at 5 requests/s, and its last half hour. */
static void
make_history(unsigned number, int64_t now_s)
{
	struct detector_cell cells[DETECTOR_BUCKETS];
	struct watch_route *route = watch_route_make(service.watch, number + 1);
	int64_t t_s = (now_s - 49 * 3600) / 300 * 300, end_s = now_s - 700;
	struct detector_history *history = &route->detector->history;
	for (int64_t first_s = t_s; t_s < end_s; t_s += 300) {
		size_t used = made_cells(number, 1500, cells);
		if (t_s == first_s || t_s + 3900 > end_s) {
			detector_tick(service.watch->detector, route->detector, t_s, cells, used);
			continue;
		}
		/* As a clean tick: the work of every hour's end would take minutes. */
		detector_history_turn(history, t_s, 0);
		detector_history_count(history, 1500);
		detector_history_add(history, cells, used);
	}
	/* Saved as it went, like everywhere. */
	route->saved_block = history->block;
	route->saved_hour = history->hour;
	route->saved_renew_s = route->detector->renew_s;
	for (int64_t window = now_s / 10 - RECENT_WINDOWS; window < now_s / 10 - 6; window++)
		recent_put(&route->recent, window, cells, made_cells(number, 50, cells));
}

/* As exchanges come, a second's worth at a time: through ingest, join, aggregates, retention and
 * the store. On a busy machine it takes longer. */
static void
feed_for(unsigned seconds, unsigned per_s)
{
	uint64_t begin_ns = clock_now_ns();
	for (unsigned second = 1; second <= seconds; second++) {
		for (unsigned n = 0; n < per_s; n += 50)
			feed(&by_hand, 50, n / 50 % 2);
		tick();
		resident_kib();
		while (clock_now_ns() < begin_ns + second * NS_PER_S)
			usleep(5000);
	}
}

static void
memory(void)
{
	char more[512];
	uint64_t kib[4] = {resident_kib()};
	tell_stacks(&by_hand);
	for (unsigned i = 0; i < routes; i++) {
		char name[64];
		snprintf(name, sizeof(name), "GET /route%u/{id}", i);
		routes_index(service.routes, name);
	}
	kib[1] = resident_kib();
	make_windows();
	kib[2] = resident_kib();
	watch_tick(service.watch);
	for (unsigned i = 0; i < routes; i++)
		make_history(i, watch_now_s(service.watch));
	kib[3] = resident_kib();
	feed_for(MEMORY_FEED_S, MEMORY_FEED_PER_S);
	struct mallinfo2 heap = mallinfo2();
	snprintf(more, sizeof(more),
	         "\"used_kib\": %zu, \"free_kib\": %zu, \"begin_kib\": %llu, \"stacks_kib\": %llu,"
	         " \"windows_kib\": %llu, \"detector_kib\": %llu, \"feed_kib\": %llu,"
	         " \"peak_kib\": %llu",
	         (heap.uordblks + heap.hblkhd) >> 10, heap.fordblks >> 10,
	         (unsigned long long)kib[0], (unsigned long long)(kib[1] - kib[0]),
	         (unsigned long long)(kib[2] - kib[1]), (unsigned long long)(kib[3] - kib[2]),
	         (unsigned long long)(resident_kib() - kib[3]), (unsigned long long)peak_kib);
	report(more);
}

static void
throughput(uint64_t exchanges)
{
	char more[512];
	uint64_t loop_ns = 0, last_ns = 0, begin_ns = clock_now_ns(), making_ns = 0;
	tell_stacks(&by_hand);
	wall_from_ns = clock_wall_ns();
	uint64_t process_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (uint64_t n = 0; n < exchanges; n += BATCH) {
		uint64_t from_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
		uint64_t spent_ns = feed(&by_hand, BATCH, n / BATCH % 2);
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

int
main(int argc, char **argv)
{
	if (argc < 6) {
		fprintf(stderr, "usage: see the source\n");
		return 2;
	}
	routes = (unsigned)atoi(argv[3]);
	rows = (unsigned)atoi(argv[4]);
	if (rows > ROWS_MAX || routes > ROUTES_MAX)
		return 2;
	if (strcmp(argv[1], "hold") == 0 && argc > 6)
		return hold(argv[2], strtoull(argv[5], NULL, 10), strtoull(argv[6], NULL, 10));
	json_arena_install();
	config_make();
	service_make(argv[2]);
	if (strcmp(argv[1], "throughput") == 0) {
		throughput(strtoull(argv[5], NULL, 10));
	} else if (strcmp(argv[1], "memory") == 0) {
		frames = (unsigned)atoi(argv[5]);
		memory();
	}
	service_clear();
	text_free(&answer);
	return 0;
}
