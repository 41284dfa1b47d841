/* The quick way to read a tick line: three times as fast as a JSON library, for lines that are
 * plain. */
#ifndef TAILRACE_BACKTEST_SCAN_H
#define TAILRACE_BACKTEST_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "backtest_line.h"

/* Fill `ret` from a faultless tick line without escapes, other keys, numbers of more than 15
 * digits or other oddities. false: not such a line, *ret is undefined and the JSON library must
 * say what it is. */
bool backtest_scan(const char *text, size_t length, struct backtest_line *ret);

#endif
