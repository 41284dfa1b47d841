/* Checks of the section `alerts`: windows that fit each other, rules that can hold, receivers that
 * can be reached. */
#ifndef TAILRACE_BASE_CONFIG_CHECK_ALERTS_H
#define TAILRACE_BASE_CONFIG_CHECK_ALERTS_H

#include "base/config.h"
#include "base/config_errors.h"

/* As config_check(), of which it is a part: routes have their names already. */
void config_check_alerts(struct config *config, struct config_place *place, bool on_host);

#endif
