/* The collector process: rings and profiles in, joins out to store and control API. In no request's
 * way: it may be killed and restarted while traffic flows. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <event2/event.h>
#include "base/clock.h"
#include "collector/aggregate.h"
#include "collector/api.h"
#include "collector/control.h"
#include "collector/deliver.h"
#include "collector/incident.h"
#include "collector/intake.h"
#include "collector/query.h"
#include "collector/service.h"
#include "collector/spans.h"
#include "collector/store.h"
#include "collector/wants.h"
#include "collector/watch.h"
#include "handover.h"
#include "model/retention.h"
#include "proxy/ring.h"

#define ORPHANED_MS 4000 /* after the supervisor's death, for the workers' last records */
#define SECOND_TICKS (1000 / INTAKE_POLL_MS)

struct collector {
	struct service service;
	struct control *control;
	struct event_base *base;
	struct event *poll, *life, *term;
	uint64_t ticks;
	uint64_t orphaned_ns; /* the supervisor is gone since; 0 = it lives */
	unsigned terms;       /* SIGTERMs received */
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

/* Once the supervisor is gone the workers drain for a moment: their last records are waited for. */
static bool
orphan_ends(const struct collector *c, uint64_t now_ns)
{
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
	bool more = intake_poll(c->service.intake, &c->service, now_ns);
	if (++c->ticks % SECOND_TICKS == 0) {
		aggregate_flush(c->service.aggregate);
		spans_tick(c->service.spans, clock_wall_ns());
		watch_tick(c->service.watch);
		incidents_tick(c->service.incidents);
	}
	control_tick(c->control, now_ns);
	if (orphan_ends(c, now_ns))
		event_base_loopbreak(c->base);
	struct timeval next = {.tv_usec = more ? 0 : INTAKE_POLL_MS * 1000};
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

static void
on_life(evutil_socket_t fd, short events, void *arg)
{
	struct collector *c = arg;
	char byte;
	(void)events;
	ssize_t got = read(fd, &byte, 1);
	if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	event_del(c->life);
	c->orphaned_ns = clock_now_ns();
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
	struct spans_options options = {.span_ms = SPANS_SPAN_MS,
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
	service->intake = intake_new(rings);
	service->store = store_start(&store);
	service->aggregate = aggregate_new(config, service->routes, service->store);
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
	intake_free(service->intake);
	stacks_free(service->stacks);
	routes_free(service->routes);
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
	c->base = event_base_new_with_config(options);
	event_config_free(options);
	if (c->base == NULL)
		fatal("event base: cannot be made");
	struct timeval now = {0};
	c->poll = event_made(event_new(c->base, -1, 0, on_poll, c));
	c->life =
	    event_made(event_new(c->base, handover->life_fd, EV_READ | EV_PERSIST, on_life, c));
	c->term = event_made(evsignal_new(c->base, SIGTERM, on_term, c));
	event_add(c->poll, &now);
	event_add(c->life, NULL);
	event_add(c->term, NULL);
}

static void
signals_ignore(void)
{
	static const int ignored[] = {SIGINT, SIGQUIT, SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2};
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
	control_close_listeners(c->control);
	while (intake_poll(service->intake, service, clock_now_ns()))
		;
	correlator_finish(service->correlator, clock_now_ns());
	aggregate_flush(service->aggregate);
	spans_finish(service->spans, clock_wall_ns());
	watch_finish(service->watch);
	query_stop(service->query);
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
	c->service.config = config;
	c->service.board = board_attach(handover->board_fd);
	if (c->service.board == NULL)
		fatal("board: not of this build");
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
	event_base_free(c->base);
	board_detach(c->service.board);
	free(c);
	log_info("stopped");
	return 0;
}
