/* The bounded table of routes: what exchanges are grouped by. A route is method + the app's
 * template as the hook tells it, else method + the config route's name, else method + "(no route)".
 * What does not fit the table goes to `other`. Pure; one thread. */
#ifndef TAILRACE_MODEL_ROUTE_H
#define TAILRACE_MODEL_ROUTE_H

#include <stddef.h>
#include <stdint.h>

#define ROUTES_MAX 1000    /* names beside `other` */
#define ROUTE_NAME_MAX 512 /* bytes; longer ones are cut at a character */
#define ROUTE_OTHER 0      /* index of `other` */
#define ROUTE_OTHER_NAME "other"

struct routes;

/* `max` names besides `other`. Owned, freed with routes_free(). */
struct routes *routes_new(size_t max);
void routes_free(struct routes *routes);

/* Index of a name, adding it where there is room; else ROUTE_OTHER, counted. */
size_t routes_index(struct routes *routes, const char *name);

size_t routes_count(const struct routes *routes); /* `other` included: indices are 0 to count - 1 */
const char *routes_name(const struct routes *routes,
                        size_t index); /* borrowed for the table's life */
uint64_t routes_overflowed(
    const struct routes *routes); /* look-ups answered with `other` for want of room */

/* The name of an exchange's route into `buf` (ROUTE_NAME_MAX + 1 bytes). `told` is the hook's or
 * null, `config_name` the matching config route's or null. Methods other than the nine of RFC 9110
 * and PATCH are written OTHER, so that clients cannot fill the table. */
void route_name(const char *told, const char *method, size_t method_length, const char *config_name,
                char *buf);

#endif
