/* The resolver thread: sleeps until a group is due, looks its names up, hands addresses over. */
#include "proxy/resolver.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"

static void
log_change(struct resolver_group *own, size_t index, bool failing, const char *why)
{
	const struct config_server *server = &own->group->config->servers[index];
	const char *text = server->text;

	if (failing == own->failing[index])
		return;
	own->failing[index] = failing;
	if (failing)
		log_warn("%s: %s: %s; %s", own->group->config->name, text, why,
		         own->answered[index] || server->address.length > 0
		             ? "its last addresses stay"
		             : "it has none until it can");
	else
		log_info("%s: %s can be resolved again", own->group->config->name, text);
}

/* Returns whether there was an answer. */
static bool
look_one(struct resolver_group *own, size_t index, resolver_lookup *lookup)
{
	struct group *group = own->group;
	struct net_address found[BOARD_ENDPOINTS_MAX];
	const char *why = "";
	int count = lookup(group->config->servers[index].text, found, BOARD_ENDPOINTS_MAX, &why);

	board_share(&group->board->lookups, 1);
	log_change(own, index, count < 1, why);
	if (count < 1) {
		board_share(&group->board->lookup_failures, 1);
		return false;
	}
	if (count > (int)BOARD_ENDPOINTS_MAX) {
		board_share(&group->board->addresses_dropped, count - (int)BOARD_ENDPOINTS_MAX);
		count = (int)BOARD_ENDPOINTS_MAX;
	}
	if (group_set_addresses(group, index, found, (size_t)count))
		log_info("%s: %s has %d address%s", group->config->name,
		         group->config->servers[index].text, count, count == 1 ? "" : "es");
	return true;
}

void
resolver_look(struct resolver_group *own, resolver_lookup *lookup, uint64_t now_ns)
{
	const struct config_upstream *config = own->group->config;
	uint64_t interval_ns = config->resolve_interval_ms * NS_PER_MS;
	bool missing = false;

	for (size_t i = 0; i < config->server_count; i++) {
		if (!net_address_is_name(config->servers[i].text))
			continue;
		if (interval_ns == 0 && own->answered[i])
			continue; /* at start only: that was it */
		if (look_one(own, i, lookup))
			own->answered[i] = true;
		missing |= !own->answered[i];
	}
	if (missing && (interval_ns == 0 || interval_ns > RESOLVER_RETRY_NS))
		interval_ns = RESOLVER_RETRY_NS;
	own->due_ns = interval_ns == 0 ? UINT64_MAX : now_ns + interval_ns;
}

/* Under the mutex. Sleeps until `due_ns`, or until told to stop. */
static void
sleep_until(struct resolver *resolver, uint64_t due_ns)
{
	struct timespec due = {.tv_sec = (time_t)(due_ns / NS_PER_S),
	                       .tv_nsec = (long)(due_ns % NS_PER_S)};

	if (due_ns == UINT64_MAX)
		pthread_cond_wait(&resolver->changed, &resolver->mutex);
	else
		pthread_cond_timedwait(&resolver->changed, &resolver->mutex, &due);
}

static struct resolver_group *
first_due(struct resolver *resolver)
{
	struct resolver_group *first = &resolver->groups[0];

	for (size_t i = 1; i < resolver->group_count; i++)
		if (resolver->groups[i].due_ns < first->due_ns)
			first = &resolver->groups[i];
	return first;
}

static void *
resolver_run(void *arg)
{
	struct resolver *resolver = arg;

	pthread_mutex_lock(&resolver->mutex);
	while (!resolver->stop) {
		struct resolver_group *own = first_due(resolver);

		if (own->due_ns > clock_now_ns()) {
			sleep_until(resolver, own->due_ns);
			continue;
		}
		pthread_mutex_unlock(&resolver->mutex);
		resolver_look(own, resolver->lookup, clock_now_ns());
		pthread_mutex_lock(&resolver->mutex);
	}
	resolver->ended = true;
	pthread_cond_broadcast(&resolver->changed);
	pthread_mutex_unlock(&resolver->mutex);
	return NULL;
}

static bool
has_names(const struct config_upstream *config)
{
	for (size_t i = 0; i < config->server_count; i++)
		if (net_address_is_name(config->servers[i].text))
			return true;
	return false;
}

void
resolver_start(struct resolver *resolver, struct group *groups, size_t count,
               resolver_lookup *lookup)
{
	pthread_condattr_t monotonic;
	int failed;

	memset(resolver, 0, sizeof *resolver);
	resolver->lookup = lookup;
	resolver->groups = xcalloc(count, sizeof *resolver->groups);
	for (size_t i = 0; i < count; i++)
		if (has_names(groups[i].config))
			resolver->groups[resolver->group_count++].group = &groups[i];
	if (resolver->group_count == 0)
		return;
	pthread_mutex_init(&resolver->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&resolver->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	failed = pthread_create(&resolver->thread, NULL, resolver_run, resolver);
	resolver->running = failed == 0;
	if (failed)
		log_error("names are not looked up again: no thread: %s", strerror(failed));
	else
		pthread_setname_np(resolver->thread, "resolver");
}

bool
resolver_stop(struct resolver *resolver)
{
	uint64_t limit_ns = clock_now_ns() + RESOLVER_STOP_NS;
	bool ended = true;

	if (resolver->running) {
		pthread_mutex_lock(&resolver->mutex);
		resolver->stop = true;
		pthread_cond_broadcast(&resolver->changed);
		while (!resolver->ended && clock_now_ns() < limit_ns)
			sleep_until(resolver, limit_ns);
		ended = resolver->ended;
		pthread_mutex_unlock(&resolver->mutex);
		if (ended)
			pthread_join(resolver->thread, NULL);
		else
			pthread_detach(resolver->thread);
	}
	if (ended)
		free(resolver->groups);
	return ended;
}
