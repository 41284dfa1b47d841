/* Which exchanges the detector looks at, and which of their time. Pure. */
#ifndef TAILRACE_MODEL_WATCHED_H
#define TAILRACE_MODEL_WATCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "model/record.h"

/* Whether its latency counts: an answer of 2xx to 4xx that nobody cut off, and no tunnel or event
 * stream. */
bool watched_counts(const struct exchange_record *record);

/* The time of it that `latency` names. */
uint64_t watched_ns(const struct exchange_record *record, enum config_latency latency);

#endif
