/* What the supervisor's parts share: its loop (supervisor.c), reload (supervisor_reload.c) and
 * upgrade (supervisor_upgrade.c). One process, one thread. */
#ifndef TAILRACE_SUPERVISOR_STATE_H
#define TAILRACE_SUPERVISOR_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/board.h"
#include "base/config.h"
#include "supervisor_child.h"
#include "supervisor_sockets.h"
#include "supervisor_store.h"

#define WORKER_GRACE_MS 5000    /* beyond worker.shutdown_timeout_ms */
#define COLLECTOR_STOP_MS 10000 /* to empty the rings and commit */
#define NOW_STOP_MS 2000        /* the same, after a second signal */
#define CONFIGS_KEPT 8          /* of which a new collector may still find records */
#define ELDERS_MAX (BOARD_GENERATIONS_MAX + 1)

/* A configuration's sealed bytes. */
struct sealed {
	uint32_t serial;
	int fd;
};

/* A process of the build before the upgrade: it has a board of its own, so only its end is seen. */
struct elder {
	pid_t pid; /* 0 = none */
	int life_fd;
	bool is_worker, told;
	uint32_t shutdown_timeout_ms; /* a worker's */
	uint64_t deadline_ns;         /* gone by then; 0 = not told yet */
};

struct reload {
	struct config *config;         /* on trial; null = no reload is under way */
	struct supervisor_store store; /* what it names */
	struct child *worker; /* that is to show that it serves; null = waits for a free place */
	bool again;           /* a HUP came meanwhile */
};

struct upgrade {
	pid_t check_pid; /* the new program reads the configuration; 0 = no upgrade is under way */
	uint64_t deadline_ns;
	bool wanted; /* USR2 came in the middle of a reload */
};

struct supervisor {
	const char *path;                   /* of the configuration file */
	char program[4096];                 /* file we were started from, for the upgrade */
	struct config *config;              /* in force; owned */
	struct sealed sealed[CONFIGS_KEPT]; /* the newest last */
	size_t sealed_count;
	uint32_t serial;     /* of the configuration made last */
	uint64_t generation; /* of the worker started last */
	struct supervisor_sockets sockets;
	struct supervisor_store store;
	struct board *board;
	int board_fd, rings_fd;
	struct child workers[BOARD_GENERATIONS_MAX]; /* role null = free place */
	struct child *current;                       /* the one that serves, or is started again */
	struct child collector;
	struct reload reload;
	struct upgrade upgrade;
	struct elder elders[ELDERS_MAX];
	int signal_fd;
	uint64_t tick_ns, measured_ns; /* of the last turn that looked at heartbeats; at queues */
	uint64_t watchdog_ns, watchdog_next_ns;
	uint64_t stop_ns; /* when told to stop first; 0 = not */
	bool now;         /* told twice */
	bool last_start;  /* the collector was started for the rings' rest */
	bool announced;   /* the start was reported as done */
	bool failed;
};

/* --- children and configurations (supervisor_reload.c) ----------------------------------- */

/* Seals the bytes under the next serial, which it returns. Fatal without memory. */
uint32_t supervisor_seal(struct supervisor *s, const char *bytes, size_t length);

/* A free place among the workers, made ready for a start with `config`; null where there is none. */
struct child *supervisor_new_worker(struct supervisor *s, const struct config *config,
                                    uint32_t serial);

void supervisor_init_collector(struct supervisor *s);

/* Starts the collector where it is due, and hands it the configurations it may meet. */
void supervisor_start_collector(struct supervisor *s, uint64_t now_ns);

/* Frees the places of workers that have ended, but the current one's. */
void supervisor_free_places(struct supervisor *s);

/* HUP. */
void reload_begin(struct supervisor *s, uint64_t now_ns);

/* Each turn, after children were looked at: goes on with what is under way. */
void reload_step(struct supervisor *s, uint64_t now_ns);

/* At the stop: the worker on trial ends too. */
void reload_give_up(struct supervisor *s);

/* --- upgrade (supervisor_upgrade.c) ------------------------------------------------------ */

/* USR2. */
void upgrade_begin(struct supervisor *s, uint64_t now_ns);

/* Each turn: the new program's check, then the exec (from which nothing returns where it works). */
void upgrade_step(struct supervisor *s, uint64_t now_ns);

/* After the exec: sockets and elders from the descriptor the old program left. Returns 0, or -1
 * (logged). */
int upgrade_inherit(struct supervisor *s, int fd);

/* Each turn: tells elders to end once we serve, kills those that do not, reaps. */
void elders_step(struct supervisor *s, uint64_t now_ns);
void elders_stop(struct supervisor *s, uint64_t now_ns, bool now);
bool elders_gone(const struct supervisor *s);
uint64_t elders_next_ns(const struct supervisor *s); /* the next deadline; UINT64_MAX = none */

#endif
