/* What a child process gets from the supervisor, and the children's entry points. Descriptors
 * are passed by fork and exec of /proc/self/exe with the roles "worker" and "collector"; the
 * argument list names them. */
#ifndef TAILRACE_HANDOVER_H
#define TAILRACE_HANDOVER_H

#include <stddef.h>
#include <stdint.h>
#include "base/config.h"

#define HANDOVER_LISTENERS_MAX 128 /* CONFIG_LISTENERS_MAX, each with a socket per thread */

struct handover {
	int config_fd; /* sealed memfd: the checked config bytes */
	int board_fd;
	int rings_fd;
	/* EOF = drain or flush, then exit. A worker's is the read end of a pipe, the collector's a socket
	 * by which the supervisor also tells it of reloads (orders.h). */
	int life_fd;
	int ready_fd; /* write one byte when serving, then close */
	uint64_t generation;
	uint32_t config_serial;
	/* Listening sockets: a worker's may be several per config->listeners entry (one per thread),
	 * a collector's are one per config->control.listeners entry, in order. */
	int listener_fds[HANDOVER_LISTENERS_MAX];
	uint16_t listener_of[HANDOVER_LISTENERS_MAX]; /* index of the entry each belongs to */
	size_t listener_count;
};

/* Run a child until it is told to end (SIGTERM, or EOF on life_fd: drain or flush, then return;
 * a second SIGTERM: now). `config` is parsed from config_fd already, the log is set up, the
 * process's rights are not yet dropped (call process_drop_rights() after privileged files are
 * read). Returns the exit status. */
int worker_main(const struct handover *handover, const struct config *config);
int collector_main(const struct handover *handover, const struct config *config);

/* setgroups, setresgid, setresuid to process.group and process.user where configured and needed.
 * Fatal where it fails. */
void process_drop_rights(const struct config *config);

#endif
