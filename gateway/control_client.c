/* A minimal HTTP/1.0 client for the control listener: one request a connection, read to its end.
 * 1.0 asks for no chunks and no keep-alive, so the answer's framing is the connection itself. */
#include "control_client.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <openssl/ssl.h>
#include "base/clock.h"
#include "base/net.h"
#include "base/xmem.h"
#include "control_tls.h"

#define SYSTEM_SOCKET "/run/tailrace/control.sock"
#define REQUEST_BYTES_MAX 4096
#define TOKEN_BYTES_MAX 1024

#define TLS_PREFIX "https://"
#define HOST_SIZE 256

struct buffer {
	char *data; /* owned, terminated */
	size_t length, size;
};

/* A connection, and what it waits for after EAGAIN. */
struct link {
	int fd;
	SSL *ssl; /* null = in clear */
	short waits;
};

static unsigned timeout_ms = CONTROL_TIMEOUT_MS;
static void (*on_bytes)(size_t done); /* null: nobody asks */

static int failed(char *reterr, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int
failed(char *reterr, size_t size, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(reterr, size, format, ap);
	va_end(ap);
	return -1;
}

const char *
control_default_address(void)
{
	static char address[sizeof("unix:") + 4096];
	const char *text = getenv("TAILRACE_CONTROL");
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char path[4096];

	if (text != NULL && *text != '\0')
		return text;
	if (access(SYSTEM_SOCKET, F_OK) != 0 && runtime != NULL && *runtime == '/') {
		snprintf(path, sizeof(path), "%s/tailrace/control.sock", runtime);
		if (access(path, F_OK) == 0) {
			snprintf(address, sizeof(address), "unix:%s", path);
			return address;
		}
	}
	return "unix:" SYSTEM_SOCKET;
}

static int
resolve(const char *text, struct net_address *ret, const char **reterr)
{
	const char *path = NULL;
	char folder[4096], whole[8300];

	if (strncmp(text, "unix:", 5) == 0)
		path = text + 5;
	else if (text[0] == '/')
		path = text;
	if (path == NULL)
		return net_address_resolve(text, ret, reterr);
	*reterr = "no path after unix:";
	if (*path == '\0')
		return -1;
	if (*path == '/') {
		snprintf(whole, sizeof(whole), "unix:%.8000s", path);
	} else {
		if (getcwd(folder, sizeof(folder)) == NULL)
			folder[0] = '\0';
		snprintf(whole, sizeof(whole), "unix:%s/%.4000s", folder, path);
	}
	return net_address_resolve(whole, ret, reterr);
}

/* Waits until the socket can be used or the deadline passes (errno = ETIMEDOUT). */
static int
wait_for(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd pollfd = {.fd = fd, .events = events};
	uint64_t now_ns;
	int n;

	do {
		now_ns = clock_now_ns();
		if (now_ns >= deadline_ns) {
			errno = ETIMEDOUT;
			return -1;
		}
		n = poll(&pollfd, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
	} while (n == 0 || (n == -1 && errno == EINTR));
	return n == -1 ? -1 : 0;
}

static int
open_connection(const struct net_address *address, uint64_t deadline_ns)
{
	bool connected;
	int fd = net_connect(address, &connected);
	int error = 0;
	socklen_t length = sizeof(error);

	if (fd == -1 || connected)
		return fd;
	if (wait_for(fd, POLLOUT, deadline_ns) == 0 &&
	    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0)
		return fd;
	if (error != 0)
		errno = error;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

static ssize_t
link_write(struct link *link, const char *bytes, size_t n)
{
	link->waits = POLLOUT;
	if (link->ssl != NULL)
		return control_tls_result(link->ssl, SSL_write(link->ssl, bytes, (int)n),
		                          &link->waits);
	return send(link->fd, bytes, n, MSG_NOSIGNAL);
}

static ssize_t
link_read(struct link *link, char *to, size_t room)
{
	link->waits = POLLIN;
	if (link->ssl != NULL)
		return control_tls_result(link->ssl, SSL_read(link->ssl, to, (int)room),
		                          &link->waits);
	return recv(link->fd, to, room, 0);
}

static int
write_all(struct link *link, const char *bytes, size_t n, uint64_t deadline_ns)
{
	while (n > 0) {
		ssize_t done = link_write(link, bytes, n);

		if (done > 0) {
			bytes += done;
			n -= (size_t)done;
		} else if (errno != EINTR &&
		           (errno != EAGAIN || wait_for(link->fd, link->waits, deadline_ns) != 0)) {
			return -1;
		}
	}
	return 0;
}

/* Reads to the end of the stream. -1 with errno; EMSGSIZE where it is longer than we take. */
static int
read_all(struct link *link, struct buffer *buffer, uint64_t deadline_ns)
{
	for (;;) {
		ssize_t n;

		if (buffer->length + 1 >= buffer->size) {
			if (buffer->size > CONTROL_ANSWER_BYTES_MAX) {
				errno = EMSGSIZE;
				return -1;
			}
			buffer->size = buffer->size == 0 ? 16384 : buffer->size * 2;
			buffer->data = xrealloc(buffer->data, buffer->size, 1);
		}
		n = link_read(link, buffer->data + buffer->length,
		              buffer->size - buffer->length - 1);
		if (n == 0)
			return 0;
		if (n > 0) {
			buffer->length += (size_t)n;
			buffer->data[buffer->length] = '\0';
			if (on_bytes != NULL)
				on_bytes(buffer->length);
		} else if (errno != EINTR &&
		           (errno != EAGAIN || wait_for(link->fd, link->waits, deadline_ns) != 0)) {
			return -1;
		}
	}
}

/* A header's value in a terminated head, or null. */
static const char *
find_header(const char *head, const char *name)
{
	size_t n = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, n) == 0 && line[n] == ':')
			return line + n + 1 + strspn(line + n + 1, " \t");
	}
	return NULL;
}

static int
parse_answer(struct buffer *buffer, struct control_answer *ret)
{
	char *end = buffer->data == NULL ? NULL : strstr(buffer->data, "\r\n\r\n");
	const char *length_text;
	size_t head;
	int status;

	if (end == NULL || sscanf(buffer->data, "HTTP/1.%*1d %3d", &status) != 1)
		return -1;
	*end = '\0';
	head = (size_t)(end - buffer->data) + 4;
	length_text = find_header(buffer->data, "Content-Length");
	ret->status = status;
	ret->length = buffer->length - head;
	if (length_text != NULL && strtoull(length_text, NULL, 10) != ret->length)
		return -1; /* cut off */
	ret->body = xcalloc(ret->length + 1, 1);
	memcpy(ret->body, buffer->data + head, ret->length);
	return 0;
}

static int
make_request(char *request, size_t size, const char *path, const char *body)
{
	const char *token = getenv("TAILRACE_TOKEN");
	char authorization[TOKEN_BYTES_MAX + 32] = "", length[96] = "";
	int n;

	if (token != NULL && *token != '\0' && strlen(token) <= TOKEN_BYTES_MAX &&
	    strpbrk(token, "\r\n") == NULL)
		snprintf(authorization, sizeof(authorization), "Authorization: Bearer %s\r\n",
		         token);
	if (body != NULL)
		snprintf(length, sizeof(length),
		         "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
	n = snprintf(request, size, "%s %s HTTP/1.0\r\nHost: localhost\r\n%s%s\r\n%s",
	             body != NULL ? "POST" : "GET", path, authorization, length,
	             body != NULL ? body : "");
	return n < 0 || (size_t)n >= size ? -1 : n;
}

static int
exchange(struct link *link, const char *request, size_t length, uint64_t deadline_ns,
         struct control_answer *ret)
{
	struct buffer buffer = {0};
	int status = -1;

	if (write_all(link, request, length, deadline_ns) == 0 &&
	    read_all(link, &buffer, deadline_ns) == 0) {
		status = parse_answer(&buffer, ret);
		if (status != 0)
			errno = EPROTO;
	}
	free(buffer.data);
	return status;
}

/* The host of "host:port" or "[v6]:port", for the certificate. */
static void
host_of(const char *text, char host[HOST_SIZE])
{
	const char *colon = strrchr(text, ':');
	size_t n = colon != NULL ? (size_t)(colon - text) : strlen(text);

	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	snprintf(host, HOST_SIZE, "%.*s", (int)n, text);
}

/* Asks over an open connection, encrypted where `host` says who must be at its end. */
static int
ask(int fd, const char *host, const char *request, size_t length, uint64_t deadline_ns,
    struct control_answer *ret, char *reterr, size_t reterr_size)
{
	struct link link = {.fd = fd, .ssl = host != NULL ? control_tls_new(fd, host) : NULL};
	char reason[128];
	int status = -1, saved = EPROTO;

	if (host == NULL || link.ssl != NULL) {
		status = exchange(&link, request, length, deadline_ns, ret);
		saved = errno;
	}
	snprintf(reason, sizeof(reason), "%s", strerror(saved));
	if (status != 0 && host != NULL && saved == EPROTO)
		control_tls_reason(link.ssl, reason, sizeof(reason));
	SSL_free(link.ssl);
	if (status != 0)
		return failed(reterr, reterr_size, "%s", reason);
	return 0;
}

/* GET where body is null. */
static int
request_json(const char *address, const char *path, const char *body, struct control_answer *ret,
             char *reterr, size_t reterr_size)
{
	uint64_t deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
	bool encrypted = strncmp(address, TLS_PREFIX, strlen(TLS_PREFIX)) == 0;
	const char *text = encrypted ? address + strlen(TLS_PREFIX) : address;
	char request[REQUEST_BYTES_MAX], host[HOST_SIZE], reason[160];
	struct net_address where;
	const char *why;
	int fd, n, status;

	host_of(text, host);
	if (resolve(text, &where, &why) != 0)
		return failed(reterr, reterr_size, "%s: %s", address, why);
	n = make_request(request, sizeof(request), path, body);
	if (n == -1)
		return failed(reterr, reterr_size, "the request is too long");
	fd = open_connection(&where, deadline_ns);
	if (fd == -1)
		return failed(reterr, reterr_size, "no gateway answers at %s: %s", address,
		              strerror(errno));
	status = ask(fd, encrypted ? host : NULL, request, (size_t)n, deadline_ns, ret, reason,
	             sizeof(reason));
	if (status != 0)
		failed(reterr, reterr_size, "no answer from %s: %s", address, reason);
	close(fd);
	return status;
}

int
control_get(const char *address, const char *path, struct control_answer *ret, char *reterr,
            size_t reterr_size)
{
	return request_json(address, path, NULL, ret, reterr, reterr_size);
}

int
control_post(const char *address, const char *path, const char *body, struct control_answer *ret,
             char *reterr, size_t reterr_size)
{
	return request_json(address, path, body, ret, reterr, reterr_size);
}

void
control_set_progress(void (*bytes)(size_t done))
{
	on_bytes = bytes;
}

void
control_set_timeout(unsigned ms)
{
	timeout_ms = ms;
}

void
control_answer_free(struct control_answer *answer)
{
	free(answer->body);
	answer->body = NULL;
	answer->length = 0;
}
