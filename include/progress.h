/* How far long work is, for whoever waits at a terminal: one line on standard error, written over and
 * taken away at the end. Nothing is written into pipes, on TERM=dumb, or before a moment has passed.
 * One thread. */
#ifndef TAILRACE_PROGRESS_H
#define TAILRACE_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

/* `what` is borrowed until the end. Where standard output is the same terminal nothing is shown
 * unless `beside` says that nothing goes there meanwhile. */
void progress_begin(const char *what, int beside);

/* `done` of `total` bytes (0: not known), and a count of things (0: not told) with their name. Cheap:
 * shown at most ten times a second. */
void progress_show(uint64_t done, uint64_t total, uint64_t count, const char *things);

/* Takes the line away; safe to call again. */
void progress_end(void);

#endif
