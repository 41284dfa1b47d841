/* The worker without its supervisor, for callgrind, which cannot follow a process that executes
 * itself anew. Usage: worker_alone CONFIG; ends on SIGTERM. A child takes the collector's place, so
 * that the ring never fills. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "base/board.h"
#include "handover.h"
#include "process.h"
#include "proxy/ring.h"

/* Takes records off the threads' rings until the worker is gone. */
static void
take_records(const struct handover *handover, size_t threads)
{
	size_t slot = handover->generation % BOARD_GENERATIONS_MAX, length;
	unsigned char *rings = board_rings_attach(handover->rings_fd, RING_BYTES);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (; rings; usleep(20000))
		for (size_t i = 0; i < threads; i++) {
			struct ring *ring = ring_attach(rings + (slot * BOARD_THREADS_MAX + i) *
			                                            (size_t)RING_BYTES);

			while (ring && ring_peek(ring, &length))
				ring_release(ring);
		}
	exit(1);
}

int
main(int argc, char **argv)
{
	struct handover handover = {.config_fd = -1, .generation = 1};
	struct config_errors errs = {0};
	struct config *config;
	const char *err = "";
	char *bytes;
	size_t length;
	int life[2], ready[2];

	if (argc != 2 || pipe(life) < 0 || pipe(ready) < 0) {
		fprintf(stderr, "usage: worker_alone CONFIG\n");
		return 2;
	}
	log_init("worker alone", LOG_LEVEL_WARN);
	if (config_load_file(argv[1], &config, &bytes, &length, &errs) < 0) {
		for (size_t i = 0; i < errs.count; i++)
			fprintf(stderr, "%s\n", errs.lines[i]);
		return 78;
	}
	handover.board_fd = board_create();
	handover.rings_fd = board_rings_create(RING_BYTES);
	handover.life_fd = life[0];
	handover.ready_fd = ready[1];
	for (size_t i = 0; i < config->listener_count; i++) {
		handover.listener_fds[i] =
		    net_listen(&config->listeners[i].address, 1024, 0660, &err);
		if (handover.listener_fds[i] < 0)
			fatal("%s: %s", config->listeners[i].text, err);
		handover.listener_of[i] = (uint16_t)i;
		handover.listener_count++;
	}
	if (fork() == 0)
		take_records(&handover, config->worker.threads);
	return worker_main(&handover, config);
}
