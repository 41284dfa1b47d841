/* The configuration in force as JSON, made from the table of keys: every key with its value, defaults
 * filled in; what may hold a secret is cut. One thread, for getpwuid(). */
#ifndef TAILRACE_BASE_CONFIG_SHOW_H
#define TAILRACE_BASE_CONFIG_SHOW_H

#include <jansson.h>
#include "base/config.h"

/* An object like the file's; owned by the caller, null where memory is short. URLs keep scheme, host
 * and port: what follows may be a secret (webhooks). Files are named, never read. */
json_t *config_show(const struct config *config);

#endif
