/* Health checks: per address one GET on a connection of its own, every interval. */
#include "proxy/health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "base/xmem.h"
#include "proxy/block.h"
#include "proxy/http1.h"
#include "proxy/loop.h"
#include "proxy/pool.h"
#include "proxy/stream.h"
#include "proxy/tls.h"
#include "proxy/tls_client.h"
#include "proxy/tls_contexts.h"

#define REQUEST_MAX 1600u /* path and address are shorter */

enum check_state { CHECK_OFF, CHECK_CONNECTING, CHECK_HANDSHAKE, CHECK_ASKED };

struct check {
	struct health *health;
	struct pool *pool; /* of the loop that checks */
	uint16_t index;    /* of the endpoint */
	uint32_t epoch;    /* of the address that `verdict` is about */
	struct verdict verdict;
	struct timer timer; /* the next check; within one, its limit */
	enum check_state state;
	struct stream stream; /* but for CHECK_OFF */
	uint64_t started_ns;
	struct queue out;
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

static void
check_clear(struct check *check)
{
	struct block_pool *blocks = &check->health->loop->blocks;

	if (check->state != CHECK_OFF)
		stream_close(&check->stream);
	check->state = CHECK_OFF;
	queue_clear(&check->out, blocks);
	block_put(blocks, check->in);
	check->in = NULL;
	free(check->response);
	check->response = NULL;
}

/* Ends a check; `why` (null: all is well) tells what was wrong. */
static void
check_end(struct check *check, const char *why)
{
	struct server *server = &check->pool->servers[check->index];
	struct group *group = check->pool->group;
	struct board_server *board = &group->board->servers[server->number];
	const char *name = server->config->text;

	check_clear(check);
	plan(check, check->started_ns + config_of(check)->interval_ms * NS_PER_MS);
	board_share(why ? &board->checks_failed : &board->checks_passed, 1);
	if (!why)
		group_reachable(group, check->index);
	if (!verdict_add(&check->verdict, config_of(check), !why))
		return;
	if (why)
		log_warn("%s: server %s is down: %s", group->config->name, name, why);
	else
		log_info("%s: server %s is up again", group->config->name, name);
	group_set_down(group, check->index, check->verdict.down);
}

/* --- the steps of a check ------------------------------------------------ */

static void
read_answer(struct check *check)
{
	struct block *in = check->in;
	ssize_t n = stream_read(&check->stream, in->data + in->end, block_room(in));
	uint16_t status;

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
		status = check->response->head.status;
		check_end(check, status >= 200 && status < 400
		                     ? NULL
		                     : "its answer has another status than 200 to 399");
		return;
	default:
		check_end(check, "its answer is no HTTP");
	}
}

static void
flush(struct check *check)
{
	size_t written;

	if (stream_write(&check->stream, &check->out, &check->health->loop->blocks, &written) < 0)
		check_end(check, "takes no request");
}

static void
ask(struct check *check)
{
	struct loop *loop = check->health->loop;
	const char *host = check->pool->servers[check->index].config->text;
	char request[REQUEST_MAX];
	int length =
	    snprintf(request, sizeof request,
	             "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tailrace/%s (health)\r\n"
	             "Accept: */*\r\nConnection: close\r\n\r\n",
	             config_of(check)->path, strncmp(host, "unix:", 5) == 0 ? "localhost" : host,
	             TAILRACE_VERSION);

	check->in = block_get(&loop->blocks, 0);
	check->response = xmem_try(sizeof *check->response);
	if (!check->in || !check->response ||
	    queue_append(&check->out, &loop->blocks, request, (size_t)length) < 0) {
		check_end(check, "the gateway has no memory for its answer");
		return;
	}
	http1_init(check->response, HTTP_RESPONSE, &loop->config->limits);
	check->state = CHECK_ASKED;
	stream_set_writing(&check->stream, false);
	stream_set_reading(&check->stream, true);
	flush(check);
}

static void
handshake(struct check *check)
{
	enum close_reason reason = CLOSE_UPSTREAM_TLS_FAILED;
	int done = tls_handshake(check->stream.tls, &reason);

	if (done == 1)
		ask(check);
	else if (done < 0)
		check_end(check, close_reason_text(reason));
}

static void
connected(struct check *check)
{
	struct loop *loop = check->health->loop;
	const struct config_upstream *config = check->pool->config;
	const struct config_server *server = check->pool->servers[check->index].config;
	int error = 0;
	socklen_t size = sizeof error;
	SSL *ssl;

	if (getsockopt(check->stream.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		error = errno;
	if (error) {
		check_end(check, strerror(error));
		return;
	}
	if (!config->tls.on) {
		ask(check);
		return;
	}
	ssl = tls_client_connection(tls_contexts_upstream(loop->tls, config),
	                            (size_t)(server - config->servers));
	if (!ssl || tls_start(loop, &check->stream, ssl, NULL) != 0) {
		check_end(check, "the gateway has no memory for TLS");
		return;
	}
	check->state = CHECK_HANDSHAKE;
	handshake(check);
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct check *check = arg;

	(void)fd;
	(void)what;
	loop_now(check->health->loop);
	if (check->state == CHECK_HANDSHAKE)
		handshake(check);
	else if (check->state == CHECK_ASKED)
		read_answer(check);
	if (check->state != CHECK_OFF)
		stream_check(&check->stream);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct check *check = arg;

	(void)fd;
	(void)what;
	loop_now(check->health->loop);
	stream_writable(&check->stream);
	if (check->state == CHECK_CONNECTING)
		connected(check);
	else if (check->state == CHECK_HANDSHAKE)
		handshake(check);
	else if (check->state == CHECK_ASKED)
		flush(check);
}

static void
check_begin(struct check *check, uint64_t now_ns)
{
	struct loop *loop = check->health->loop;
	struct server *server = &check->pool->servers[check->index];
	bool done;
	int fd;

	pool_refresh(check->pool);
	check->started_ns = now_ns;
	if (!server->live) {
		plan(check, now_ns + config_of(check)->interval_ms * NS_PER_MS);
		return;
	}
	if (check->epoch != server->epoch)
		check->verdict = (struct verdict){0};
	check->epoch = server->epoch;
	fd = net_connect(&server->address, &done);
	if (fd < 0) {
		check_end(check, strerror(errno));
		return;
	}
	/* Connected already, it is writable at once. */
	stream_init(&check->stream, loop->base, fd, on_readable, on_writable, check);
	check->state = CHECK_CONNECTING;
	stream_set_writing(&check->stream, true);
	plan(check, now_ns + config_of(check)->timeout_ms * NS_PER_MS);
}

static void
on_timer(struct timer *timer, uint64_t now_ns)
{
	struct check *check =
	    (struct check *)(void *)((char *)timer - offsetof(struct check, timer));

	check->health->loop->now_ns = now_ns;
	if (check->state != CHECK_OFF)
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

		*check = (struct check){.health = health, .pool = pool, .index = (uint16_t)i};
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
		check_clear(check);
	}
	free(health->checks);
	*health = (struct health){0};
}
