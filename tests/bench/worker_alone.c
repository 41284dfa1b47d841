/* The worker without its supervisor, for callgrind, which cannot follow a process that executes
 * itself anew. Usage: worker_alone CONFIG; ends on SIGTERM. The ring holds a short run. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/board.h"
#include "handover.h"
#include "process.h"
#include "proxy/ring.h"

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
	return worker_main(&handover, config);
}
