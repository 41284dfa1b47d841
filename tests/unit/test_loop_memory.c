/* A loop thread that is short of memory: whichever allocation fails, the client gets an answer or a
 * closed connection, nothing is left behind, and the next exchange is served. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/board.h"
#include "base/log.h"
#include "base/xmem.h"
#include "proxy/deep.h"
#include "proxy/listener.h"
#include "proxy/loop.h"
#include "proxy/ring.h"
#include "proxy/shared.h"
#include "proxy/tls_contexts.h"

#define ROUNDS 16
#define BODY 40000

static struct loop loop;
static struct board *board;
static struct config *config;
static struct shared shared;
static struct ring *ring;
static struct tls_contexts *tls;
static struct deep_policy *deep;
static int app_fd;
static uint16_t app_port, gateway_port;

static int
listen_somewhere(uint16_t *ret_port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
	                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

/* Reads one request (Content-Length or none), answers with BODY bytes, and closes. */
static void *
app_connection(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char answer[BODY + 100] = {0};
	char data[65536];
	size_t have = 0, need = 0;
	ssize_t n;

	while ((n = recv(fd, data + have, sizeof data - 1 - have, 0)) > 0) {
		const char *end, *field;

		have += (size_t)n;
		data[have] = '\0';
		end = strstr(data, "\r\n\r\n");
		field = strstr(data, "Content-Length: ");
		if (!end)
			continue;
		need = (size_t)(end - data) + 4;
		if (field && field < end)
			need += strtoul(field + 16, NULL, 10);
		if (have < need)
			continue;
		n = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
		             BODY);
		send(fd, answer, (size_t)n + BODY, MSG_NOSIGNAL);
		have = 0;
	}
	close(fd);
	return NULL;
}

static void *
app_run(void *arg)
{
	int fd;

	(void)arg;
	while ((fd = accept(app_fd, NULL, NULL)) != -1) {
		pthread_t thread;

		pthread_create(&thread, NULL, app_connection, (void *)(intptr_t)fd);
		pthread_detach(thread);
	}
	return NULL;
}

static void *
loop_thread(void *arg)
{
	(void)arg;
	loop_run(&loop);
	return NULL;
}

/* Sends and reads to the end of the connection; returns the status, or 0 where none came. */
static int
ask(const char *request, size_t body)
{
	static char answer[1 << 20], bytes[BODY];
	struct sockaddr_in address = {.sin_family = AF_INET,
	                              .sin_port = htons(gateway_port),
	                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval limit = {.tv_sec = 10};
	int fd = socket(AF_INET, SOCK_STREAM, 0), status = 0;
	size_t have = 0;
	ssize_t n;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	send(fd, request, strlen(request), MSG_NOSIGNAL);
	if (body)
		send(fd, bytes, body, MSG_NOSIGNAL);
	while ((n = recv(fd, answer + have, sizeof answer - 1 - have, 0)) > 0)
		have += (size_t)n;
	answer[have] = '\0';
	close(fd);
	if (sscanf(answer, "HTTP/1.1 %d", &status) == 1 && status == 200 && n == 0)
		assert_true(have > BODY); /* a clean end is a whole answer */
	return status;
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
#define POST "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 40000\r\n\r\n"

/* A loop of its own, whose pools are empty, for one exchange under failure and one after it.
 * Returns the status of the first. */
static int
round_of(uint64_t nth, int sticky)
{
	uint16_t of[] = {0};
	int listener = listen_somewhere(&gateway_port), status;
	pthread_t worker;

	shared_init(&shared, config, board->upstreams[0]);
	assert_int_equal(loop_init(&loop, &shared, &board->threads[0][0], ring), 0);
	loop.tls = tls;
	loop.deep = deep;
	assert_int_equal(listeners_start(&loop, &listener, of, 1), 0);
	xmem_fail_after(nth, sticky);
	pthread_create(&worker, NULL, loop_thread, NULL);
	status = nth % 2 ? ask(GET, 0) : ask(POST, BODY);
	xmem_fail_after(0, 0);
	assert_int_equal(ask(GET, 0), 200);
	loop_tell(&loop, LOOP_TOLD_DRAIN, 0);
	pthread_join(worker, NULL);
	loop_free(&loop);
	assert_int_equal(atomic_load(&board->threads[0][0].in_flight), 0);
	assert_int_equal(atomic_load(&board->threads[0][0].client_connections), 0);
	assert_int_equal(atomic_load(&shared.clients), 0);
	shared_free(&shared);
	return status;
}

static void
each_allocation_fails(void **state)
{
	int failures = 0;

	(void)state;
	for (int sticky = 0; sticky <= 1; sticky++) {
		for (uint64_t nth = 1; nth <= ROUNDS; nth++) {
			int status = round_of(nth, sticky);

			failures += status != 200;
			assert_true(status == 0 || status == 200 || status == 502 || status == 503);
		}
	}
	assert_true(failures > 10);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(each_allocation_fails)};
	struct config_errors errs = {0};
	pthread_t app;
	char text[512];

	log_init("test", LOG_LEVEL_ERROR);
	board = xcalloc(1, sizeof *board);
	ring = ring_attach(xcalloc(1, RING_BYTES));
	app_fd = listen_somewhere(&app_port);
	snprintf(text, sizeof text,
	         "{\"listeners\": [{\"address\": \"127.0.0.1:1\"}], \"upstreams\": {\"a\": "
	         "{\"servers\": [\"127.0.0.1:%u\"]}}, "
	         "\"control\": {\"listeners\": [{\"address\": \"unix:/tmp/x\"}]}}",
	         app_port);
	if (config_load_bytes("t", text, strlen(text), &config, &errs) == -1)
		return 1;
	tls = tls_contexts_open(config, &board->tickets);
	deep = deep_policy_new(config, board);
	pthread_create(&app, NULL, app_run, NULL);
	return cmocka_run_group_tests_name("loop_memory", tests, NULL, NULL);
}
