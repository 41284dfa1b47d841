/* Opens the listening sockets of clients and control plane, and removes their files at the end. */
#include "supervisor_sockets.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "process.h"

#define BACKLOG 4096      /* the kernel cuts it to net.core.somaxconn */
#define PUBLIC_MODE 0666  /* a public unix listener is as open as a port */
#define CONTROL_MODE 0660 /* peers are checked again by their credentials */
#define FOLDER_MODE 0755

_Static_assert(CONFIG_LISTENERS_MAX <= HANDOVER_LISTENERS_MAX, "every listener can be handed over");

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
	for (size_t i = 0; i < config->listener_count; i++) {
		const struct config_listener *own = &config->listeners[i];
		int fd = open_one(config, own->text, &own->address, PUBLIC_MODE);

		if (fd == -1)
			goto failed;
		ret->fds[ret->count++] = fd;
	}
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
		close_one(sockets->fds[i], &config->listeners[i].address);
	for (size_t i = 0; i < sockets->control_count; i++)
		close_one(sockets->control_fds[i], &config->control.listeners[i].address);
	sockets->count = 0;
	sockets->control_count = 0;
}
