/* Starts children by fork and exec of the running program, and reads on their side what they
 * were given. */
#ifndef TAILRACE_SUPERVISOR_SPAWN_H
#define TAILRACE_SUPERVISOR_SPAWN_H

#include <sys/types.h>
#include "handover.h"

/* First argument of a child: tells main() which role it has. */
#define SPAWN_ROLE_WORKER "worker"
#define SPAWN_ROLE_COLLECTOR "collector"

/* Starts a child with the descriptors of `handover` (all others are closed by exec). INT, QUIT,
 * HUP, USR1, USR2 and PIPE are ignored in it, all signals unblocked. Returns its process ID, or
 * -1 with errno. */
pid_t spawn_child(const char *role, const struct handover *handover);

/* In the child: reads the arguments that spawn_child() made into `ret`, and marks the descriptors
 * close-on-exec. Returns 0, or -1 where somebody else made them. */
int spawn_receive(int argc, char **argv, struct handover *ret);

#endif
