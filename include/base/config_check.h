/* What hangs on several keys at once, and on the machine: derived values, defaults of places,
 * conflicts. */
#ifndef TAILRACE_BASE_CONFIG_CHECK_H
#define TAILRACE_BASE_CONFIG_CHECK_H

#include "base/config.h"
#include "base/config_errors.h"

/* Completes a struct that config_read() filled, and adds an error for every conflict. With
 * `on_host`, token files are read too: only where the starter's rights are still there. */
void config_check(struct config *config, struct config_place *place, bool on_host);

/* Why a file cannot give a secret now (it must hold something: a program that starts and then
 * cannot use it helps nobody), or null. */
const char *config_file_fault(const char *path);

#endif
