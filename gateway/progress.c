/* One line on the terminal. */
#include "progress.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

#define FIRST_MS 300 /* what is shorter needs none */
#define EVERY_MS 100
#define MIB (1024.0 * 1024.0)

static struct {
	const char *what; /* null: not shown */
	uint64_t next_ns;
	bool is_shown;
} state;

void
progress_begin(const char *what, int beside)
{
	const char *type = getenv("TERM");

	state.what = isatty(STDERR_FILENO) && (beside || !isatty(STDOUT_FILENO)) && type != NULL &&
	                     strcmp(type, "dumb") != 0
	                 ? what
	                 : NULL;
	state.next_ns = clock_now_ns() + FIRST_MS * NS_PER_MS;
}

void
progress_show(uint64_t done, uint64_t total, uint64_t count, const char *things)
{
	uint64_t now_ns;

	if (state.what == NULL)
		return;
	now_ns = clock_now_ns();
	if (now_ns < state.next_ns)
		return;
	state.next_ns = now_ns + EVERY_MS * NS_PER_MS;
	state.is_shown = true;
	fprintf(stderr, "\r\033[Ktailrace: %s: ", state.what);
	if (count > 0)
		fprintf(stderr, "%llu %s, ", (unsigned long long)count, things);
	if (total > 0 && done <= total)
		fprintf(stderr, "%.0f %% of %.1f MiB", 100 * (double)done / (double)total,
		        (double)total / MIB);
	else
		fprintf(stderr, "%.1f MiB", (double)done / MIB);
	fflush(stderr);
}

void
progress_end(void)
{
	if (state.is_shown)
		fputs("\r\033[K", stderr);
	state.is_shown = false;
	state.what = NULL;
}
