/* loop: an allocation that fails, at every place in turn and for good, costs at most the exchange
 * or connection it happened to. A whole loop runs in a thread, with real sockets, between a
 * scripted client and a scripted app. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/xmem.h"
#include "proxy/listener.h"
#include "proxy/loop.h"
#include "proxy/pool.h"

#define PLACES 24     /* beyond the allocations of one exchange: asserted */
#define BODY 40000    /* bytes of a request's body: several blocks */
#define ANSWER 300000 /* bytes of an answer's body: more than the queues take at once */
#define WAIT_MS 5000

static int app_fd, listener_fd;
static uint16_t app_port;
static _Alignas(64) struct board_upstream board;
static struct board_thread thread_board;
static void *ring_memory;

static int
listen_anywhere(uint16_t *ret_port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &length), 0);
	*ret_port = ntohs(in.sin_port);
	return fd;
}

static bool
write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t n = send(fd, data, length, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		data += n;
		length -= (size_t)n;
	}
	return true;
}

/* --- the app ------------------------------------------------------------- */

/* Reads a request with its body, answers with a large one. */
static void
app_serve(int fd)
{
	static char answer[ANSWER], in[BODY + 4096];
	char head[128];
	size_t have = 0;
	ssize_t n;

	while ((n = recv(fd, in + have, sizeof in - 1 - have, 0)) > 0) {
		char *end;

		have += (size_t)n;
		in[have] = '\0';
		end = strstr(in, "\r\n\r\n");
		if (end && have >= (size_t)(end + 4 - in) + BODY)
			break;
	}
	snprintf(head, sizeof head,
	         "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", ANSWER);
	memset(answer, 'a', sizeof answer);
	if (n > 0 && write_all(fd, head, strlen(head)))
		write_all(fd, answer, sizeof answer);
	close(fd);
}

static void *
app_run(void *arg)
{
	(void)arg;
	for (;;) {
		int fd = accept(app_fd, NULL, NULL);

		if (fd < 0)
			return NULL;
		app_serve(fd);
	}
}

/* --- the gateway --------------------------------------------------------- */

struct gateway {
	struct config *config;
	struct shared shared;
	struct loop loop;
	pthread_t thread;
};

static void *
gateway_run(void *arg)
{
	loop_run(arg);
	return NULL;
}

static void
gateway_start(struct gateway *gateway)
{
	struct config_errors errs = {0};
	uint16_t of = 0;
	char text[512];
	int fd = dup(listener_fd);

	snprintf(text, sizeof text,
	         "{\"listeners\": [{\"address\": \"127.0.0.1:1\"}], \"store\": {\"path\": \"/x\"},"
	         "\"control\": {\"listeners\": [{\"address\": \"unix:/tmp/x.sock\"}]},"
	         "\"upstreams\": {\"app\": {\"servers\": [\"127.0.0.1:%u\"]}}}",
	         app_port);
	memset(gateway, 0, sizeof *gateway);
	assert_int_equal(config_load_bytes("t", text, strlen(text), &gateway->config, &errs), 0);
	memset(&thread_board, 0, sizeof thread_board);
	shared_init(&gateway->shared, gateway->config, &board);
	assert_int_equal(
	    loop_init(&gateway->loop, &gateway->shared, &thread_board, ring_attach(ring_memory)),
	    0);
	assert_int_equal(listeners_start(&gateway->loop, &fd, &of, 1), 0);
	assert_int_equal(pthread_create(&gateway->thread, NULL, gateway_run, &gateway->loop), 0);
}

/* Nothing may be left: no exchange, no slot, no connection, no block. */
static void
gateway_stop(struct gateway *gateway)
{
	loop_tell(&gateway->loop, LOOP_TOLD_DRAIN, 0);
	pthread_join(gateway->thread, NULL);
	assert_int_equal(thread_board.in_flight, 0);
	assert_int_equal(thread_board.client_connections, 0);
	assert_int_equal(board.endpoints[0].in_flight, 0);
	loop_free(&gateway->loop);
	assert_int_equal(gateway->loop.blocks.in_use, 0);
	assert_int_equal(board.endpoints[0].connections, 0);
	assert_int_equal(gateway->shared.clients, 0);
	shared_free(&gateway->shared);
	config_free(gateway->config);
}

/* --- the client ---------------------------------------------------------- */

/* One exchange on a connection of its own. Returns the status, or 0 where the connection ended
 * without a whole answer. */
static int
exchange(void)
{
	static char body[BODY], in[ANSWER + 4096];
	struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof in4;
	char head[128];
	size_t have = 0;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), status = 0;

	assert_int_equal(getsockname(listener_fd, (struct sockaddr *)&in4, &length), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&in4, sizeof in4), 0);
	snprintf(head, sizeof head,
	         "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n",
	         BODY);
	write_all(fd, head, strlen(head));
	write_all(fd, body, sizeof body); /* it may be answered, or cut off, before */
	for (;;) {
		struct pollfd polled = {.fd = fd, .events = POLLIN};
		ssize_t n;

		assert_int_equal(poll(&polled, 1, WAIT_MS), 1); /* it ends, one way or the other */
		n = recv(fd, in + have, sizeof in - have, 0);
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	close(fd);
	if (have < 12 || sscanf(in, "HTTP/1.1 %d", &status) != 1)
		return 0;
	return status == 200 && have < ANSWER ? 0 : status;
}

static void
try_failures(int sticky)
{
	struct gateway gateway;
	unsigned cut = 0, refused = 0, served = 0;

	for (uint64_t place = 1; place <= PLACES; place++) {
		int status;

		gateway_start(&gateway);
		xmem_fail_after(place, sticky);
		status = exchange();
		xmem_fail_after(0, 0);
		assert_true(status == 0 || status == 200 || status == 503);
		cut += status == 0;
		refused += status == 503;
		served += status == 200;
		status = exchange();
		for (int i = 1; status != 200 && i < CLOSE_REASON_COUNT; i++)
			if (thread_board.reasons[i] > 0)
				print_message("%s\n", close_reason_name((enum close_reason)i));
		assert_int_equal(status, 200);
		gateway_stop(&gateway);
	}
	/* Some failures cut an exchange off, some are answered, the last place is beyond all. */
	assert_true(cut > 0 && refused > 0 && served > 0);
	print_message("cut off %u, 503 %u, served %u\n", cut, refused, served);
}

static void
test_one_failure(void **state)
{
	(void)state;
	try_failures(0);
}

static void
test_failing_for_good(void **state)
{
	(void)state;
	try_failures(1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_one_failure),
	    cmocka_unit_test(test_failing_for_good),
	};
	uint16_t port;
	pthread_t app;
	int failed;

	ring_memory = calloc(1, RING_BYTES);
	log_init("loop", LOG_LEVEL_ERROR);
	app_fd = listen_anywhere(&app_port);
	listener_fd = listen_anywhere(&port);
	pthread_create(&app, NULL, app_run, NULL);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	shutdown(app_fd, SHUT_RDWR);
	pthread_join(app, NULL);
	free(ring_memory);
	return failed;
}
