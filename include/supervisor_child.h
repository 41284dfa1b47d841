/* One child of the supervisor: its process, its pipes, its place on the board, when to start it
 * again. */
#ifndef TAILRACE_SUPERVISOR_CHILD_H
#define TAILRACE_SUPERVISOR_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/board.h"
#include "handover.h"

#define CHILD_READY_MS 10000     /* to say that it serves */
#define CHILD_HEARTBEAT_MS 10000 /* age of a heartbeat that is none */
#define CHILD_BACKOFF_MIN_MS 100
#define CHILD_BACKOFF_MAX_MS 5000
#define CHILD_STABLE_MS 10000 /* lived so long: the next death is a first one again */

enum child_state {
	CHILD_DOWN,     /* no process; restart_ns says when there is one again */
	CHILD_STARTING, /* started, not ready */
	CHILD_SERVING,  /* ready */
	CHILD_STOPPING, /* told to end */
	CHILD_ENDED,    /* gone, and not to come back */
};

struct child {
	const char *role; /* SPAWN_ROLE_*, borrowed */
	struct board *board;
	struct board_process *place; /* on the board */
	struct handover handover;    /* what each start passes; life_fd and ready_fd are set anew */
	enum child_state state;
	pid_t pid;
	int life_fd, ready_fd; /* ours: write end, read end; -1 = none */
	uint64_t started_ns;
	uint64_t deadline_ns; /* STARTING: ready by then; STOPPING: gone by then */
	uint64_t restart_ns;  /* DOWN */
	uint32_t backoff_ms;
	uint64_t *generations;        /* a worker's: the number given last, of all workers */
	uint32_t threads;             /* a worker's; 0 for the collector */
	uint32_t shutdown_timeout_ms; /* a worker's, of its configuration */
	bool once;                    /* on trial: not started again where it ends */
	bool was_ready;               /* ever, in any of its processes */
	bool was_killed;              /* for not ending when told */
	uint64_t hurried_ns;          /* told to end now, for its place is needed; 0 = not */
	bool hurried_twice;
	bool again; /* told to end, and to be started anew at once */
};

/* Starts a process where `now_ns` has reached restart_ns; returns whether it did. A worker gets the
 * next generation each time whose place on the board is free. */
bool child_start(struct child *child, uint64_t now_ns);

/* Reads ready_fd when it is readable. */
void child_on_ready(struct child *child, uint64_t now_ns);

/* The process ended with `status` of waitpid(): counts what it lost, and plans the next start (or
 * CHILD_ENDED where it was told to end). */
void child_on_exit(struct child *child, int status, uint64_t now_ns);

/* Tells it to end (again): SIGTERM, and SIGKILL once `limit_ms` passed. Without a process:
 * ended. */
void child_stop(struct child *child, uint64_t now_ns, uint64_t limit_ms);

/* Sends a signal to its process, where there is one that is ready for it. */
void child_signal(const struct child *child, int number);

/* Kills what missed a deadline or shows no heartbeat. Called about once a second and at
 * deadlines. */
void child_watch(struct child *child, uint64_t now_ns);

/* Whether its heartbeat is younger than CHILD_HEARTBEAT_MS. */
bool child_is_alive(const struct child *child, uint64_t now_ns);

/* Counts its heartbeats from now on: after a time in which nobody could run. */
void child_forgive(struct child *child, uint64_t now_ns);

/* The next time at which child_start() or child_watch() has something to do; UINT64_MAX = none. */
uint64_t child_next_ns(const struct child *child);

#endif
