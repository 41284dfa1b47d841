/* The collector process: rings in, profiles in, store and control API out. In no request's way: it may be
 * killed and restarted while traffic flows. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "handover.h"

int
collector_main(const struct handover *handover, const struct config *config)
{
	process_drop_rights(config);
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	int signal_fd = signalfd(-1, &mask, SFD_CLOEXEC);
	if (signal_fd < 0)
		fatal("signalfd: cannot be made");
	ssize_t written = write(handover->ready_fd, "R", 1);
	(void)written;
	close(handover->ready_fd);
	struct pollfd polled[2] = {{.fd = handover->life_fd, .events = POLLIN},
				   {.fd = signal_fd, .events = POLLIN}};
	while (poll(polled, 2, -1) < 0 && errno == EINTR)
		;
	return 0;
}
