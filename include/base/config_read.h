/* Fills struct config from JSON by the table of keys: types, ranges, defaults, unknown keys.
 * What hangs on several keys at once is config_check's. */
#ifndef TAILRACE_BASE_CONFIG_READ_H
#define TAILRACE_BASE_CONFIG_READ_H

#include <jansson.h>
#include "base/config.h"
#include "base/config_errors.h"

/* Beside a server's name in settled bytes: the address it had when the supervisor looked it up. */
#define CONFIG_SETTLED_KEY "$address"

/* Fills `config` (zeroed before) as far as the JSON allows, and adds an error for every value
 * that it does not. Names of hosts and users are looked up (blocking); those of servers are not
 * where the bytes are `settled` (a child must start while no name can be resolved). */
void config_read(json_t *root, struct config *config, struct config_place *place, bool settled);

#endif
