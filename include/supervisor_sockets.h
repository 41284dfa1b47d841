/* The supervisor's listening sockets: opened once, handed to every child, kept over reloads and
 * upgrades. What belongs to what is told by address, so a reload may move, add and take away
 * listeners, and the service manager may have opened some. */
#ifndef TAILRACE_SUPERVISOR_SOCKETS_H
#define TAILRACE_SUPERVISOR_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/board.h"
#include "base/config.h"
#include "handover.h"

/* Of an old and a new configuration at one time. */
#define SUPERVISOR_SOCKETS_MAX (2 * (HANDOVER_LISTENERS_MAX + CONFIG_LISTENERS_MAX))

struct supervisor_socket {
	int fd;
	bool passed; /* by the service manager: its file, where it has one, is not ours to remove */
	dev_t device; /* of a unix socket's file, so that another's in its place is known */
	ino_t inode;
	struct net_address address;
	char text[NET_ADDRESS_TEXT_SIZE]; /* of the address, as net_address_format() writes it */
};

struct supervisor_sockets {
	struct supervisor_socket list[SUPERVISOR_SOCKETS_MAX];
	size_t count;
};

/* Takes over a listening socket that somebody else opened. Returns 0, or -1 where it is none, or
 * there is no room (logged; the descriptor stays open). */
int supervisor_sockets_adopt(struct supervisor_sockets *sockets, int fd, bool passed);

/* Takes over what the service manager passed (sd_listen_fds(3)), and forgets the variables. Call
 * before any descriptor is opened. Returns 0, or -1 (logged). */
int supervisor_sockets_adopt_passed(struct supervisor_sockets *sockets);

/* Opens what `config` lacks: one socket per control listener and listener, or one per worker thread
 * where that is on TCP and there are several threads. Never fewer than there are: threads share out
 * what there is (worker.c), since a closed socket of several would reset what waits on it; and one
 * opened alone stays alone, shared by all threads. Returns 0, or -1: the first failure is logged,
 * and what was opened by this call is closed again. */
int supervisor_sockets_open(struct supervisor_sockets *sockets, const struct config *config);

/* The sockets of config->listeners, or of config->control.listeners, as a child gets them. */
void supervisor_sockets_hand_over(const struct supervisor_sockets *sockets,
                                  const struct config *config, bool control, struct handover *ret);

/* Closes what `config` does not name, and removes its files; new connections to it are held off
 * first, so call it before the worker that still accepts there is told to drain. */
void supervisor_sockets_trim(struct supervisor_sockets *sockets, const struct config *config);

/* Says which of them `config` never used: passed in vain. */
void supervisor_sockets_warn_unused(const struct supervisor_sockets *sockets,
                                    const struct config *config);

/* Lets go of the clients' sockets, so that the last worker that closes them ends them: new
 * connections are then refused, instead of waiting in a queue that nobody will ever read. None
 * comes between the last that a worker accepts and its close (net_refuse_new()). */
void supervisor_sockets_refuse(struct supervisor_sockets *sockets, const struct config *config);

/* Connections that wait to be accepted, per client listener on TCP, onto the board. Once a second;
 * a system call per socket. */
void supervisor_sockets_measure(const struct supervisor_sockets *sockets,
                                const struct config *config, struct board *board);

/* Removes the socket files that are still ours, and closes. */
void supervisor_sockets_close(struct supervisor_sockets *sockets);

#endif
