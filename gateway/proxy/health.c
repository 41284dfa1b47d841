/* Health checks: per address one GET on a connection of its own, every interval. */
#include "proxy/health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "base/xmem.h"
#include "proxy/block.h"
#include "proxy/http1.h"
#include "proxy/loop.h"
#include "proxy/pool.h"

#define REQUEST_MAX 1600u /* path and address are shorter */

struct check {
	struct health *health;
	struct pool *pool; /* of the loop that checks */
	uint16_t index;    /* of the endpoint */
	uint32_t epoch;    /* of the address that `verdict` is about */
	struct verdict verdict;
	struct timer timer; /* the next check; within one, its limit */
	struct event event;
	int fd; /* -1 = no check is on */
	uint64_t started_ns;
	struct http1 *response; /* while the answer is read */
	struct block *in;
};

bool
verdict_add(struct verdict *verdict, const struct config_health *config, bool good)
{
	uint32_t *row = good ? &verdict->good : &verdict->bad;

	*(good ? &verdict->bad : &verdict->good) = 0;
	if (*row < UINT32_MAX)
		++*row;
	if (verdict->down != good || *row < (good ? config->rise : config->fall))
		return false;
	verdict->down = !good;
	return true;
}

static const struct config_health *
config_of(const struct check *check)
{
	return &check->pool->config->health;
}

static void
plan(struct check *check, uint64_t due_ns)
{
	struct loop *loop = check->health->loop;

	timer_set(&loop->wheel, &check->timer, due_ns, loop->now_ns);
}

/* Ends a check; `why` (null: all is well) tells what was wrong. */
static void
check_end(struct check *check, const char *why)
{
	struct server *server = &check->pool->servers[check->index];
	struct group *group = check->pool->group;
	struct board_server *board = &group->board->servers[server->number];

	if (check->fd >= 0) {
		event_del(&check->event);
		close(check->fd);
	}
	check->fd = -1;
	block_put(&check->health->loop->blocks, check->in);
	check->in = NULL;
	free(check->response);
	check->response = NULL;
	plan(check, check->started_ns + config_of(check)->interval_ms * NS_PER_MS);
	board_share(why ? &board->checks_failed : &board->checks_passed, 1);
	if (!why)
		group_reachable(group, check->index);
	if (!verdict_add(&check->verdict, config_of(check), !why))
		return;
	if (why)
		log_warn("%s: server %s is down: %s", group->config->name, server->config->text,
		         why);
	else
		log_info("%s: server %s is up again", group->config->name, server->config->text);
	group_set_down(group, check->index, check->verdict.down);
}

static void
on_answer(evutil_socket_t fd, short what, void *arg)
{
	struct check *check = arg;
	struct block *in = check->in;
	ssize_t n = recv(fd, in->data + in->end, block_room(in), 0);

	(void)what;
	loop_now(check->health->loop);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		check_end(check, n < 0 ? strerror(errno) : "closed without an answer");
		return;
	}
	in->end += (uint32_t)n;
	switch (http1_head(check->response, in->data + in->start, block_length(in))) {
	case HTTP1_MORE:
		if (block_room(in) == 0)
			check_end(check, "its answer has too large a head");
		return;
	case HTTP1_HEAD:
		check_end(check,
		          check->response->head.status >= 200 && check->response->head.status < 400
		              ? NULL
		              : "its answer has another status than 200 to 399");
		return;
	default:
		check_end(check, "its answer is no HTTP");
	}
}

static void
on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct check *check = arg;
	struct loop *loop = check->health->loop;
	const char *host = check->pool->servers[check->index].config->text;
	char request[REQUEST_MAX];
	int error = 0, length;
	socklen_t size = sizeof error;

	(void)what;
	loop_now(loop);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error) {
		check_end(check, strerror(error));
		return;
	}
	length = snprintf(request, sizeof request,
	                  "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tailrace/%s (health)\r\n"
	                  "Accept: */*\r\nConnection: close\r\n\r\n",
	                  config_of(check)->path,
	                  strncmp(host, "unix:", 5) == 0 ? "localhost" : host, TAILRACE_VERSION);
	/* The buffer of a new connection takes it whole. */
	if (send(fd, request, (size_t)length, MSG_NOSIGNAL) != length) {
		check_end(check, "takes no request");
		return;
	}
	check->in = block_get(&loop->blocks, 0);
	check->response = xmem_try(sizeof *check->response);
	if (!check->in || !check->response) {
		check_end(check, "the gateway has no memory for its answer");
		return;
	}
	http1_init(check->response, HTTP_RESPONSE, &loop->config->limits);
	event_del(&check->event);
	event_assign(&check->event, loop->base, fd, EV_READ | EV_PERSIST, on_answer, check);
	event_add(&check->event, NULL);
}

static void
check_begin(struct check *check, uint64_t now_ns)
{
	struct loop *loop = check->health->loop;
	struct server *server = &check->pool->servers[check->index];
	bool connected;

	pool_refresh(check->pool);
	check->started_ns = now_ns;
	if (!server->live) {
		plan(check, now_ns + config_of(check)->interval_ms * NS_PER_MS);
		return;
	}
	if (check->epoch != server->epoch)
		check->verdict = (struct verdict){0};
	check->epoch = server->epoch;
	check->fd = net_connect(&server->address, &connected);
	if (check->fd < 0) {
		check_end(check, strerror(errno));
		return;
	}
	event_assign(&check->event, loop->base, check->fd, EV_WRITE | EV_PERSIST, on_connected,
	             check);
	event_add(&check->event, NULL);
	plan(check, now_ns + config_of(check)->timeout_ms * NS_PER_MS);
}

static void
on_timer(struct timer *timer, uint64_t now_ns)
{
	struct check *check =
	    (struct check *)(void *)((char *)timer - offsetof(struct check, timer));

	check->health->loop->now_ns = now_ns;
	if (check->fd >= 0)
		check_end(check, "no answer in health.timeout_ms");
	else
		check_begin(check, now_ns);
}

static void
group_checks(struct health *health, struct pool *pool)
{
	uint64_t interval_ns = pool->config->health.interval_ms * NS_PER_MS;

	for (size_t i = 0; i < BOARD_ENDPOINTS_MAX; i++) {
		struct check *check = &health->checks[health->count++];

		*check =
		    (struct check){.health = health, .pool = pool, .index = (uint16_t)i, .fd = -1};
		check->timer.fire = on_timer;
		plan(check, health->loop->now_ns + i * interval_ns / BOARD_ENDPOINTS_MAX + 1);
	}
}

void
health_start(struct health *health, struct loop *loop)
{
	size_t groups = 0;

	*health = (struct health){.loop = loop};
	for (size_t i = 0; i < loop->config->upstream_count; i++)
		groups += loop->config->upstreams[i].health.path != NULL;
	if (groups == 0)
		return;
	loop_now(loop);
	health->checks = xcalloc(groups * BOARD_ENDPOINTS_MAX, sizeof *health->checks);
	for (size_t i = 0; i < loop->config->upstream_count; i++)
		if (loop->config->upstreams[i].health.path)
			group_checks(health, &loop->pools[i]);
}

void
health_stop(struct health *health)
{
	for (size_t i = 0; i < health->count; i++) {
		struct check *check = &health->checks[i];

		timer_remove(&health->loop->wheel, &check->timer);
		if (check->fd < 0)
			continue;
		event_del(&check->event);
		close(check->fd);
		block_put(&health->loop->blocks, check->in);
		free(check->response);
	}
	free(health->checks);
	*health = (struct health){0};
}
