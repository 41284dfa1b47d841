/* `tailrace incidents` and `tailrace deploy`. One thread. */
#ifndef TAILRACE_CLIENT_INCIDENTS_H
#define TAILRACE_CLIENT_INCIDENTS_H

/* argv[0] is the command's word. Return the exit status. */
int client_incidents_main(int argc, char **argv);
int client_deploy_main(int argc, char **argv);

#endif
