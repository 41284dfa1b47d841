/* Board, /proc and the parts' own counts, as one object. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <event2/http.h>
#include "base/clock.h"
#include "base/config_show.h"
#include "base/xmem.h"
#include "collector/access_log.h"
#include "collector/deliver.h"
#include "collector/hooks.h"
#include "collector/intake.h"
#include "collector/live.h"
#include "collector/query.h"
#include "collector/reply.h"
#include "collector/status.h"
#include "collector/store.h"
#include "collector/watch.h"

struct second {
	uint64_t
	    at_s; /* CLOCK_MONOTONIC; what it counts is of another turn where this is not now's */
	uint32_t ended, sent, joined;
};

struct status {
	uint64_t start_ns;
	struct second lately[STATUS_LATELY_S + 1]; /* a full minute beside the running second */
};

struct status *
status_new(uint64_t now_ns)
{
	struct status *status = xcalloc(1, sizeof(*status));
	status->start_ns = now_ns;
	return status;
}

void
status_free(struct status *status)
{
	free(status);
}

void
status_count(struct status *status, bool sent, bool joined, uint64_t now_ns)
{
	uint64_t at_s = now_ns / NS_PER_S;
	struct second *second = &status->lately[at_s % (STATUS_LATELY_S + 1)];
	if (second->at_s != at_s)
		*second = (struct second){.at_s = at_s};
	second->ended++;
	second->sent += sent;
	second->joined += joined;
}

/* --- writing -------------------------------------------------------------------------------- */

static void
number(struct text *out, const char *key, uint64_t value)
{
	text_printf(out, ",\"%s\":%" PRIu64, key, value);
}

static void
ratio(struct text *out, const char *key, uint64_t part, uint64_t whole)
{
	if (whole == 0)
		text_printf(out, ",\"%s\":null", key);
	else
		text_printf(out, ",\"%s\":%.6f", key, (double)part / (double)whole);
}

static uint64_t
load(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static uint64_t
counter(const struct service *service, enum counter id)
{
	return board_threads_sum(service->board, offsetof(struct board_thread, counters) +
	                                             id * sizeof(_Atomic uint64_t));
}

#define GAUGE(service, field) \
	board_threads_sum((service)->board, offsetof(struct board_thread, field))

/* --- processes ------------------------------------------------------------------------------- */

struct usage {
	bool known;
	uint64_t rss_bytes;
	double cpu_s;
	double ended_cpu_s; /* of its children that have ended and were waited for */
	long threads;
};

/* proc(5): fields behind the command, which may hold anything. */
static struct usage
usage_of(int32_t pid)
{
	char path[64], buf[1024];
	struct usage usage = {0};
	unsigned long utime, stime;
	long ended_utime, ended_stime, rss, threads;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return usage;
	size_t length = fread(buf, 1, sizeof(buf) - 1, file);
	fclose(file);
	buf[length] = '\0';
	const char *rest = strrchr(buf, ')');
	if (rest == NULL || sscanf(rest + 1,
	                           " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld "
	                           "%*d %*d %ld %*d %*u %*u %ld",
	                           &utime, &stime, &ended_utime, &ended_stime, &threads, &rss) != 6)
		return usage;
	usage.known = true;
	usage.cpu_s = (double)(utime + stime) / (double)sysconf(_SC_CLK_TCK);
	usage.ended_cpu_s = (double)(ended_utime + ended_stime) / (double)sysconf(_SC_CLK_TCK);
	usage.threads = threads;
	usage.rss_bytes = (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
	return usage;
}

static const char *
state_name(uint32_t state)
{
	static const char *const names[] = {
	    [BOARD_EMPTY] = "empty",     [BOARD_STARTING] = "starting",
	    [BOARD_RUNNING] = "running", [BOARD_DRAINING] = "draining",
	    [BOARD_STOPPED] = "stopped", [BOARD_DEAD] = "dead"};
	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

struct cost {
	double cpu_s;
	uint64_t rss_bytes;
};

static void
process(const struct board_process *p, const char *role, uint64_t now_ns, struct cost *cost,
        struct text *out)
{
	int32_t pid = atomic_load_explicit(&p->pid, memory_order_relaxed);
	uint32_t state = atomic_load_explicit(&p->state, memory_order_acquire);
	uint64_t started_ns = load(&p->started_ns);
	if (pid <= 0 || state == BOARD_EMPTY || state == BOARD_STOPPED || state == BOARD_DEAD)
		return;
	struct usage usage = usage_of(pid);
	text_printf(out, "%s{\"role\":\"%s\",\"pid\":%d,\"state\":\"%s\"",
	            out->data != NULL && out->data[out->length - 1] == '}' ? "," : "", role, pid,
	            state_name(state));
	number(out, "generation", load(&p->generation));
	number(out, "config", atomic_load_explicit(&p->config, memory_order_relaxed));
	number(out, "uptime_s", now_ns > started_ns ? (now_ns - started_ns) / NS_PER_S : 0);
	if (usage.known)
		text_printf(out, ",\"rss_bytes\":%" PRIu64 ",\"cpu_s\":%.2f,\"threads\":%ld}",
		            usage.rss_bytes, usage.cpu_s, usage.threads);
	else
		text_puts(out, ",\"rss_bytes\":null,\"cpu_s\":null,\"threads\":null}");
	cost->cpu_s += usage.cpu_s + usage.ended_cpu_s; /* the supervisor's: replaced ones' work */
	cost->rss_bytes += usage.rss_bytes;
}

static void
processes(const struct service *service, uint64_t now_ns, struct text *out)
{
	const struct board *board = service->board;
	struct cost cost = {0};
	uint64_t ended = counter(service, COUNTER_EXCHANGES_ENDED);
	text_puts(out, ",\"processes\":[");
	process(&board->supervisor, "supervisor", now_ns, &cost, out);
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		process(&board->workers[i], "worker", now_ns, &cost, out);
	process(&board->collector, "collector", now_ns, &cost, out);
	text_printf(out, "],\"restarts\":{\"worker\":%" PRIu64 ",\"collector\":%" PRIu64 "}",
	            load(&board->worker_restarts), load(&board->collector_restarts));
	text_printf(out, ",\"reloads\":{\"done\":%" PRIu64 ",\"refused\":%" PRIu64 "}",
	            load(&board->reloads), load(&board->reloads_refused));
	text_printf(out, ",\"cost\":{\"rss_bytes\":%" PRIu64 ",\"cpu_s\":%.2f", cost.rss_bytes,
	            cost.cpu_s);
	if (ended > 0)
		text_printf(out, ",\"cpu_ns_per_exchange\":%.0f}",
		            cost.cpu_s * 1e9 / (double)ended);
	else
		text_puts(out, ",\"cpu_ns_per_exchange\":null}");
}

/* --- traffic ---------------------------------------------------------------------------------- */

/* The whole seconds before the running one. */
static void
lately(const struct service *service, uint64_t now_ns, struct text *out)
{
	const struct status *status = service->status;
	uint64_t at_s = now_ns / NS_PER_S, life_s = at_s - status->start_ns / NS_PER_S;
	uint64_t span_s = life_s < STATUS_LATELY_S ? life_s : STATUS_LATELY_S;
	uint64_t ended = 0, sent = 0, joined = 0;
	for (size_t i = 0; i <= STATUS_LATELY_S; i++) {
		const struct second *second = &status->lately[i];
		if (second->at_s >= at_s || at_s - second->at_s > STATUS_LATELY_S)
			continue;
		ended += second->ended;
		sent += second->sent;
		joined += second->joined;
	}
	text_printf(out, ",\"lately\":{\"span_s\":%" PRIu64, span_s);
	number(out, "exchanges", ended);
	number(out, "sent", sent);
	number(out, "joined", joined);
	ratio(out, "requests_per_s", ended, span_s);
	ratio(out, "joined_ratio", joined, sent);
	text_puts(out, "}");
}

static void
exchanges(const struct service *service, struct text *out)
{
	text_puts(out, ",\"exchanges\":{\"started\":");
	text_u64(out, counter(service, COUNTER_REQUESTS_STARTED));
	number(out, "ended", counter(service, COUNTER_EXCHANGES_ENDED));
	number(out, "in_flight", GAUGE(service, in_flight));
	number(out, "client_connections", GAUGE(service, client_connections));
	text_puts(out, "}");
}

static void
loop_lag(const struct service *service, struct text *out)
{
	uint64_t turns = 0, sum_ns = GAUGE(service, loop_lag_sum_ns);
	for (size_t i = 0; i < BOARD_LAG_BUCKETS; i++)
		turns += board_threads_sum(service->board,
		                           offsetof(struct board_thread, loop_lag_buckets) +
		                               i * sizeof(_Atomic uint64_t));
	text_printf(out, ",\"loop_lag\":{\"mean_ns\":%" PRIu64, turns > 0 ? sum_ns / turns : 0);
	number(out, "max_ns", board_loop_lag_max_ns(service->board));
	text_puts(out, "}");
}

static void
join(const struct correlator_stats *stats, struct text *out)
{
	text_puts(out, ",\"profiles\":{");
	for (unsigned i = 0; i < PROFILE_OUTCOME_COUNT; i++)
		text_printf(out, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", profile_outcome_name(i),
		            stats->outcomes[i]);
	number(out, "exchanges_waiting", stats->exchanges_waiting);
	number(out, "profiles_waiting", stats->profiles_waiting);
	text_puts(out, "}");
}

/* What was lost, by the name it has in /metrics. */
static void
drops(const struct service *service, const struct store_stats *store,
      const struct correlator_stats *stats, struct text *out)
{
	const uint64_t *own = service->counters;
	struct access_log_stats access = {0};
	struct watch_stats watch = {0};
	access_log_stats(service->access_log, &access);
	watch_stats(service->watch, &watch);
	text_puts(out, ",\"drops\":{\"records_dropped\":");
	text_u64(out, intake_dropped(service->intake));
	number(out, "records_broken", own[SERVICE_RECORDS_BROKEN]);
	number(out, "exchanges_lost", load(&service->board->exchanges_lost));
	number(out, "join_displaced", stats->exchanges_displaced);
	number(out, "profiles_refused", stats->outcomes[PROFILE_REFUSED]);
	number(out, "profile_batches_full", own[SERVICE_BATCH_FULL]);
	number(out, "hook_profiles_dropped", own[SERVICE_HOOK_DROPPED]);
	number(out, "store_dropped_full", store->dropped_full);
	number(out, "store_dropped_error", store->dropped_error);
	number(out, "access_log_dropped", access.dropped_full + access.dropped_file);
	number(out, "queries_refused", query_refused(service->query));
	number(out, "routes_overflow", routes_overflowed(service->routes));
	number(out, "detector_late", watch.late);
	number(out, "live_dropped", own[SERVICE_LIVE_DROPPED]);
	number(out, "live_refused", own[SERVICE_LIVE_REFUSED]);
	text_puts(out, "}");
}

static void
store(const struct service *service, const struct store_stats *stats, struct text *out)
{
	text_puts(out, ",\"store\":{\"path\":");
	text_json_or_null(out, service->config->store.path);
	number(out, "bytes", stats->file_bytes);
	number(out, "max_bytes", service->config->store.max_bytes);
	number(out, "rollup_bytes", stats->rollup_bytes);
	number(out, "max_age_hours", service->config->store.max_age_hours);
	number(out, "queued", stats->queued);
	number(out, "queue_max", STORE_QUEUE_MAX);
	number(out, "exchanges_written", stats->exchanges_written);
	number(out, "evicted",
	       stats->evicted_bytes + stats->evicted_age + stats->evicted_retention);
	text_printf(out, ",\"writable\":%s}", stats->writable ? "true" : "false");
}

void
status_write(const struct service *service, uint64_t now_ns, struct text *out)
{
	struct store_stats stored;
	struct correlator_stats joined;
	char now[32];
	store_stats(service->store, &stored);
	correlator_stats(service->correlator, &joined);
	clock_format(clock_wall_ns(), now, sizeof(now));
	text_printf(out, "{\"version\":\"%s\",\"now\":\"%s\"", TAILRACE_VERSION, now);
	number(out, "config", service->config->serial);
	processes(service, now_ns, out);
	lately(service, now_ns, out);
	exchanges(service, out);
	join(&joined, out);
	loop_lag(service, out);
	drops(service, &stored, &joined, out);
	store(service, &stored, out);
	text_printf(out, ",\"live\":{\"subscribers\":%zu,\"max\":%d}",
	            live_subscribers(service->live), LIVE_SUBSCRIBERS_MAX);
	text_puts(out, ",\"hooks\":");
	hooks_write(service->hooks, now_ns, out);
	text_puts(out, "}");
}

/* --- endpoints -------------------------------------------------------------------------------- */

void
status_request(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct text body = {0};
	(void)rest;
	status_write(service, clock_now_ns(), &body);
	reply_json(request, 200, &body);
	text_free(&body);
}

void
status_config_request(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct text body = {0};
	json_t *shown = config_show(service->config);
	char *text =
	    shown != NULL ? json_dumps(shown, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
	(void)rest;
	text_printf(&body, "{\"serial\":%u,\"config\":", service->config->serial);
	if (text != NULL)
		text_puts(&body, text);
	else
		body.failed = true;
	text_puts(&body, "}");
	free(text);
	json_decref(shown);
	reply_json(request, 200, &body);
	text_free(&body);
}
