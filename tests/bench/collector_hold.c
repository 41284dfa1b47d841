/* collector_alone hold: the collector as the gateway runs it, in a process of its own. Another
 * writes records into a ring and posts batches, a third asks what a dashboard asks. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "collector_alone.h"
#include "base/board.h"
#include "base/log.h"
#include "base/xmem.h"
#include "handover.h"
#include "proxy/ring.h"

#define ASKERS 4
#define ASK_EVERY_NS (50 * NS_PER_MS) /* all of them together */
#define ASKED_MAX 20000
#define ANSWER_MAX (8u << 20)
#define STEP_NS (10 * NS_PER_MS) /* between two looks whether exchanges are due */

static char socket_path[96];
static char answer[ANSWER_MAX + 1]; /* of one question, head included */

__attribute__((noreturn)) static void
broken(const char *what)
{
	fprintf(stderr, "hold: %s: %.300s\n", what, answer);
	exit(1);
}

/* --- questions, one at a time over a kept connection --------------------------------------- */

static int
connected(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		broken("not connected");
	return fd;
}

static void
send_all(int fd, const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t sent = write(fd, bytes, length);
		if (sent <= 0)
			broken("not sent");
		bytes += sent;
		length -= (size_t)sent;
	}
}

/* The answer's body. 404 is an answer: of some routes nothing is there yet. */
static const char *
receive(int fd)
{
	size_t have = 0, want = SIZE_MAX;
	const char *body = NULL;
	while (have < want) {
		ssize_t got = read(fd, answer + have, ANSWER_MAX - have);
		if (got <= 0)
			broken("no answer");
		have += (size_t)got;
		answer[have] = '\0';
		if (body == NULL && (body = strstr(answer, "\r\n\r\n")) != NULL) {
			const char *length = strstr(answer, "Content-Length: ");
			if (length == NULL || length > body)
				broken("no length");
			body += 4;
			want = (size_t)(body - answer) + strtoull(length + 16, NULL, 10);
		}
	}
	if (strncmp(answer + 9, "200", 3) != 0 && strncmp(answer + 9, "404", 3) != 0)
		broken("bad answer");
	return body;
}

static const char *
get(int fd, const char *path)
{
	char head[512];
	int length =
	    snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
	send_all(fd, head, (size_t)length);
	return receive(fd);
}

/* --- who asks ------------------------------------------------------------------------------ */

static const char *const questions[] = {"routes",   "slowest",   "latest", "of_route",
                                        "request",  "profile",   "series", "flame",
                                        "compared", "incidents", "status", "metrics"};
#define QUESTIONS (sizeof(questions) / sizeof(questions[0]))

/* Shared with the askers' processes. */
struct asked {
	volatile uint64_t stop;
	struct {
		size_t question;
		double ms, bytes; /* ms 0 = not asked */
	} answers[ASKED_MAX];
};

static void
question_write(size_t which, char *path, size_t size, const char *trace, unsigned route)
{
	unsigned long now_s = (unsigned long)(clock_wall_ns() / NS_PER_S);
	const char *format[QUESTIONS] = {"/api/v1/routes?window=1h",
	                                 "/api/v1/requests?sort=slowest&limit=50",
	                                 "/api/v1/requests?sort=latest&limit=50",
	                                 NULL,
	                                 NULL,
	                                 NULL,
	                                 NULL,
	                                 NULL,
	                                 NULL,
	                                 "/api/v1/incidents",
	                                 "/api/v1/status",
	                                 "/metrics"};
	if (which == 3)
		snprintf(path, size,
		         "/api/v1/requests?sort=slowest&limit=50&route=GET%%20/route%u/%%7Bid%%7D",
		         route);
	else if (which == 4 || which == 5)
		snprintf(path, size, "/api/v1/requests/%s%s", trace,
		         which == 5 ? "/profile?format=speedscope" : "");
	else if (which == 6)
		snprintf(path, size, "/api/v1/routes/%u/series?from=%lu", route, now_s - 3600);
	else if (which == 7)
		snprintf(path, size, "/api/v1/routes/%u/flame?from=%lu", route, now_s - 1800);
	else if (which == 8)
		snprintf(path, size,
		         "/api/v1/routes/%u/flame?from=%lu&baseline_from=%lu&baseline_to=%lu",
		         route, now_s - 300, now_s - 3600, now_s - 300);
	else
		snprintf(path, size, "%s", format[which]);
}

/* One of the askers: its turn comes by the clock, and time counts from then on. */
static void
ask(struct asked *asked, size_t who)
{
	char path[512], trace[33] = "00000000000000000000000000000000";
	int fd = connected();
	uint64_t begin_ns = clock_now_ns();
	for (size_t n = who; asked->stop == 0 && n < ASKED_MAX; n += ASKERS) {
		uint64_t due_ns = begin_ns + n * ASK_EVERY_NS, now_ns;
		size_t which = (n / ASKERS + who * QUESTIONS / ASKERS) % QUESTIONS;
		while ((now_ns = clock_now_ns()) < due_ns)
			usleep((useconds_t)((due_ns - now_ns) / 1000 + 1));
		question_write(which, path, sizeof(path), trace,
		               1 + (unsigned)(random_next() % routes));
		const char *body = get(fd, path);
		asked->answers[n].question = which;
		asked->answers[n].ms = (double)(clock_now_ns() - due_ns) / 1e6;
		asked->answers[n].bytes = (double)strlen(body);
		const char *id = strstr(body, "\"trace_id\":\"");
		if (which <= 3 && id != NULL)
			snprintf(trace, sizeof(trace), "%.32s", id + 12);
	}
}

/* --- the load -------------------------------------------------------------------------------- */

static int post_fd;
static struct ring *ring;
static uint64_t ring_full;

static void
post_batch(const char *json, size_t length)
{
	char head[256];
	int size = snprintf(head, sizeof(head),
	                    "POST /v1/profiles HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
	                    "application/json\r\nContent-Length: %zu\r\n\r\n",
	                    length);
	send_all(post_fd, head, (size_t)size);
	send_all(post_fd, json, length);
	if (strstr(receive(post_fd), "\"stacks\":\"ok\"") == NULL)
		broken("not taken");
}

static void
ring_record(const struct exchange_record *record, size_t size)
{
	void *place = ring_reserve(ring, size);
	ring_full += place == NULL;
	if (place == NULL)
		return;
	memcpy(place, record, size);
	ring_commit(ring);
}

static void
load(uint64_t exchanges_per_s, uint64_t seconds)
{
	static const struct input_taker real = {post_batch, ring_record};
	uint64_t begin_ns = clock_now_ns(), now_ns;
	post_fd = connected();
	while ((now_ns = clock_now_ns()) < begin_ns + seconds * NS_PER_S) {
		uint64_t due = (now_ns - begin_ns) * exchanges_per_s / NS_PER_S;
		if (made + BATCH / 2 > due)
			usleep(STEP_NS / 1000);
		else
			feed(&real, BATCH / 2, made / BATCH % 2);
	}
}

/* --- the collector ------------------------------------------------------------------------ */

static struct config *
config_make(const char *store)
{
	char json[1024];
	struct config_errors errors = {0};
	struct config *config;
	int length = snprintf(json, sizeof(json),
	                      "{\"listeners\":[{\"address\":\"127.0.0.1:8080\"}],"
	                      "\"upstreams\":{\"app\":{\"servers\":[\"127.0.0.1:8000\"]}},"
	                      "\"control\":{\"listeners\":[{\"address\":\"unix:%s\"}]},"
	                      "\"store\":{\"path\":\"%s\"}}",
	                      socket_path, store);
	if (config_load_bytes("hold", json, (size_t)length, &config, &errors) != 0) {
		fprintf(stderr, "%s\n", errors.lines[0]);
		exit(1);
	}
	return config;
}

/* The collector's process, once it serves. */
static pid_t
collector_start(const char *store, struct handover *handover)
{
	struct config *config = config_make(store);
	const char *why = "";
	char byte;
	int life[2], ready[2];
	handover->board_fd = board_create();
	handover->rings_fd = board_rings_create(RING_BYTES);
	unlink(socket_path);
	handover->listener_fds[0] =
	    net_listen(&config->control.listeners[0].address, 64, 0660, &why);
	handover->listener_count = 1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, life) != 0 || pipe(ready) != 0 ||
	    handover->listener_fds[0] < 0)
		fatal("hold: %s", why);
	handover->life_fd = life[1];
	handover->ready_fd = ready[1];
	struct board *board = board_attach(handover->board_fd);
	char *rings = board_rings_attach(handover->rings_fd, RING_BYTES);
	if (board == NULL || rings == NULL)
		fatal("hold: no shared memory");
	ring = ring_attach(rings);
	atomic_store(&board->workers[0].pid, (int32_t)getpid());
	atomic_store(&board->workers[0].state, BOARD_RUNNING);
	pid_t pid = fork();
	if (pid == 0)
		exit(collector_main(handover, config));
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		fatal("hold: the collector does not start");
	return pid;
}

/* The sum of a family's samples that have this label, in /metrics. */
static double
metric(const char *metrics, const char *sample)
{
	char line[128];
	snprintf(line, sizeof(line), "\n%s ", sample);
	const char *found = strstr(metrics, line);
	if (found == NULL)
		broken(sample);
	return strtod(found + strlen(line), NULL);
}

/* --- the report --------------------------------------------------------------------------- */

static int
ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Of one question, or of all. */
static void
report_latency(const struct asked *asked, const char *name, size_t question)
{
	static double ms[ASKED_MAX];
	double bytes = 0;
	size_t count = 0;
	for (size_t i = 0; i < ASKED_MAX; i++) {
		if (!(asked->answers[i].ms > 0) ||
		    (question < QUESTIONS && asked->answers[i].question != question))
			continue;
		ms[count++] = asked->answers[i].ms;
		bytes = asked->answers[i].bytes > bytes ? asked->answers[i].bytes : bytes;
	}
	qsort(ms, count, sizeof(ms[0]), ascending);
	if (count > 0)
		printf("\"%s\": {\"asked\": %zu, \"p50_ms\": %.2f, \"p99_ms\": %.2f, "
		       "\"max_ms\": %.2f, \"bytes\": %.0f}, ",
		       name, count, ms[count / 2], ms[count * 99 / 100], ms[count - 1], bytes);
}

static void
report(const struct asked *asked, const struct rusage *used, uint64_t seconds, const char *metrics)
{
	static const struct {
		const char *key, *sample;
	} shown[] = {
	    {"joined", "tailrace_profiles_total{outcome=\"joined\"}"},
	    {"dropped_full", "tailrace_store_dropped_total{reason=\"full\"}"},
	    {"dropped_error", "tailrace_store_dropped_total{reason=\"error\"}"},
	    {"ring_dropped", "tailrace_records_dropped_total"},
	    {"displaced", "tailrace_join_displaced_total{table=\"exchanges\"}"},
	    {"written", "tailrace_store_exchanges_written_total"},
	    {"file_bytes", "tailrace_store_file_bytes"},
	    {"queued", "tailrace_store_queued"},
	};
	struct timeval user = used->ru_utime, system = used->ru_stime;
	double cpu_s =
	    (double)(user.tv_sec + system.tv_sec) + (double)(user.tv_usec + system.tv_usec) / 1e6;
	printf("{");
	report_latency(asked, "api", QUESTIONS);
	for (size_t i = 0; i < QUESTIONS; i++)
		report_latency(asked, questions[i], i);
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
		printf("\"%s\": %.0f, ", shown[i].key, metric(metrics, shown[i].sample));
	printf("\"made\": %llu, \"ring_full\": %llu, \"cpu_share\": %.3f, \"rss_max_kib\": %ld}\n",
	       (unsigned long long)made, (unsigned long long)ring_full, cpu_s / (double)seconds,
	       used->ru_maxrss);
}

int
hold(const char *path, uint64_t exchanges_per_s, uint64_t seconds)
{
	struct handover handover = {.config_fd = -1};
	struct rusage used;
	snprintf(socket_path, sizeof(socket_path), "/tmp/collector-hold-%d.sock", (int)getpid());
	log_init("collector alone", LOG_LEVEL_WARN);
	clock_identity(boot_id, &time_namespace);
	struct asked *asked =
	    mmap(NULL, sizeof(*asked), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t collector = collector_start(path, &handover), askers[ASKERS];
	post_fd = connected();
	tell_stacks(&(struct input_taker){post_batch, ring_record});
	for (size_t i = 0; i < ASKERS; i++) {
		if ((askers[i] = fork()) == 0) {
			ask(asked, i);
			_exit(0);
		}
	}
	load(exchanges_per_s, seconds);
	asked->stop = 1;
	for (size_t i = 0; i < ASKERS; i++)
		waitpid(askers[i], NULL, 0);
	usleep(1000000); /* the last records are read, the last batch is written */
	char *metrics = xstrdup(get(connected(), "/metrics"));
	kill(collector, SIGTERM);
	if (wait4(collector, NULL, 0, &used) != collector)
		broken("the collector is lost");
	unlink(socket_path);
	report(asked, &used, seconds, metrics);
	free(metrics);
	return 0;
}
