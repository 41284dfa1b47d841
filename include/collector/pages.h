/* The dashboard: pages built into the binary (scripts/web), gzipped, none of them secret. */
#ifndef TAILRACE_COLLECTOR_PAGES_H
#define TAILRACE_COLLECTOR_PAGES_H

#include <stdbool.h>

struct evhttp_request;

/* Whether `path` is one of them; "/" always is. */
bool pages_have(const char *path);

/* Answers a GET or HEAD of such a path: 200, 304 where the client has it, or, for "/" of a build
 * without the dashboard, 404 that says so. Loop's thread. */
void pages_reply(struct evhttp_request *request, const char *path);

#endif
