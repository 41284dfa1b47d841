/* `tailrace backtest`: the detector over recorded or made-up history. Ticks come as JSON Lines on
 * standard input, changes of state go as JSON Lines to standard output. docs/detector.md has the
 * format. */
#ifndef TAILRACE_BACKTEST_H
#define TAILRACE_BACKTEST_H

#include "client_tools.h"

/* Returns the exit status: 0, 1 where the input or the output is bad, with the line and the fault on
 * standard error, 78 for a bad configuration. */
int backtest_command(const struct client_options *options);

#endif
