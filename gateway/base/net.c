/* Sockets: listening and connecting without blocking. Addresses and blocks of them are in
 * net_address.c. */
#include "base/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

int
net_set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags == -1 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* Closes and keeps the errno that told why. Always -1. */
static int
close_failed(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

/* A socket file is dead where nobody accepts on it: the kernel refuses the connection. Returns 0
 * where the path is free now, -1 with errno and *reterr where it is in use or no socket. */
static int
clear_dead_socket(const struct net_address *address, const char **reterr)
{
	struct stat st;
	int fd, connected;

	if (lstat(address->un.sun_path, &st) == -1)
		return errno == ENOENT ? 0 : -1;
	if (!S_ISSOCK(st.st_mode)) {
		*reterr = "a file that is no socket is in the way";
		errno = EEXIST;
		return -1;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		return -1;
	connected = connect(fd, &address->sa, address->length);
	/* EAGAIN: somebody listens and is only busy. */
	if (connected == 0 || errno != ECONNREFUSED) {
		*reterr = "another process serves this socket";
		close(fd);
		errno = EADDRINUSE;
		return -1;
	}
	close(fd);
	return unlink(address->un.sun_path) == 0 || errno == ENOENT ? 0 : -1;
}

static int
set_listen_options(int fd, const struct net_address *address)
{
	int on = 1;

	if (address->sa.sa_family == AF_UNIX)
		return 0;
	/* Behaviour must not hang on a sysctl: [::] is IPv6 alone, 0.0.0.0 may stand beside it. */
	if (address->sa.sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == -1)
		return -1;
	return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

static int
bind_unix(int fd, const struct net_address *address, unsigned mode, const char **reterr)
{
	*reterr = "cannot make the socket file";
	if (clear_dead_socket(address, reterr) == -1)
		return -1;
	/* The mode set before bind() (less the umask) is the file's from its first moment; the
	 * umask's bits are added after. */
	if (fchmod(fd, mode) == -1 || bind(fd, &address->sa, address->length) == -1)
		return -1;
	return chmod(address->un.sun_path, mode);
}

/* A bound socket; `shared` for SO_REUSEPORT. */
static int
bound(const struct net_address *address, unsigned unix_mode, bool shared, const char **reterr)
{
	int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1;

	*reterr = "cannot make a socket";
	if (fd == -1)
		return -1;
	if (set_listen_options(fd, address) == -1 ||
	    (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == -1))
		return close_failed(fd);
	if (address->sa.sa_family == AF_UNIX)
		return bind_unix(fd, address, unix_mode, reterr) == 0 ? fd : close_failed(fd);
	*reterr = "cannot bind";
	return bind(fd, &address->sa, address->length) == 0 ? fd : close_failed(fd);
}

static int
listening(int fd, int backlog, const char **reterr)
{
	if (fd == -1)
		return -1;
	*reterr = "cannot listen";
	return listen(fd, backlog) == 0 ? fd : close_failed(fd);
}

int
net_listen(const struct net_address *address, int backlog, unsigned unix_mode, const char **reterr)
{
	return listening(bound(address, unix_mode, false, reterr), backlog, reterr);
}

int
net_listen_shared(const struct net_address *address, int backlog, const char **reterr)
{
	return listening(bound(address, 0, true, reterr), backlog, reterr);
}

bool
net_address_is_free(const struct net_address *address, const char **reterr)
{
	int fd = bound(address, 0, false, reterr);

	if (fd != -1)
		close(fd);
	return fd != -1;
}

bool
net_is_shared(int fd)
{
	int on = 0;
	socklen_t length = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, &length) == 0 && on;
}

int
net_refuse_new(int fd)
{
	enum { TCP_FLAGS_AT = 13, TCP_FLAG_SYN = 2, WHOLE = 0x7fffffff };
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, TCP_FLAGS_AT),
	    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, TCP_FLAG_SYN, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, 0),
	    BPF_STMT(BPF_RET | BPF_K, WHOLE),
	};
	const struct sock_fprog program = {.len = sizeof(code) / sizeof(*code), .filter = code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

int
net_connect(const struct net_address *address, bool *ret_connected)
{
	int on = 1;
	int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd == -1)
		return -1;
	if (address->sa.sa_family != AF_UNIX &&
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == -1)
		return close_failed(fd);
	*ret_connected = connect(fd, &address->sa, address->length) == 0;
	/* A unix socket whose backlog is full says EAGAIN and is not connecting: a failure. */
	if (!*ret_connected && errno != EINPROGRESS)
		return close_failed(fd);
	return fd;
}
