/* Opens, adopts, hands over and closes listening sockets. */
#include "supervisor_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "process.h"

#define BACKLOG 4096      /* the kernel cuts it to net.core.somaxconn */
#define PUBLIC_MODE 0666  /* a public unix listener is as open as a port */
#define CONTROL_MODE 0660 /* peers are checked again by their credentials */
#define FOLDER_MODE 0755
#define PASSED_FIRST 3 /* SD_LISTEN_FDS_START */

_Static_assert(CONFIG_LISTENERS_MAX *CONFIG_THREADS_MAX <= HANDOVER_LISTENERS_MAX,
               "every listener can be handed over");

_Static_assert(CONFIG_LISTENERS_MAX <= BOARD_LISTENERS_MAX, "every listener has its place");

static bool
is_at(const struct supervisor_socket *socket, const struct net_address *address)
{
	char text[NET_ADDRESS_TEXT_SIZE];

	net_address_format(address, text, sizeof(text));
	return strcmp(socket->text, text) == 0;
}

static void
keep(struct supervisor_sockets *sockets, int fd, const struct net_address *address, bool passed)
{
	struct supervisor_socket *socket = &sockets->list[sockets->count++];
	struct stat st;

	*socket = (struct supervisor_socket){.fd = fd, .passed = passed, .address = *address};
	net_address_format(address, socket->text, sizeof(socket->text));
	if (address->sa.sa_family != AF_UNIX || stat(address->un.sun_path, &st) == -1)
		return;
	socket->device = st.st_dev;
	socket->inode = st.st_ino;
}

/* --- taken over ------------------------------------------------------------------------ */

int
supervisor_sockets_adopt(struct supervisor_sockets *sockets, int fd, bool passed)
{
	struct sockaddr_storage storage = {0};
	socklen_t length = sizeof(storage), size = sizeof(int);
	struct net_address address;
	int listens = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == -1 || !listens ||
	    getsockname(fd, (struct sockaddr *)(void *)&storage, &length) == -1) {
		log_error("descriptor %d: no listening socket", fd);
		return -1;
	}
	if (sockets->count == SUPERVISOR_SOCKETS_MAX) {
		log_error("descriptor %d: too many sockets", fd);
		return -1;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	net_set_nonblocking(fd);
	net_address_from((struct sockaddr *)(void *)&storage, length, &address);
	keep(sockets, fd, &address, passed);
	return 0;
}

int
supervisor_sockets_adopt_passed(struct supervisor_sockets *sockets)
{
	const char *pid = getenv("LISTEN_PID"), *text = getenv("LISTEN_FDS");
	long count = text != NULL ? strtol(text, NULL, 10) : 0;
	int result = 0;

	if (pid == NULL || strtol(pid, NULL, 10) != (long)getpid())
		count = 0;
	for (int fd = PASSED_FIRST; fd < PASSED_FIRST + count && result == 0; fd++)
		result = supervisor_sockets_adopt(sockets, fd, true);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return result;
}

/* --- opened ---------------------------------------------------------------------------- */

static int
open_alone(const struct config *config, const char *text, const struct net_address *address,
           unsigned mode)
{
	bool is_unix = address->sa.sa_family == AF_UNIX;
	const char *why = "";
	int fd;

	if (is_unix && process_make_folder(config, address->un.sun_path, FOLDER_MODE) == -1) {
		log_error("%s: folder cannot be made: %s", text, strerror(errno));
		return -1;
	}
	fd = net_listen(address, BACKLOG, mode, &why);
	if (fd == -1) {
		log_error("%s: %s: %s", text, why, strerror(errno));
		return -1;
	}
	if (is_unix && chown(address->un.sun_path, config->process.uid, config->process.gid) == -1)
		log_warn("%s: owner cannot be set: %s", text, strerror(errno));
	return fd;
}

/* One of several; where it is the first, a plain one has to show before that the address is free,
 * since any process of ours may join a group of several. */
static int
open_shared(const char *text, const struct net_address *address, bool first)
{
	const char *why = "";
	int fd = -1;

	if (!first || net_address_is_free(address, &why))
		fd = net_listen_shared(address, BACKLOG, &why);
	if (fd == -1)
		log_error("%s: %s: %s", text, why, strerror(errno));
	return fd;
}

/* Of those at an address: how many, and whether more may join them. */
static size_t
count_at(const struct supervisor_sockets *sockets, const struct net_address *address,
         bool *ret_shared)
{
	size_t count = 0;

	*ret_shared = false;
	for (size_t i = 0; i < sockets->count; i++) {
		if (!is_at(&sockets->list[i], address))
			continue;
		count++;
		*ret_shared = net_is_shared(sockets->list[i].fd);
	}
	return count;
}

/* Opens what one listener lacks for `threads` threads. */
static int
grow(struct supervisor_sockets *sockets, const struct config *config, const char *text,
     const struct net_address *address, unsigned mode, size_t threads)
{
	bool several = threads > 1 && address->sa.sa_family != AF_UNIX, shared;
	size_t have = count_at(sockets, address, &shared);

	while (have == 0 || (several && shared && have < threads)) {
		int fd = several ? open_shared(text, address, have == 0)
		                 : open_alone(config, text, address, mode);

		if (fd == -1)
			return -1;
		keep(sockets, fd, address, false);
		shared = several;
		have++;
	}
	return 0;
}

/* The service manager goes on with what it passed: that is never told to refuse. */
static void
refuse_new(const struct supervisor_socket *own)
{
	if (own->fd == -1 || own->passed || own->address.sa.sa_family == AF_UNIX)
		return;
	if (net_refuse_new(own->fd) == 0)
		return;
	/* Some kernels want rights for it, and nobody takes those to stop a little better. */
	if (errno == EPERM)
		log_debug("%s: new connections cannot be held off: %s", own->text, strerror(errno));
	else
		log_warn("%s: new connections cannot be held off: %s", own->text, strerror(errno));
}

/* Another instance may serve the path by now, where somebody removed our file: then it must
 * stay. */
static void
close_one(const struct supervisor_socket *own)
{
	const struct net_address *address = &own->address;
	int probe;

	refuse_new(own);
	/* Closed first: the path then either refuses (it was ours) or another process serves it. */
	if (own->fd != -1)
		close(own->fd);
	if (address->sa.sa_family != AF_UNIX || own->passed)
		return;
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe == -1)
		return;
	if (connect(probe, &address->sa, address->length) == -1 && errno == ECONNREFUSED)
		unlink(address->un.sun_path);
	close(probe);
}

/* Children of ours may serve it for a moment yet: the file itself tells whose it is. */
static void
remove_file(const struct supervisor_socket *own)
{
	const char *path = own->address.un.sun_path;
	struct stat st;

	if (own->address.sa.sa_family == AF_UNIX && !own->passed && stat(path, &st) == 0 &&
	    st.st_dev == own->device && st.st_ino == own->inode)
		unlink(path);
}

static void
close_from(struct supervisor_sockets *sockets, size_t first)
{
	for (size_t i = first; i < sockets->count; i++)
		close_one(&sockets->list[i]);
	sockets->count = first;
}

int
supervisor_sockets_open(struct supervisor_sockets *sockets, const struct config *config)
{
	size_t before = sockets->count;

	for (size_t i = 0; i < config->control.listener_count; i++) {
		const struct config_control_listener *own = &config->control.listeners[i];

		if (grow(sockets, config, own->text, &own->address, CONTROL_MODE, 1) == -1)
			goto failed;
	}
	for (size_t i = 0; i < config->listener_count; i++) {
		const struct config_listener *own = &config->listeners[i];

		if (grow(sockets, config, own->text, &own->address, PUBLIC_MODE,
		         config->worker.threads) == -1)
			goto failed;
	}
	return 0;
failed:
	close_from(sockets, before);
	return -1;
}

/* --- who gets which -------------------------------------------------------------------- */

static void
hand_over_at(const struct supervisor_sockets *sockets, const struct net_address *address,
             size_t index, bool one, struct handover *ret)
{
	for (size_t i = 0; i < sockets->count; i++) {
		if (sockets->list[i].fd == -1 || !is_at(&sockets->list[i], address) ||
		    ret->listener_count == HANDOVER_LISTENERS_MAX)
			continue;
		ret->listener_fds[ret->listener_count] = sockets->list[i].fd;
		ret->listener_of[ret->listener_count++] = (uint16_t)index;
		if (one)
			return;
	}
}

void
supervisor_sockets_hand_over(const struct supervisor_sockets *sockets, const struct config *config,
                             bool control, struct handover *ret)
{
	ret->listener_count = 0;
	for (size_t i = 0; control && i < config->control.listener_count; i++)
		hand_over_at(sockets, &config->control.listeners[i].address, i, true, ret);
	for (size_t i = 0; !control && i < config->listener_count; i++)
		hand_over_at(sockets, &config->listeners[i].address, i, false, ret);
}

static bool
is_client(const struct supervisor_socket *socket, const struct config *config)
{
	for (size_t i = 0; i < config->listener_count; i++)
		if (is_at(socket, &config->listeners[i].address))
			return true;
	return false;
}

static bool
is_named(const struct supervisor_socket *socket, const struct config *config)
{
	for (size_t i = 0; i < config->control.listener_count; i++)
		if (is_at(socket, &config->control.listeners[i].address))
			return true;
	return is_client(socket, config);
}

void
supervisor_sockets_trim(struct supervisor_sockets *sockets, const struct config *config)
{
	size_t kept = 0;

	for (size_t i = 0; i < sockets->count; i++) {
		if (is_named(&sockets->list[i], config) || sockets->list[i].passed) {
			sockets->list[kept++] = sockets->list[i];
			continue;
		}
		log_info("%s: listened on no more", sockets->list[i].text);
		remove_file(&sockets->list[i]);
		close_one(&sockets->list[i]);
	}
	sockets->count = kept;
}

void
supervisor_sockets_warn_unused(const struct supervisor_sockets *sockets,
                               const struct config *config)
{
	for (size_t i = 0; i < sockets->count; i++)
		if (!is_named(&sockets->list[i], config))
			log_warn("%s: passed by the service manager, but no listener names it",
			         sockets->list[i].text);
}

void
supervisor_sockets_refuse(struct supervisor_sockets *sockets, const struct config *config)
{
	for (size_t i = 0; i < sockets->count; i++) {
		if (!is_client(&sockets->list[i], config))
			continue;
		refuse_new(&sockets->list[i]);
		if (sockets->list[i].fd != -1)
			close(sockets->list[i].fd);
		sockets->list[i].fd = -1;
	}
}

/* --- queues ---------------------------------------------------------------------------- */

static void
add_queue(const struct supervisor_socket *socket, uint32_t *depth, uint32_t *limit)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof(info);

	if (socket->fd == -1 || getsockopt(socket->fd, IPPROTO_TCP, TCP_INFO, &info, &length) == -1)
		return;
	/* Of a listening socket these two count what waits, and what may (tcp_get_info()). */
	*depth += info.tcpi_unacked;
	*limit += info.tcpi_sacked;
}

void
supervisor_sockets_measure(const struct supervisor_sockets *sockets, const struct config *config,
                           struct board *board)
{
	size_t used = 0;

	for (size_t i = 0; i < config->listener_count && used < BOARD_LISTENERS_MAX; i++) {
		const struct net_address *address = &config->listeners[i].address;
		struct board_listener *place = &board->listeners[used];
		uint32_t depth = 0, limit = 0;

		if (address->sa.sa_family == AF_UNIX)
			continue;
		for (size_t j = 0; j < sockets->count; j++)
			if (is_at(&sockets->list[j], address))
				add_queue(&sockets->list[j], &depth, &limit);
		if (strncmp(place->address, config->listeners[i].text,
		            sizeof(place->address) - 1) != 0)
			strncpy(place->address, config->listeners[i].text,
			        sizeof(place->address) - 1);
		atomic_store_explicit(&place->depth, depth, memory_order_relaxed);
		atomic_store_explicit(&place->limit, limit, memory_order_relaxed);
		used++;
	}
	atomic_store_explicit(&board->listener_count, (uint32_t)used, memory_order_release);
}

void
supervisor_sockets_close(struct supervisor_sockets *sockets)
{
	close_from(sockets, 0);
}
