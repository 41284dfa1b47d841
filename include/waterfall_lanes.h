/* The lanes of a request for people: one line each, what it did drawn on the time axis. */
#ifndef TAILRACE_WATERFALL_LANES_H
#define TAILRACE_WATERFALL_LANES_H

#include <jansson.h>
#include "table.h"

/* Prints the section; nothing where the profile has no lanes. */
void waterfall_lanes(const struct table *table, const json_t *profile);

#endif
