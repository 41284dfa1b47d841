/* The app's place in the benchmarks, made to cost as little as possible so that it never is the
 * bottleneck: each request head is answered with the same few bytes. Requests without a body only.
 * Usage: origin PORT. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILES_MAX 65536
#define PIPELINED_MAX 16

static const char answer[] =
    "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 26 Nov 2026 00:00:00 GMT\r\n"
    "Content-Type: text/plain\r\nContent-Length: 13\r\n"
    "Connection: keep-alive\r\n\r\nhello, world\n";
/* How much of "\r\n\r\n" a connection's bytes end with. */
static unsigned char matched[FILES_MAX];

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

static void
take_connection(int listener, int epoll)
{
	int one = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (fd < 0 || fd >= FILES_MAX)
		die("accept");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	matched[fd] = 0;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

/* How many heads end within these bytes. */
static size_t
heads_in(int fd, const char *bytes, size_t length)
{
	size_t count = 0;

	for (size_t i = 0; i < length; i++) {
		char wanted = matched[fd] % 2 == 0 ? '\r' : '\n';

		matched[fd] = bytes[i] == wanted ? matched[fd] + 1 : bytes[i] == '\r';
		if (matched[fd] == 4) {
			matched[fd] = 0;
			count++;
		}
	}
	return count;
}

static void
serve(int fd)
{
	char bytes[65536];
	ssize_t n = recv(fd, bytes, sizeof bytes, 0);

	if (n <= 0) {
		close(fd);
		return;
	}
	for (size_t count = heads_in(fd, bytes, (size_t)n); count > 0; count--)
		if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
			return;
}

int
main(int argc, char **argv)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN}, events[256];

	if (argc != 2)
		return 2;
	at.sin_port = htons((uint16_t)atoi(argv[1]));
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 4096) < 0)
		die("listen");
	event.data.fd = listener;
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int count = epoll_wait(epoll, events, 256, -1);

		for (int i = 0; i < count; i++) {
			if (events[i].data.fd == listener)
				take_connection(listener, epoll);
			else
				serve(events[i].data.fd);
		}
	}
}
