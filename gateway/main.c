/* The command line: which role or command this process has. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>
#include <jansson.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <zlib.h>

#include "base/config.h"
#include "base/log.h"
#include "backtest.h"
#include "client_incidents.h"
#include "handover.h"
#include "process.h"
#include "supervisor.h"
#include "supervisor_spawn.h"

enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CONFIG = 78 };

static const char usage[] =
    "usage: tailrace run -c FILE                run the gateway (\"run\" may be left out)\n"
    "       tailrace check -c FILE              say all that is wrong with a configuration\n"
    "       tailrace check --schema             print the JSON schema of the configuration\n"
    "       tailrace check --man                print its manual page, tailrace.json(5)\n"
    "       tailrace routes                     what each route's requests took\n"
    "       tailrace requests [--route R] [--slowest]\n"
    "                                           kept requests, the latest first\n"
    "       tailrace show TRACE_ID              where the time of one request went\n"
    "       tailrace flame ROUTE [--baseline T] [--window SPAN]\n"
    "                                           what a route's mean time is made of, and what\n"
    "                                           changed since T (a time, or an age like 30m)\n"
    "       tailrace deep ROUTE [--count N]     profile every call of its next requests\n"
    "       tailrace export TRACE_ID --format json|speedscope|collapsed|chrome|\n"
    "                                pstats|callgrind|html\n"
    "                                           one request for other tools\n"
    "       tailrace incidents [ID [--accept]]  what got slower, since when, and why\n"
    "       tailrace deploy VERSION             say that a version of the app begins to run\n"
    "       tailrace backtest [--every-tick]    find regressions in ticks on standard input\n"
    "       tailrace --version | --help\n"
    "All that ask a running gateway take --control ADDRESS (else $TAILRACE_CONTROL, else the\n"
    "default socket); most take --json.\n"
    "Exit status: 0 done, 1 failed at run time, 2 wrong usage, 78 bad configuration.\n";

static int
usage_error(const char *problem, const char *what)
{
	fprintf(stderr, "tailrace: %s", problem);
	if (what != NULL)
		fprintf(stderr, " \"%s\"", what);
	fprintf(stderr, "\n%s", usage);
	return EXIT_USAGE;
}

static int
print_version(void)
{
	printf("tailrace %s (llhttp %d.%d.%d, libevent %s, %s, SQLite %s, jansson %s, zlib %s)\n",
	       TAILRACE_VERSION, LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH,
	       event_get_version(), OpenSSL_version(OPENSSL_VERSION), sqlite3_libversion(),
	       jansson_version_str(), zlibVersion());
	return EXIT_DONE;
}

static int
load(const char *path, struct config **ret, char **ret_bytes, size_t *ret_length)
{
	struct config_errors errs = {0};
	int status = config_load_file(path, ret, ret_bytes, ret_length, &errs);

	for (size_t i = 0; i < errs.count; i++)
		fprintf(stderr, "%s\n", errs.lines[i]);
	config_errors_free(&errs);
	return status;
}

static int
run(const char *path, int upgrade_fd)
{
	/* Arguments lie where the title is written. */
	static char own_path[4096];
	struct config *config;
	char *bytes;
	size_t length;
	int status;

	if ((size_t)snprintf(own_path, sizeof(own_path), "%s", path) >= sizeof(own_path))
		return usage_error("too long a path", path);
	if (load(own_path, &config, &bytes, &length) == -1)
		return EXIT_CONFIG;
	log_init("supervisor", config->log.level);
	if (upgrade_fd == -1) /* else that is the log already */
		log_console_begin();
	if (process_open_log(config) == -1) {
		config_free(config);
		free(bytes);
		return EXIT_FAILED;
	}
	process_set_title("tailrace: supervisor");
	status = supervisor_main(own_path, config, bytes, length, upgrade_fd);
	free(bytes);
	return status;
}

static int
check(const char *path, int upgrade_fd)
{
	struct config *config;
	char *bytes;
	size_t length;

	if (load(path, &config, &bytes, &length) == -1)
		return EXIT_CONFIG;
	(void)upgrade_fd;
	printf("%s: good\n", path);
	free(bytes);
	config_free(config);
	return EXIT_DONE;
}

/* run and check: `-c FILE`, and what a program before left for `run` at an upgrade. argv[0] is the
 * first argument after the command. */
static int
with_file(int argc, char **argv, int (*command)(const char *path, int upgrade_fd))
{
	const char *path = NULL;
	int upgrade_fd = -1;

	for (int i = 0; i < argc; i++) {
		bool upgrade = command == run && strcmp(argv[i], "--upgrade") == 0;

		if (!upgrade && strcmp(argv[i], "-c") != 0)
			return usage_error("unknown argument", argv[i]);
		if (i + 1 == argc)
			return usage_error(
			    upgrade ? "--upgrade is the program's own" : "-c needs a file", NULL);
		if (upgrade)
			upgrade_fd = atoi(argv[++i]);
		else
			path = argv[++i];
	}
	return path != NULL ? command(path, upgrade_fd)
	                    : usage_error("no configuration: -c FILE", NULL);
}

static int
child(int argc, char **argv)
{
	static char role[32];
	struct handover handover;
	struct config *config;
	int is_worker = strcmp(argv[1], SPAWN_ROLE_WORKER) == 0, status;

	if (spawn_receive(argc, argv, &handover) == -1)
		return usage_error("only the supervisor starts a", argv[1]);
	if (is_worker)
		snprintf(role, sizeof(role), "worker %llu",
		         (unsigned long long)handover.generation);
	else
		snprintf(role, sizeof(role), "collector");
	log_init(role, LOG_LEVEL_INFO);
	config = process_read_config(handover.config_fd, handover.config_serial);
	if (config == NULL)
		return EXIT_FAILED;
	log_init(role, config->log.level);
	process_open_log(config); /* where it cannot, the supervisor's stays */
	log_reopen_on_signal();
	process_set_title("tailrace: %s", role);
	status = is_worker ? worker_main(&handover, config) : collector_main(&handover, config);
	config_free(config);
	return status;
}

static int
is_one_of(const char *word, const char *const *list)
{
	for (; *list != NULL; list++)
		if (strcmp(word, *list) == 0)
			return 1;
	return 0;
}

int
main(int argc, char **argv)
{
	static const char *const client[] = {"routes", "requests", "show", "flame", NULL};
	static const char *const profile[] = {"deep", "export", NULL};
	const char *word = argc > 1 ? argv[1] : "";

	if (strcmp(word, "--version") == 0)
		return print_version();
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
		return fputs(usage, stdout) == EOF ? EXIT_FAILED : EXIT_DONE;
	if (is_one_of(word, client))
		return client_cli_main(argc - 1, argv + 1);
	if (is_one_of(word, profile))
		return client_profile_main(argc - 1, argv + 1);
	if (strcmp(word, "incidents") == 0)
		return client_incidents_main(argc - 1, argv + 1);
	if (strcmp(word, "deploy") == 0)
		return client_deploy_main(argc - 1, argv + 1);
	if (strcmp(word, "backtest") == 0)
		return backtest_main(argc - 1, argv + 1);
	process_title_init(argc, argv);
	if (strcmp(word, SPAWN_ROLE_WORKER) == 0 || strcmp(word, SPAWN_ROLE_COLLECTOR) == 0)
		return child(argc, argv);
	if (strcmp(word, "check") == 0 && argc == 3 && strcmp(argv[2], "--schema") == 0) {
		config_print_schema(stdout);
		return EXIT_DONE;
	}
	if (strcmp(word, "check") == 0 && argc == 3 && strcmp(argv[2], "--man") == 0) {
		config_print_man(stdout);
		return EXIT_DONE;
	}
	if (strcmp(word, "check") == 0)
		return with_file(argc - 2, argv + 2, check);
	if (strcmp(word, "run") == 0)
		return with_file(argc - 2, argv + 2, run);
	if (strcmp(word, "-c") == 0)
		return with_file(argc - 1, argv + 1, run);
	return usage_error(argc > 1 ? "unknown command" : "no command", argc > 1 ? word : NULL);
}
