/* Overrides of scalar keys from the environment: TAILRACE_CONF__SECTION__KEY=value. */
#ifndef TAILRACE_BASE_CONFIG_ENV_H
#define TAILRACE_BASE_CONFIG_ENV_H

#include <jansson.h>
#include "base/config.h"

#define CONFIG_ENV_PREFIX "TAILRACE_CONF__"

/*
 * Sets what the environment names in `root`, adding an error for every name that no scalar key has.
 * Segments between "__" are keys in upper case; an upstream's name likewise; an element of a list
 * by its number: TAILRACE_CONF__UPSTREAMS__APP__MAX_CONNECTIONS,
 * TAILRACE_CONF__LISTENERS__0__ADDRESS. Only upstreams and elements that the file has can be named.
 * Values are checked later, with the file's.
 */
void config_env_apply(json_t *root, char *const *environment, struct config_errors *errs);

#endif
