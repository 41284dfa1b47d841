/* /metrics. */
#include <stdio.h>
#include <string.h>
#include <event2/http.h>
#include "collector/access_log.h"
#include "collector/aggregate.h"
#include "collector/alert_metrics.h"
#include "collector/intake.h"
#include "collector/live.h"
#include "collector/metrics.h"
#include "collector/metrics_text.h"
#include "collector/metrics_upstream.h"
#include "collector/query.h"
#include "collector/reply.h"
#include "collector/spans.h"
#include "collector/store.h"
#include "model/close_reason.h"

static uint64_t
load(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static void
one(struct metrics *out, const char *metric, const char *type, const char *help, uint64_t value)
{
	metrics_head(out, metric, type, help);
	metrics_sample(out, metric, "", value);
}

static void
worker_counters(const struct board *board, struct metrics *out)
{
	static const struct {
		const char *metric, *labels, *help;
	} counters[] = {
#define COUNTER(ID, metric, labels, help) {metric, labels, help},
#include "base/counters.def"
#undef COUNTER
	};
	for (size_t i = 0; i < COUNTER_COUNT; i++) {
		if (i == 0 || strcmp(counters[i].metric, counters[i - 1].metric) != 0)
			metrics_head(out, counters[i].metric, "counter", counters[i].help);
		metrics_sample(out, counters[i].metric, counters[i].labels,
		               board_threads_sum(board, offsetof(struct board_thread, counters) +
		                                            i * sizeof(_Atomic uint64_t)));
	}
}

static void
reasons(const struct board *board, struct metrics *out)
{
	char label[128];
	metrics_head(out, "tailrace_closes_total", "counter",
	             "Requests refused or cut off and connections closed, by reason.");
	for (unsigned i = 0; i < CLOSE_REASON_COUNT; i++) {
		metrics_label(label, sizeof(label), "reason", close_reason_name(i));
		metrics_sample(out, "tailrace_closes_total", label,
		               board_threads_sum(board, offsetof(struct board_thread, reasons) +
		                                            i * sizeof(_Atomic uint64_t)));
	}
}

static void
worker_gauges(const struct board *board, struct metrics *out)
{
	one(out, "tailrace_requests_in_flight", "gauge", "Exchanges begun and not ended.",
	    board_threads_sum(board, offsetof(struct board_thread, in_flight)));
	one(out, "tailrace_client_connections", "gauge", "Client connections open.",
	    board_threads_sum(board, offsetof(struct board_thread, client_connections)));
	one(out, "tailrace_tls_handshakes_in_flight", "gauge",
	    "TLS handshakes of clients under way.",
	    board_threads_sum(board, offsetof(struct board_thread, tls_handshakes)));
}

/* Bound i is 2^(10 + 2 i) ns, as board.h counts them. */
static void
loop_lag(const struct board *board, struct metrics *out)
{
	static const char *const bounds[] = {"1.024e-06",   "4.096e-06",   "1.6384e-05",
	                                     "6.5536e-05",  "0.000262144", "0.001048576",
	                                     "0.004194304", "0.016777216", "0.067108864",
	                                     "0.268435456", "1.073741824", "+Inf"};
	static const char metric[] = "tailrace_loop_lag_seconds";
	_Static_assert(sizeof(bounds) / sizeof(bounds[0]) == BOARD_LAG_BUCKETS, "a bound each");
	uint64_t count = 0;
	metrics_head(out, metric, "histogram",
	             "How long events waited for the others of their turn in a worker's loop.");
	for (size_t i = 0; i < BOARD_LAG_BUCKETS; i++) {
		count += board_threads_sum(board, offsetof(struct board_thread, loop_lag_buckets) +
		                                      i * sizeof(_Atomic uint64_t));
		metrics_bucket(out, metric, "", bounds[i], count, NULL);
	}
	metrics_seconds(out, "tailrace_loop_lag_seconds_sum", "",
	                board_threads_sum(board, offsetof(struct board_thread, loop_lag_sum_ns)));
	metrics_sample(out, "tailrace_loop_lag_seconds_count", "", count);
	metrics_head(out, "tailrace_loop_lag_max_seconds", "gauge",
	             "The latest a worker's event loop has been.");
	metrics_seconds(out, "tailrace_loop_lag_max_seconds", "", board_loop_lag_max_ns(board));
}

static void
processes(const struct board *board, struct metrics *out)
{
	one(out, "tailrace_exchanges_lost_total", "counter",
	    "Exchanges in flight in workers that died.", load(&board->exchanges_lost));
	metrics_head(out, "tailrace_restarts_total", "counter",
	             "Processes started again after they died.");
	metrics_sample(out, "tailrace_restarts_total", "process=\"worker\"",
	               load(&board->worker_restarts));
	metrics_sample(out, "tailrace_restarts_total", "process=\"collector\"",
	               load(&board->collector_restarts));
	metrics_head(out, "tailrace_reloads_total", "counter",
	             "Reloads: the new configuration came into force, or the old one stayed.");
	metrics_sample(out, "tailrace_reloads_total", "result=\"done\"", load(&board->reloads));
	metrics_sample(out, "tailrace_reloads_total", "result=\"refused\"",
	               load(&board->reloads_refused));
}

/* Both families in turn: samples of one stand together. */
static void
listen_queues(const struct board *board, struct metrics *out)
{
	static const struct {
		const char *metric, *help;
	} families[] = {{"tailrace_listen_queue_connections",
	                 "Connections that wait in the kernel to be accepted, once a second."},
	                {"tailrace_listen_queue_limit", "How many may wait there."}};
	uint32_t count = atomic_load_explicit(&board->listener_count, memory_order_acquire);
	char label[BOARD_ADDRESS_SIZE + 32];
	for (size_t f = 0; f < 2; f++) {
		metrics_head(out, families[f].metric, "gauge", families[f].help);
		for (uint32_t i = 0; i < count && i < BOARD_LISTENERS_MAX; i++) {
			const struct board_listener *listener = &board->listeners[i];
			const _Atomic uint32_t *value =
			    f == 0 ? &listener->depth : &listener->limit;
			metrics_label(label, sizeof(label), "listener", listener->address);
			metrics_sample(out, families[f].metric, label,
			               atomic_load_explicit(value, memory_order_relaxed));
		}
	}
}

static void
own_counters(const struct service *service, struct metrics *out)
{
	static const struct {
		const char *metric, *labels, *help;
	} counters[] = {
#define SERVICE_COUNTER(ID, metric, labels, help) {metric, labels, help},
#include "collector/service_counters.def"
#undef SERVICE_COUNTER
	};
	for (size_t i = 0; i < SERVICE_COUNTER_COUNT; i++) {
		if (i == 0 || strcmp(counters[i].metric, counters[i - 1].metric) != 0)
			metrics_head(out, counters[i].metric, "counter", counters[i].help);
		metrics_sample(out, counters[i].metric, counters[i].labels, service->counters[i]);
	}
	one(out, "tailrace_records_dropped_total", "counter",
	    "Exchange records dropped because a ring was full.", intake_dropped(service->intake));
	one(out, "tailrace_live_subscribers", "gauge", "Readers of /api/v1/live.",
	    live_subscribers(service->live));
	one(out, "tailrace_queries_refused_total", "counter",
	    "API queries turned away because too many waited.", query_refused(service->query));
	one(out, "tailrace_routes_overflow_total", "counter",
	    "Exchanges shown under other because the table of routes was full.",
	    routes_overflowed(service->routes));
}

static void
join(const struct service *service, struct metrics *out)
{
	struct correlator_stats stats;
	char label[64];
	correlator_stats(service->correlator, &stats);
	metrics_head(out, "tailrace_profiles_total", "counter", "Profiles by what became of them.");
	for (unsigned i = 0; i < PROFILE_OUTCOME_COUNT; i++) {
		metrics_label(label, sizeof(label), "outcome", profile_outcome_name(i));
		metrics_sample(out, "tailrace_profiles_total", label, stats.outcomes[i]);
	}
	metrics_head(out, "tailrace_join_displaced_total", "counter",
	             "Entries of the join's tables ended early because a table was full.");
	metrics_sample(out, "tailrace_join_displaced_total", "table=\"exchanges\"",
	               stats.exchanges_displaced);
	metrics_sample(out, "tailrace_join_displaced_total", "table=\"ended\"",
	               stats.done_displaced);
	metrics_head(out, "tailrace_join_waiting", "gauge", "Entries that wait in the join.");
	metrics_sample(out, "tailrace_join_waiting", "side=\"exchange\"", stats.exchanges_waiting);
	metrics_sample(out, "tailrace_join_waiting", "side=\"open_exchange\"",
	               stats.exchanges_open);
	metrics_sample(out, "tailrace_join_waiting", "side=\"profile\"", stats.profiles_waiting);
	one(out, "tailrace_records_repeated_total", "counter",
	    "Records of an attempt that had ended already.", stats.records_repeated);
	one(out, "tailrace_hook_instances", "gauge", "Hook instances whose stacks are known.",
	    stacks_instances(service->stacks));
	one(out, "tailrace_hook_stacks", "gauge", "Stacks known.", stacks_count(service->stacks));
	one(out, "tailrace_hook_instances_forgotten_total", "counter",
	    "Instances whose stacks were forgotten for want of room.",
	    stacks_forgotten(service->stacks));
}

static void
rollups(const struct service *service, const struct store_stats *stats, struct metrics *out)
{
	struct spans_stats spans;
	spans_stats(service->spans, &spans);
	one(out, "tailrace_rollup_windows", "gauge", "Windows of routes in memory.",
	    spans.open + spans.packed);
	one(out, "tailrace_rollup_memory_bytes", "gauge", "Memory of closed windows.",
	    spans.packed_bytes);
	one(out, "tailrace_rollup_stacks", "gauge", "Stacks that rows name.", spans.stacks);
	metrics_head(out, "tailrace_rollup_rows_folded_total", "counter",
	             "Rows added to their parent frame: too many of a window, or of a route.");
	metrics_sample(out, "tailrace_rollup_rows_folded_total", "bound=\"window\"",
	               spans.rows_folded_window);
	metrics_sample(out, "tailrace_rollup_rows_folded_total", "bound=\"route\"",
	               spans.rows_folded_route);
	metrics_sample(out, "tailrace_rollup_rows_folded_total", "bound=\"stacks\"",
	               spans.stacks_overflowed);
	one(out, "tailrace_rollup_reopened_total", "counter",
	    "Exchanges that came after their window was final.", spans.reopened);
	one(out, "tailrace_rollup_left_early_total", "counter",
	    "Windows that left memory before their time: too many bytes.", spans.left_early);
	one(out, "tailrace_rollup_store_bytes", "gauge", "Rollups in the store's file.",
	    stats->rollup_bytes);
	one(out, "tailrace_rollup_aged_early_total", "counter",
	    "Spans made coarser before their time: the file was too large.", stats->aged_early);
	one(out, "tailrace_rollup_evicted_total", "counter",
	    "Spans deleted: over store.max_bytes, or over store.max_age_hours.",
	    stats->evicted_rollups);
	one(out, "tailrace_rollup_damaged_total", "counter",
	    "Windows of the store that could not be read.", stats->rollups_damaged);
}

static void
store(const struct service *service, struct metrics *out)
{
	struct store_stats stats;
	store_stats(service->store, &stats);
	one(out, "tailrace_store_writable", "gauge",
	    "1 where the store's file is open and the last transaction was committed.",
	    stats.writable);
	one(out, "tailrace_store_exchanges_written_total", "counter", "Exchanges committed.",
	    stats.exchanges_written);
	metrics_head(out, "tailrace_store_dropped_total", "counter",
	             "Items not written: the queue was full, or the file could not be written.");
	metrics_sample(out, "tailrace_store_dropped_total", "reason=\"full\"", stats.dropped_full);
	metrics_sample(out, "tailrace_store_dropped_total", "reason=\"error\"",
	               stats.dropped_error);
	metrics_head(out, "tailrace_store_evicted_total", "counter",
	             "Exchanges evicted: over store.max_bytes, over store.max_age_hours, or others "
	             "of their window took their place.");
	metrics_sample(out, "tailrace_store_evicted_total", "reason=\"bytes\"",
	               stats.evicted_bytes);
	metrics_sample(out, "tailrace_store_evicted_total", "reason=\"age\"", stats.evicted_age);
	metrics_sample(out, "tailrace_store_evicted_total", "reason=\"retention\"",
	               stats.evicted_retention);
	one(out, "tailrace_store_pins_refused_total", "counter",
	    "Exchanges that something cites and that could not be pinned: too many are.",
	    stats.pins_refused);
	rollups(service, &stats, out);
	one(out, "tailrace_store_damaged_total", "counter",
	    "Times the store's file was found damaged, and left alone.", stats.damaged);
	one(out, "tailrace_store_file_bytes", "gauge", "Size of the store's file without its WAL.",
	    stats.file_bytes);
	one(out, "tailrace_store_queued", "gauge", "Items that wait to be written.", stats.queued);
}

static void
access_log(const struct service *service, struct metrics *out)
{
	struct access_log_stats stats;
	access_log_stats(service->access_log, &stats);
	one(out, "tailrace_access_log_lines_total", "counter", "Lines written to the access log.",
	    stats.written);
	metrics_head(out, "tailrace_access_log_dropped_total", "counter",
	             "Lines lost: queue = the disk was too slow, file = it could not be written.");
	metrics_sample(out, "tailrace_access_log_dropped_total", "reason=\"queue\"",
	               stats.dropped_full);
	metrics_sample(out, "tailrace_access_log_dropped_total", "reason=\"file\"",
	               stats.dropped_file);
}

void
metrics_write(const struct service *service, struct metrics *out)
{
	char label[64];
	metrics_head(out, "tailrace_build_info", "info", "The running build; always 1.");
	metrics_label(label, sizeof(label), "version", TAILRACE_VERSION);
	metrics_sample(out, "tailrace_build_info", label, 1);
	worker_counters(service->board, out);
	reasons(service->board, out);
	worker_gauges(service->board, out);
	metrics_upstreams(service, out);
	loop_lag(service->board, out);
	listen_queues(service->board, out);
	processes(service->board, out);
	own_counters(service, out);
	join(service, out);
	store(service, out);
	alert_metrics(service, out);
	access_log(service, out);
	aggregate_metrics(service->aggregate, out);
	metrics_end(out);
}

/* Weights of Accept do not matter: who can read OpenMetrics names it, and it says more. */
static bool
wants_open(struct evhttp_request *request)
{
	const char *accept =
	    evhttp_find_header(evhttp_request_get_input_headers(request), "Accept");
	return accept != NULL && strcasestr(accept, "application/openmetrics-text") != NULL;
}

void
metrics_request(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct metrics body = {.open = wants_open(request)};
	(void)rest;
	metrics_write(service, &body);
	reply_text(request,
	           body.open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
	                     : "text/plain; version=0.0.4; charset=utf-8",
	           &body.text);
	text_free(&body.text);
}
