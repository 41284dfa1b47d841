/* X-Request-Start, the time at which a load balancer took a request: "t=" before it or not, and no
 * unit said (New Relic, Scout, Rack and Heroku all write it differently). Pure. */
#ifndef TAILRACE_MODEL_REQUEST_START_H
#define TAILRACE_MODEL_REQUEST_START_H

#include <stddef.h>
#include <stdint.h>

/* Unix time in nanoseconds from seconds, milliseconds, microseconds or nanoseconds, with or without
 * a fraction; told apart by size, which is safe from the year 2001 to 2286. Returns 0, or -1 for
 * anything else. */
int request_start_parse(const char *text, size_t length, uint64_t *ret_wall_ns);

#endif
