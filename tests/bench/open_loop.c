/* An open-loop load: requests leave when a schedule says so, whether earlier ones are answered or
 * not, and each is timed from when it was due (so a stall counts for all that were due meanwhile).
 * Usage: open_loop PORT RATE SECONDS CONNECTIONS. Prints one JSON object; times in nanoseconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define WARM_UP_NS 500000000ull   /* not counted */
#define SEED 88172645463325252ull /* the same schedule for everyone */

struct connection {
	int fd;
	uint64_t due_ns; /* of the request in flight */
	size_t got;
};

static struct connection connections[CONNECTIONS_MAX];
static struct connection *idle[CONNECTIONS_MAX];
static size_t idle_count, answer_length;
static uint64_t *took, took_count, took_max, count_from_ns, late;
static char request[128];

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Exponential gaps: arrivals that know nothing of each other. xorshift64. */
static double
gap_ns(double rate)
{
	static uint64_t state = SEED;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return -log(((double)(state >> 11) + 1) / 9007199254740993.0) * 1e9 / rate;
}

static void
send_one(struct connection *connection, uint64_t due_ns)
{
	size_t length = strlen(request);

	connection->due_ns = due_ns;
	connection->got = 0;
	if (send(connection->fd, request, length, MSG_NOSIGNAL) != (ssize_t)length)
		die("send");
}

/* Blocking: connects, and learns how long an answer is. */
static void
open_one(struct connection *connection, uint16_t port, int epoll)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
	char bytes[65536], *end, *length;
	size_t got = 0, total;
	int one = 1;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	connection->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(connection->fd, (struct sockaddr *)&to, sizeof to) < 0)
		die("connect");
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	send_one(connection, 0);
	do {
		ssize_t n = recv(connection->fd, bytes + got, sizeof bytes - 1 - got, 0);

		if (n <= 0)
			die("recv");
		got += (size_t)n;
		bytes[got] = '\0';
		end = strstr(bytes, "\r\n\r\n");
		length = strcasestr(bytes, "content-length: ");
		total =
		    end && length ? (size_t)(end + 4 - bytes) + strtoul(length + 16, NULL, 10) : 0;
	} while (!total || got < total);
	answer_length = total;
	fcntl(connection->fd, F_SETFL, O_NONBLOCK);
	epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event);
	idle[idle_count++] = connection;
}

/* True when the answer is whole. */
static bool
read_some(struct connection *connection)
{
	char bytes[65536];
	ssize_t n = recv(connection->fd, bytes, sizeof bytes, 0);
	uint64_t at_ns;

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0 || (connection->got == 0 && memcmp(bytes, "HTTP/1.1 200", 12) != 0))
		die("answer");
	connection->got += (size_t)n;
	if (connection->got < answer_length)
		return false;
	at_ns = now_ns();
	if (connection->due_ns >= count_from_ns && took_count < took_max)
		took[took_count++] = at_ns - connection->due_ns;
	return true;
}

static int
by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static unsigned long long
quantile(double q)
{
	size_t at = (size_t)(q * (double)took_count);

	return took[at < took_count ? at : took_count - 1];
}

static void
run(int epoll, int timer, double rate, uint64_t end_ns)
{
	double next_ns = (double)now_ns() + gap_ns(rate);
	struct epoll_event events[64];

	for (;;) {
		uint64_t at_ns = now_ns();
		struct itimerspec when = {0};
		int count;

		for (; next_ns <= (double)at_ns && idle_count > 0; next_ns += gap_ns(rate))
			send_one(idle[--idle_count], (uint64_t)next_ns);
		if (next_ns <= (double)at_ns)
			late++; /* no connection is free: it waits, and its wait counts */
		if (at_ns > end_ns)
			return;
		if (next_ns > (double)at_ns) {
			when.it_value.tv_sec = (time_t)(next_ns / 1e9);
			when.it_value.tv_nsec =
			    (long)(next_ns - (double)when.it_value.tv_sec * 1e9);
			timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
		}
		count = epoll_wait(epoll, events, 64, 1000);
		for (int i = 0; i < count; i++) {
			struct connection *connection = events[i].data.ptr;
			uint64_t times;

			if (!connection)
				(void)!read(timer, &times, sizeof times);
			else if (read_some(connection))
				idle[idle_count++] = connection;
		}
	}
}

int
main(int argc, char **argv)
{
	struct epoll_event event = {.events = EPOLLIN};
	int epoll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	double rate, seconds;
	size_t count;
	uint64_t end_ns;

	if (argc != 5 || (count = strtoul(argv[4], NULL, 10)) == 0 || count > CONNECTIONS_MAX) {
		fprintf(stderr, "usage: open_loop PORT RATE SECONDS CONNECTIONS\n");
		return 2;
	}
	rate = atof(argv[2]);
	seconds = atof(argv[3]);
	snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n\r\n", argv[1]);
	took_max = (uint64_t)(rate * seconds * 2) + 1000;
	took = calloc(took_max, sizeof *took);
	epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
	for (size_t i = 0; i < count; i++)
		open_one(&connections[i], (uint16_t)atoi(argv[1]), epoll);
	count_from_ns = now_ns() + WARM_UP_NS;
	end_ns = count_from_ns + (uint64_t)(seconds * 1e9);
	run(epoll, timer, rate, end_ns);
	if (took_count == 0)
		die("no answer");
	qsort(took, took_count, sizeof *took, by_value);
	printf("{\"count\": %llu, \"late\": %llu, \"p50_ns\": %llu, \"p90_ns\": %llu, "
	       "\"p99_ns\": %llu, \"p999_ns\": %llu, \"max_ns\": %llu}\n",
	       (unsigned long long)took_count, (unsigned long long)late, quantile(0.5),
	       quantile(0.9), quantile(0.99), quantile(0.999), quantile(1));
	return 0;
}
