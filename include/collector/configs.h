/* Every configuration whose records may still come. A record's indices (route, upstream, server)
 * are those of the configuration its worker ran with; while generations overlap there are several.
 * The supervisor hands each over before a worker gets it. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_CONFIGS_H
#define TAILRACE_COLLECTOR_CONFIGS_H

#include <stdint.h>
#include "base/board.h"
#include "base/config.h"

#define CONFIGS_MAX 16 /* kept; beyond, the oldest that no worker runs with goes */

struct configs;

/* `first` is borrowed, all others are owned. `more` is asked where a record names one that is not
 * there yet: it reads what the supervisor has sent (may be null). */
struct configs *configs_new(const struct config *first, const struct board *board,
                            void (*more)(void *arg), void *arg);
void configs_free(struct configs *configs);

/* Takes `config` over. One with the serial of another replaces nothing and is freed. */
void configs_add(struct configs *configs, struct config *config);

/* The one in force: never let go. At first it is `first`. */
void configs_pin(struct configs *configs, const struct config *config);

/* The configuration with that serial. One without any entry (all indices are out of range) where it
 * is not known: never another one's names. */
const struct config *configs_of(struct configs *configs, uint32_t serial);

#endif
