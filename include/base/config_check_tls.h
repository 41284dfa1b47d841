/* What hangs together in the TLS sections: certificates and keys on the host, names of servers,
 * what a control listener needs. */
#ifndef TAILRACE_BASE_CONFIG_CHECK_TLS_H
#define TAILRACE_BASE_CONFIG_CHECK_TLS_H

#include "base/config.h"
#include "base/config_errors.h"

/* Completes the names servers must have, and adds an error for every conflict. With `on_host`, the
 * files are read too (blocking), and given back at once: nothing of a key stays. */
void config_check_tls(struct config *config, struct config_place *place, bool on_host);

#endif
