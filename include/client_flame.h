/* `tailrace flame`: a route's mean time as a tree of frames, and what makes it differ from that of an
 * earlier span. One thread. */
#ifndef TAILRACE_CLIENT_FLAME_H
#define TAILRACE_CLIENT_FLAME_H

#include "client_tools.h"

/* Returns the exit status. */
int client_flame(const struct client_options *options);

#endif
