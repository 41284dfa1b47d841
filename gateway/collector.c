/* The collector process: rings and profiles in, joins out to store and control API. In no request's
 * way: it may be killed and restarted while traffic flows. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <event2/event.h>
#include "base/clock.h"
#include "collector/access_log.h"
#include "collector/aggregate.h"
#include "collector/api.h"
#include "collector/control.h"
#include "collector/deliver.h"
#include "collector/incident.h"
#include "collector/deep_orders.h"
#include "collector/hooks.h"
#include "collector/intake.h"
#include "collector/live.h"
#include "collector/query.h"
#include "collector/service.h"
#include "collector/spans.h"
#include "collector/status.h"
#include "collector/store.h"
#include "collector/wants.h"
#include "collector/watch.h"
#include "handover.h"
#include "model/json_arena.h"
#include "model/retention.h"
#include "orders.h"
#include "process.h"
#include "proxy/ring.h"

#define ORPHANED_MS 4000 /* after the supervisor's death, for the workers' last records */

struct collector {
	struct service service;
	struct control *control;
	struct event_base *base;
	struct event *poll, *life, *term, *retire;
	int life_fd;
	uint64_t turn_ns,
	    second_ns;        /* when the last turn, and the last one of each second, began */
	uint64_t orphaned_ns; /* the supervisor is gone since; 0 = it lives */
	struct order held;    /* read too early */
	bool has_held;
	bool retired;     /* a collector of another build has taken over */
	unsigned terms;   /* SIGTERMs received */
	unsigned reopens; /* of the logs, that were answered */
};

static void
set_state(struct collector *c, enum board_state state)
{
	atomic_store_explicit(&c->service.board->collector.state, state, memory_order_release);
}

static bool
any_worker_lives(const struct board *board)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++) {
		const struct board_process *worker = &board->workers[i];
		int32_t pid = atomic_load_explicit(&worker->pid, memory_order_relaxed);
		uint32_t state = atomic_load_explicit(&worker->state, memory_order_acquire);
		/* One that said it stopped may stay a zombie for long: nobody need reap orphans. */
		if (pid > 0 && state != BOARD_STOPPED && kill(pid, 0) == 0)
			return true;
	}
	return false;
}

static void
access_log_make(struct service *service)
{
	const char *path = service->config->log.access.path;
	if (path == NULL)
		return;
	service->access_log = access_log_start(path, service->config->log.access.format);
	if (service->access_log == NULL)
		log_error("access log %s: %s", path, strerror(errno));
}

/* --- orders of the supervisor ------------------------------------------------------------ */

/* What holds a configuration is told of the new one: from here on nothing may use the old one but
 * records of its generation. */
static void
put_in_force(struct collector *c, const struct config *config, const struct order *order)
{
	struct service *service = &c->service;
	const struct config *old = service->config;
	bool log_moved = config->log.access.format != old->log.access.format ||
	                 strcmp(config->log.access.path != NULL ? config->log.access.path : "",
	                        old->log.access.path != NULL ? old->log.access.path : "") != 0;
	service->config = config;
	configs_pin(service->configs, config);
	log_init("collector", config->log.level);
	process_open_log(config);
	control_reconfigure(c->control, config, order->fds, order->fd_count);
	correlator_configure(service->correlator, config->profile.join_timeout_ms * NS_PER_MS,
	                     !config_same_servers(config, old));
	store_set_limits(service->store, config->store.max_bytes, config->store.max_age_hours);
	if (log_moved) {
		access_log_stop(service->access_log);
		service->access_log = NULL;
		access_log_make(service);
	}
	log_info("configuration %u in force", config->serial);
}

static void
obey(struct collector *c, const struct order *order)
{
	const struct config *config;
	if (order->kind == ORDER_CONFIG && order->fd_count == 1) {
		struct config *added = process_read_config(order->fds[0], order->serial);
		if (added != NULL)
			configs_add(c->service.configs, added);
		return;
	}
	config = configs_of(c->service.configs, order->serial);
	if (order->kind == ORDER_IN_FORCE && config->serial == order->serial) {
		put_in_force(c, config, order);
		return;
	}
	for (uint32_t i = 0; i < order->fd_count; i++)
		close(order->fds[i]);
}

static void
on_life(evutil_socket_t fd, short events, void *arg)
{
	struct collector *c = arg;
	struct order order;
	int got;
	(void)events;
	if (c->has_held) {
		c->has_held = false;
		obey(c, &c->held);
	}
	while ((got = order_receive(fd, &order)) == 1)
		obey(c, &order);
	if (got == 0)
		return;
	event_del(c->life);
	c->orphaned_ns = clock_now_ns();
}

/* A record names a configuration that is not known: it was sent before the worker was started. An
 * order of another kind waits for the loop: it must not change what this turn works with. */
static void
more_configs(void *arg)
{
	struct collector *c = arg;
	struct order order;
	while (!c->has_held && order_receive(c->life_fd, &order) == 1) {
		if (order.kind == ORDER_CONFIG)
			obey(c, &order);
		else {
			c->held = order;
			c->has_held = true;
		}
	}
}

/* --- turns ------------------------------------------------------------------------------- */

/* Once the supervisor is gone the workers drain for a moment: their last records are waited for. */
static bool
orphan_ends(const struct collector *c, uint64_t now_ns)
{
	if (c->retired)
		return !any_worker_lives(c->service.board);
	return c->orphaned_ns != 0 && (now_ns - c->orphaned_ns > ORPHANED_MS * NS_PER_MS ||
	                               !any_worker_lives(c->service.board));
}

static void
on_poll(evutil_socket_t fd, short events, void *arg)
{
	struct collector *c = arg;
	uint64_t now_ns = clock_now_ns();
	(void)fd;
	(void)events;
	atomic_store_explicit(&c->service.board->collector.heartbeat_ns, now_ns,
	                      memory_order_relaxed);
	if (c->reopens != log_reopens()) {
		c->reopens = log_reopens();
		access_log_reopen(c->service.access_log);
	}
	if (c->has_held)
		on_life(c->life_fd, EV_READ, c);
	uint64_t records = c->service.counters[SERVICE_RECORDS_READ];
	bool more = intake_poll(c->service.intake, &c->service, now_ns);
	records = c->service.counters[SERVICE_RECORDS_READ] - records;
	if (watch_go_on(c->service.watch))
		more = true;
	spans_tick(c->service.spans, clock_wall_ns());
	if (now_ns - c->second_ns >= NS_PER_S) {
		c->second_ns = now_ns;
		aggregate_flush(c->service.aggregate);
		watch_tick(c->service.watch);
		incidents_tick(c->service.incidents);
	}
	/* Not the turn's beginning: what the turn sent was sent after it. */
	live_tick(c->service.live, clock_now_ns());
	control_tick(c->control, now_ns);
	if (orphan_ends(c, now_ns))
		event_base_loopbreak(c->base);
	unsigned pause_us = intake_pause_us(records, (now_ns - c->turn_ns) / 1000);
	struct timeval next = {.tv_usec = more ? 0 : pause_us};
	c->turn_ns = now_ns;
	event_add(c->poll, &next);
}

static void
on_term(evutil_socket_t fd, short events, void *arg)
{
	struct collector *c = arg;
	(void)fd;
	(void)events;
	c->terms++;
	event_base_loopbreak(c->base);
}

/* USR2: only the rings of our own workers are still ours. */
static void
on_retire(evutil_socket_t fd, short events, void *arg)
{
	struct collector *c = arg;
	(void)fd;
	(void)events;
	if (!c->retired)
		log_info("retired: serving the last records of our workers");
	c->retired = true;
	control_close_listeners(c->control);
}

/* --- beginning and end ------------------------------------------------------------------ */

static void
correlator_make(struct service *service)
{
	struct correlator_options options = {
	    .join_timeout_ns = service->config->profile.join_timeout_ms * NS_PER_MS,
	    .exchanges_max = CORRELATOR_EXCHANGES_MAX,
	    .profiles_max = CORRELATOR_PROFILES_MAX,
	    .profile_bytes_max = CORRELATOR_PROFILE_BYTES_MAX,
	    .done_max = CORRELATOR_DONE_MAX,
	    .events = {.arg = service,
	               .exchange = service_on_exchange,
	               .late = service_on_late,
	               .tail = service_on_tail},
	};
	if (clock_identity(options.boot_id, &options.time_namespace) != 0)
		options.boot_id[0] = '\0';
	service->correlator = correlator_new(&options);
}

static void
spans_make(struct service *service)
{
	const struct config *config = service->config;
	uint32_t window_ms = config->alerts.window_ms;
	struct spans_options options = {.span_ms =
	                                    window_ms < SPANS_SPAN_MS ? window_ms : SPANS_SPAN_MS,
	                                .join_timeout_ms = config->profile.join_timeout_ms,
	                                .bytes_max = SPANS_BYTES_MAX,
	                                .rows_max = ROLLUP_ROWS_MAX,
	                                .stacks_max = FLAME_STACKS_MAX,
	                                .frames_max = FLAME_FRAMES_MAX};
	service->spans = spans_new(&options, service->routes, service->store);
	service->retention =
	    retention_new(ROUTES_MAX + 1, config->store.keep_slowest, config->store.keep_random,
	                  clock_now_ns() ^ clock_wall_ns());
	service->wants = wants_new();
}

static void
on_publish(void *arg, const json_t *payload, bool minor, char *const *receivers)
{
	struct service *service = arg;
	deliver_publish(service->deliver, payload, minor, receivers);
}

static void
on_repeat(void *arg, const json_t *payload, char *const *receivers)
{
	struct service *service = arg;
	deliver_repeat(service->deliver, payload, receivers);
}

/* The detector, what it found before, and who is told. The store must be open: what an earlier
 * life left is read here. */
static void
alerts_make(struct service *service)
{
	const char *path = service->config->store.path;
	struct incident_sink sink = {.arg = service, .publish = on_publish, .repeat = on_repeat};
	service->incidents = incidents_new(service, &sink);
	struct watch_events events = {
	    .arg = service->incidents, .detected = incidents_detected, .ruled = incidents_ruled};
	service->watch = watch_new(service->config, service->routes, service->store, &events);
	store_sync(service->store, STORE_RETRY_MS);
	deliver_start(service->deliver, service->store, path);
	watch_load(service->watch, path);
	incidents_load(service->incidents, path);
}

static void
service_make(struct service *service, const struct handover *handover)
{
	const struct config *config = service->config;
	struct store_options store = {.path = config->store.path,
	                              .max_bytes = config->store.max_bytes,
	                              .max_age_hours = config->store.max_age_hours,
	                              .queue_max = STORE_QUEUE_MAX,
	                              .queue_bytes_max = STORE_QUEUE_BYTES_MAX};
	struct stacks_limits limits = {STACKS_INSTANCES_MAX, STACKS_MAX, STACKS_BYTES_MAX};
	void *rings = board_rings_attach(handover->rings_fd, RING_BYTES);
	if (rings == NULL)
		fatal("rings: %s", strerror(errno));
	service->routes = routes_new(ROUTES_MAX);
	service->stacks = stacks_new(&limits);
	service->deep_log = deep_log_new();
	service->hooks = hooks_new();
	service->status = status_new(clock_now_ns());
	service->live = live_new(service->counters);
	service->intake = intake_new(rings);
	access_log_make(service);
	if (config->log.access.path != NULL && service->access_log == NULL)
		exit(1);
	service->store = store_start(&store);
	service->aggregate = aggregate_new(service->routes, service->store);
	spans_make(service);
	correlator_make(service);
	alerts_make(service);
}

static void
service_free(struct service *service)
{
	correlator_free(service->correlator);
	aggregate_free(service->aggregate);
	spans_free(service->spans);
	retention_free(service->retention);
	wants_free(service->wants);
	deliver_stop(service->deliver);
	store_stop(service->store);
	incidents_free(service->incidents);
	watch_free(service->watch);
	deliver_free(service->deliver);
	access_log_stop(service->access_log);
	intake_free(service->intake);
	deep_log_free(service->deep_log);
	live_free(service->live);
	hooks_free(service->hooks);
	status_free(service->status);
	stacks_free(service->stacks);
	routes_free(service->routes);
	configs_free(service->configs);
	text_free(&service->rendered);
}

static struct event *
event_made(struct event *event)
{
	if (event == NULL)
		fatal("event: cannot be made");
	return event;
}

static void
loop_make(struct collector *c, const struct handover *handover)
{
	struct event_config *options = event_config_new();
	event_config_set_flag(options, EVENT_BASE_FLAG_NOLOCK);
	/* Else pauses are told by a clock that moves every 4 ms. */
	event_config_set_flag(options, EVENT_BASE_FLAG_PRECISE_TIMER);
	c->base = event_base_new_with_config(options);
	event_config_free(options);
	if (c->base == NULL)
		fatal("event base: cannot be made");
	struct timeval now = {0};
	c->poll = event_made(event_new(c->base, -1, 0, on_poll, c));
	c->life =
	    event_made(event_new(c->base, handover->life_fd, EV_READ | EV_PERSIST, on_life, c));
	c->term = event_made(evsignal_new(c->base, SIGTERM, on_term, c));
	c->retire = event_made(evsignal_new(c->base, SIGUSR2, on_retire, c));
	event_add(c->poll, &now);
	event_add(c->life, NULL);
	event_add(c->term, NULL);
	event_add(c->retire, NULL);
}

static void
signals_ignore(void)
{
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE};
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
}

static void
ready(const struct handover *handover)
{
	ssize_t written = write(handover->ready_fd, "R", 1);
	if (written != 1)
		log_warn("the supervisor cannot be told: %s", strerror(errno));
	close(handover->ready_fd);
}

/* Everything the workers wrote is read, whoever still waits is given up, and all of it is
 * committed. */
static void
finish(struct collector *c)
{
	struct service *service = &c->service;
	service->stopping = true;
	/* Workers may live on: what they write from here on is for the next collector. */
	event_del(c->poll);
	control_close_listeners(c->control);
	while (intake_poll(service->intake, service, clock_now_ns()))
		;
	correlator_finish(service->correlator, clock_now_ns());
	aggregate_flush(service->aggregate);
	spans_finish(service->spans, clock_wall_ns());
	watch_finish(service->watch);
	query_stop(service->query);
	live_close(service->live);
	/* Answers that were just given leave with the connections' last turn. */
	event_base_loop(c->base, EVLOOP_NONBLOCK);
}

int
collector_main(const struct handover *handover, const struct config *config)
{
	struct collector *c = calloc(1, sizeof(*c));
	if (c == NULL)
		fatal("no memory");
	signals_ignore();
	json_arena_install();
	c->service.config = config;
	c->life_fd = handover->life_fd;
	c->service.board = board_attach(handover->board_fd);
	if (c->service.board == NULL)
		fatal("board: not of this build");
	c->service.configs = configs_new(config, c->service.board, more_configs, c);
	c->control = control_new(config, &c->service);
	c->service.deliver = deliver_new(config);
	store_prepare(config->store.path, config->process.uid, config->process.gid);
	process_drop_rights(config);
	loop_make(c, handover);
	service_make(&c->service, handover);
	c->service.query =
	    query_start(c->base, config->store.path, c->service.store, api_answered, NULL);
	control_start(c->control, c->base, handover->listener_fds, handover->listener_count);
	set_state(c, BOARD_RUNNING);
	ready(handover);
	log_info("serving %zu control listeners, store %s", config->control.listener_count,
	         config->store.path);
	event_base_dispatch(c->base);
	set_state(c, BOARD_DRAINING);
	finish(c);
	control_free(c->control);
	service_free(&c->service);
	event_free(c->poll);
	event_free(c->life);
	event_free(c->term);
	event_free(c->retire);
	event_base_free(c->base);
	board_detach(c->service.board);
	free(c);
	log_info("stopped");
	return 0;
}
