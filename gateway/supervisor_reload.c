/* Reload: a new configuration is tried by a new generation of workers on the same sockets; when it
 * serves, the old one drains. Whatever fails, the old one goes on. */
#include "supervisor_state.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "orders.h"
#include "process.h"
#include "supervisor_spawn.h"

/* --- configurations ---------------------------------------------------------------------- */

static bool
is_run_with(const struct supervisor *s, uint32_t serial)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++)
		if (s->workers[i].role != NULL && s->workers[i].handover.config_serial == serial)
			return true;
	return serial == s->config->serial;
}

static void
forget_oldest(struct supervisor *s)
{
	size_t i = 0;

	while (i + 1 < s->sealed_count && is_run_with(s, s->sealed[i].serial))
		i++;
	close(s->sealed[i].fd);
	s->sealed_count--;
	for (; i < s->sealed_count; i++)
		s->sealed[i] = s->sealed[i + 1];
}

uint32_t
supervisor_seal(struct supervisor *s, const char *bytes, size_t length)
{
	int fd = memfd_create("tailrace-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd == -1 || write(fd, bytes, length) != (ssize_t)length ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == -1)
		fatal("configuration cannot be handed over: %s", strerror(errno));
	if (s->sealed_count == CONFIGS_KEPT)
		forget_oldest(s);
	s->sealed[s->sealed_count++] = (struct sealed){++s->serial, fd};
	return s->serial;
}

static int
sealed_fd(const struct supervisor *s, uint32_t serial)
{
	for (size_t i = 0; i < s->sealed_count; i++)
		if (s->sealed[i].serial == serial)
			return s->sealed[i].fd;
	return -1;
}

/* --- children ---------------------------------------------------------------------------- */

static struct child
child_of(const struct supervisor *s, const char *role, uint32_t serial)
{
	return (struct child){.role = role,
	                      .board = s->board,
	                      .life_fd = -1,
	                      .ready_fd = -1,
	                      .handover = {.config_fd = sealed_fd(s, serial),
	                                   .config_serial = serial,
	                                   .board_fd = s->board_fd,
	                                   .rings_fd = s->rings_fd}};
}

struct child *
supervisor_new_worker(struct supervisor *s, const struct config *config, uint32_t serial)
{
	struct child *worker = s->workers;

	while (worker < s->workers + BOARD_GENERATIONS_MAX && worker->role != NULL)
		worker++;
	if (worker == s->workers + BOARD_GENERATIONS_MAX)
		return NULL;
	*worker = child_of(s, SPAWN_ROLE_WORKER, serial);
	worker->generations = &s->generation;
	worker->threads = config->worker.threads;
	worker->shutdown_timeout_ms = config->worker.shutdown_timeout_ms;
	supervisor_sockets_hand_over(&s->sockets, config, false, &worker->handover);
	return worker;
}

void
supervisor_init_collector(struct supervisor *s)
{
	s->collector = child_of(s, SPAWN_ROLE_COLLECTOR, s->config->serial);
	s->collector.place = &s->board->collector;
	supervisor_sockets_hand_over(&s->sockets, s->config, true, &s->collector.handover);
}

/* Where it cannot be told it is started anew, and then gets all there is. */
static void
tell_collector(struct supervisor *s, const struct order *order)
{
	if (s->collector.life_fd == -1 || order_send(s->collector.life_fd, order) == 0)
		return;
	log_error("collector cannot be told of configuration %u: %s", order->serial,
	          strerror(errno));
	if (s->collector.pid > 0)
		kill(s->collector.pid, SIGKILL);
}

static void
send_config(struct supervisor *s, const struct sealed *sealed)
{
	struct order order = {.kind = ORDER_CONFIG, .serial = sealed->serial, .fd_count = 1};

	order.fds[0] = sealed->fd;
	tell_collector(s, &order);
}

void
supervisor_start_collector(struct supervisor *s, uint64_t now_ns)
{
	if (!child_start(&s->collector, now_ns))
		return;
	for (size_t i = 0; i < s->sealed_count; i++)
		if (s->sealed[i].serial != s->collector.handover.config_serial)
			send_config(s, &s->sealed[i]);
}

void
supervisor_free_places(struct supervisor *s)
{
	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++) {
		struct child *worker = &s->workers[i];

		if (worker->role != NULL && worker->state == CHILD_ENDED && worker != s->current &&
		    worker != s->reload.worker)
			worker->role = NULL;
	}
}

/* --- reload ------------------------------------------------------------------------------ */

static void
notify_reloading(uint64_t now_ns)
{
	char text[64];

	snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%llu",
	         (unsigned long long)(now_ns / NS_PER_US));
	process_notify(text);
}

static void
refuse(struct supervisor *s, const char *why)
{
	log_error("reload refused, the old configuration stays: %s", why);
	board_add(&s->board->reloads_refused, 1);
	process_notify("READY=1\nSTATUS=serving; the last reload was refused");
}

/* --- the collector ------------------------------------------------------------------------ */

static json_t *
unsealed(const struct supervisor *s, uint32_t serial)
{
	int fd = sealed_fd(s, serial);
	json_error_t error;

	if (fd == -1 || lseek(fd, 0, SEEK_SET) == -1)
		return NULL;
	return json_loadfd(fd, 0, &error);
}

/* What a running collector can take over; all else is read where it starts. */
static const char *const taken_over[] = {"listeners", "upstreams", "routes", "limits", "trace",
                                         "overlays",  "control",   "worker", "log",    NULL};

/* Keys of control listeners are read with the rights of the start, which a running collector that
 * became another user has not any more. */
static bool
keys_out_of_reach(const struct config *config)
{
	bool any = false;

	for (size_t i = 0; i < config->control.listener_count; i++)
		any |= config->control.listeners[i].tls.on;
	return any && config->process.uid != (uid_t)-1;
}

static bool
is_same_to_collector(const struct supervisor *s, uint32_t old_serial, uint32_t new_serial)
{
	json_t *old = unsealed(s, old_serial), *new = unsealed(s, new_serial);
	bool same = old != NULL && new != NULL;

	for (const char *const *key = taken_over; *key != NULL; key++) {
		json_object_del(old, *key);
		json_object_del(new, *key);
	}
	same = same && json_equal(old, new);
	json_decref(old);
	json_decref(new);
	return same;
}

/* Hands the configuration in force to the collector, or, where it changes what only a start reads,
 * starts another one: in order, so that no record is lost and none counted twice. */
static void
renew_collector(struct supervisor *s, uint32_t old_serial, uint64_t now_ns)
{
	struct handover *handover = &s->collector.handover;
	struct order order = {.kind = ORDER_IN_FORCE, .serial = s->config->serial};

	handover->config_fd = sealed_fd(s, s->config->serial);
	handover->config_serial = s->config->serial;
	supervisor_sockets_hand_over(&s->sockets, s->config, true, handover);
	if (is_same_to_collector(s, old_serial, s->config->serial) &&
	    !keys_out_of_reach(s->config)) {
		order.fd_count = (uint32_t)handover->listener_count;
		memcpy(order.fds, handover->listener_fds, order.fd_count * sizeof(int));
		tell_collector(s, &order);
		return;
	}
	log_info("the collector starts anew with it: it cannot take over all of it");
	if (s->collector.state == CHILD_DOWN)
		return;
	s->collector.again = true;
	child_stop(&s->collector, now_ns, COLLECTOR_STOP_MS);
}

/* --- loading ------------------------------------------------------------------------------ */

static struct config *
load(struct supervisor *s, char **ret_bytes, size_t *ret_length)
{
	struct config_errors errs = {0};
	struct config *config = NULL;

	/* A name lost its address: those in force still serve, better the old configuration. */
	if (config_load_file(s->path, &config, ret_bytes, ret_length, &errs) == 0 &&
	    config_check_names(s->path, config, s->config, &errs) > 0) {
		free(*ret_bytes);
		config_free(config);
		config = NULL;
	}
	for (size_t i = 0; i < errs.count; i++)
		log_error("%s", errs.lines[i]);
	config_errors_free(&errs);
	return config;
}

/* What has to be ours before the configuration is tried. */
static int
open_needed(struct supervisor *s, const struct config *config)
{
	const char *path = config->store.path;

	if (process_make_folder(config, path, 0750) == -1)
		log_warn("%s: folder cannot be made: %s", path, strerror(errno));
	if (process_raise_limits(config) == -1 ||
	    supervisor_store_hold(path, &s->store, &s->reload.store) == -1)
		return -1;
	if (supervisor_sockets_open(&s->sockets, config) == 0)
		return 0;
	supervisor_store_release(&s->reload.store, &s->store);
	return -1;
}

void
reload_begin(struct supervisor *s, uint64_t now_ns)
{
	struct config *config;
	struct sealed *newest;
	size_t length;
	char *bytes;

	if (s->stop_ns != 0) {
		log_warn("HUP ignored: stopping");
		return;
	}
	if (s->reload.config != NULL || s->upgrade.check_pid > 0) {
		s->reload.again = true;
		return;
	}
	notify_reloading(now_ns);
	config = load(s, &bytes, &length);
	if (config == NULL) {
		refuse(s, "see above");
		return;
	}
	if (open_needed(s, config) == -1) {
		free(bytes);
		config_free(config);
		refuse(s, "see above");
		return;
	}
	config->serial = supervisor_seal(s, bytes, length);
	free(bytes);
	log_info("HUP: trying configuration %u", config->serial);
	s->reload.config = config;
	/* Before its worker can write a record. */
	newest = &s->sealed[s->sealed_count - 1];
	send_config(s, newest);
	reload_step(s, now_ns);
}

static void
end_trial(struct supervisor *s)
{
	s->reload.worker = NULL;
	s->reload.config = NULL;
}

static void
abort_reload(struct supervisor *s)
{
	config_free(s->reload.config);
	end_trial(s);
	supervisor_sockets_trim(&s->sockets, s->config);
	supervisor_store_release(&s->reload.store, &s->store);
	refuse(s, "the new worker did not come to serve");
}

static void
commit(struct supervisor *s, uint64_t now_ns)
{
	struct config *old = s->config;
	struct child *retiring = s->current;

	s->config = s->reload.config;
	s->current = s->reload.worker;
	supervisor_store_release(&s->store, &s->reload.store);
	s->store = s->reload.store;
	s->current->once = false;
	end_trial(s);
	log_init("supervisor", s->config->log.level);
	process_open_log(s->config);
	process_make_log_folder(s->config);
	renew_collector(s, old->serial, now_ns);
	supervisor_sockets_trim(&s->sockets, s->config);
	child_stop(retiring, now_ns, retiring->shutdown_timeout_ms + (uint64_t)WORKER_GRACE_MS);
	config_free(old);
	board_add(&s->board->reloads, 1);
	log_info("configuration %u in force; the worker before drains", s->config->serial);
	process_notify("READY=1\nSTATUS=serving");
}

/* Four generations are alive: the oldest that drains has had its time. */
static void
end_oldest(struct supervisor *s, uint64_t now_ns)
{
	struct child *oldest = NULL;

	for (size_t i = 0; i < BOARD_GENERATIONS_MAX; i++) {
		struct child *worker = &s->workers[i];

		if (worker->role != NULL && worker != s->current &&
		    (oldest == NULL || worker->handover.generation < oldest->handover.generation))
			oldest = worker;
	}
	if (oldest == NULL)
		return;
	if (oldest->hurried_ns != 0) {
		/* It takes two orders of one moment for one. */
		if (!oldest->hurried_twice && now_ns - oldest->hurried_ns > NS_PER_S / 2)
			child_stop(oldest, now_ns, NOW_STOP_MS);
		oldest->hurried_twice |= now_ns - oldest->hurried_ns > NS_PER_S / 2;
		return;
	}
	log_warn("worker %llu has to end now: %d generations are alive",
	         (unsigned long long)oldest->handover.generation, BOARD_GENERATIONS_MAX);
	oldest->hurried_ns = now_ns;
	child_stop(oldest, now_ns, NOW_STOP_MS);
}

void
reload_step(struct supervisor *s, uint64_t now_ns)
{
	struct reload *reload = &s->reload;

	if (reload->config == NULL) {
		if (reload->again && s->upgrade.check_pid == 0 && s->stop_ns == 0) {
			reload->again = false;
			reload_begin(s, now_ns);
		}
		return;
	}
	if (reload->worker == NULL) {
		reload->worker = supervisor_new_worker(s, reload->config, reload->config->serial);
		if (reload->worker == NULL) {
			end_oldest(s, now_ns);
			return;
		}
		reload->worker->once = true;
		child_start(reload->worker, now_ns);
	}
	if (reload->worker->state == CHILD_SERVING)
		commit(s, now_ns);
	else if (reload->worker->state == CHILD_ENDED || reload->worker->state == CHILD_DOWN)
		abort_reload(s);
}

void
reload_give_up(struct supervisor *s)
{
	s->reload.again = false;
	if (s->reload.config == NULL)
		return;
	config_free(s->reload.config);
	supervisor_store_release(&s->reload.store, &s->store);
	end_trial(s);
}
