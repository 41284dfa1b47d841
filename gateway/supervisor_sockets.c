/* Opens the listening sockets of clients and control plane, and removes their files at the end. */
#include "supervisor_sockets.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "process.h"

#define BACKLOG 4096      /* the kernel cuts it to net.core.somaxconn */
#define PUBLIC_MODE 0666  /* a public unix listener is as open as a port */
#define CONTROL_MODE 0660 /* peers are checked again by their credentials */
#define FOLDER_MODE 0755

_Static_assert(CONFIG_LISTENERS_MAX *CONFIG_THREADS_MAX <= HANDOVER_LISTENERS_MAX,
               "every listener can be handed over");

static int
open_one(const struct config *config, const char *text, const struct net_address *address,
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

static void
keep(struct supervisor_sockets *sockets, int fd, size_t index)
{
	sockets->of[sockets->count] = (uint16_t)index;
	sockets->fds[sockets->count++] = fd;
}

/* The first socket of a listener: alone, or the first of several, of which a plain one has shown
 * that the address is free (any process of ours may join a group of several). */
static int
open_first(const struct config *config, const struct config_listener *own, size_t threads)
{
	const char *why = "";
	int fd;

	if (threads == 1 || own->address.sa.sa_family == AF_UNIX)
		return open_one(config, own->text, &own->address, PUBLIC_MODE);
	if (net_address_is_free(&own->address, &why))
		fd = net_listen_shared(&own->address, BACKLOG, &why);
	else
		fd = -1;
	if (fd == -1)
		log_error("%s: %s: %s", own->text, why, strerror(errno));
	return fd;
}

int
supervisor_sockets_grow(const struct config *config, struct supervisor_sockets *sockets,
                        size_t index, size_t threads)
{
	const struct config_listener *own = &config->listeners[index];
	size_t have = 0;
	const char *why = "";
	int fd = -1;

	for (size_t i = 0; i < sockets->count; i++) {
		if (sockets->of[i] != index)
			continue;
		fd = sockets->fds[i];
		have++;
	}
	if (have == 0) {
		fd = open_first(config, own, threads);
		if (fd == -1)
			return -1;
		keep(sockets, fd, index);
		have = 1;
	}
	for (bool several = net_is_shared(fd); several && have < threads; have++) {
		fd = net_listen_shared(&own->address, BACKLOG, &why);
		if (fd == -1) {
			log_error("%s: %s: %s", own->text, why, strerror(errno));
			return -1;
		}
		keep(sockets, fd, index);
	}
	return 0;
}

int
supervisor_sockets_open(const struct config *config, struct supervisor_sockets *ret)
{
	*ret = (struct supervisor_sockets){0};
	for (size_t i = 0; i < config->control.listener_count; i++) {
		const struct config_control_listener *own = &config->control.listeners[i];
		int fd = open_one(config, own->text, &own->address, CONTROL_MODE);

		if (fd == -1)
			goto failed;
		ret->control_fds[ret->control_count++] = fd;
	}
	for (size_t i = 0; i < config->listener_count; i++)
		if (supervisor_sockets_grow(config, ret, i, config->worker.threads) == -1)
			goto failed;
	return 0;
failed:
	supervisor_sockets_close(config, ret);
	return -1;
}

void
supervisor_sockets_refuse(struct supervisor_sockets *sockets)
{
	for (size_t i = 0; i < sockets->count; i++) {
		if (sockets->fds[i] != -1)
			close(sockets->fds[i]);
		sockets->fds[i] = -1;
	}
}

/* Another instance may serve the path by now, where somebody removed our file: then it must
 * stay. */
static void
close_one(int fd, const struct net_address *address)
{
	/* Closed first: the path then either refuses (it was ours) or another process serves it. */
	if (fd != -1)
		close(fd);
	if (address->sa.sa_family == AF_UNIX) {
		int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		if (probe == -1)
			return;
		if (connect(probe, &address->sa, address->length) == -1 && errno == ECONNREFUSED)
			unlink(address->un.sun_path);
		close(probe);
	}
}

void
supervisor_sockets_close(const struct config *config, struct supervisor_sockets *sockets)
{
	for (size_t i = 0; i < sockets->count; i++)
		close_one(sockets->fds[i], &config->listeners[sockets->of[i]].address);
	for (size_t i = 0; i < sockets->control_count; i++)
		close_one(sockets->control_fds[i], &config->control.listeners[i].address);
	sockets->count = 0;
	sockets->control_count = 0;
}
