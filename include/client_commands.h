/* The commands that ask a running gateway. Each returns the exit status; what it prints goes to
 * standard output, why it failed to standard error. One thread, but for client_top(). */
#ifndef TAILRACE_CLIENT_COMMANDS_H
#define TAILRACE_CLIENT_COMMANDS_H

#include "client_tools.h"

int client_routes(const struct client_options *options);    /* client_tables.c */
int client_requests(const struct client_options *options);  /* client_tables.c */
int client_show(const struct client_options *options);      /* client_show.c */
int client_flame(const struct client_options *options);     /* client_flame.c */
int client_top(const struct client_options *options);       /* top.c */
int client_deep(const struct client_options *options);      /* client_profile.c */
int client_export(const struct client_options *options);    /* client_profile.c */
int client_incidents(const struct client_options *options); /* client_incidents.c */
int client_deploy(const struct client_options *options);    /* client_incidents.c */

#endif
