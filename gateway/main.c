/* The command line: which role or command this process has. */
#include <errno.h>
#include <locale.h>
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
#include "commands.h"
#include "handover.h"
#include "process.h"
#include "supervisor.h"
#include "supervisor_spawn.h"

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
usage_fault(const char *problem, const char *what)
{
	fprintf(stderr, "tailrace: %s", problem);
	if (what != NULL)
		fprintf(stderr, " \"%s\"", what);
	fputs("\n\n", stderr);
	commands_print(stderr);
	return EXIT_USAGE;
}

static int
no_config(const char *command)
{
	fprintf(stderr, "tailrace: no configuration: -c FILE\n\n");
	command_print(stderr, command_find(command));
	return EXIT_USAGE;
}

static void
print_errors(struct config_errors *errs)
{
	for (size_t i = 0; i < errs->count; i++)
		fprintf(stderr, "%s\n", errs->lines[i]);
	config_errors_free(errs);
}

static int
load(const char *path, struct config **ret, char **ret_bytes, size_t *ret_length)
{
	struct config_errors errs = {0};
	int status = config_load_file(path, ret, ret_bytes, ret_length, &errs);

	print_errors(&errs);
	return status;
}

int
command_run(const struct client_options *options)
{
	/* Arguments lie where the title is written. */
	static char own_path[4096];
	struct config *config;
	char *bytes;
	size_t length;
	int status;

	int upgrade_fd = options->upgrade_fd == CLIENT_NO_UPGRADE ? -1 : (int)options->upgrade_fd;

	if (options->config == NULL)
		return no_config("run");
	if (strlen(options->config) >= sizeof(own_path)) {
		fprintf(stderr, "tailrace: too long a path: %s\n", options->config);
		return EXIT_USAGE;
	}
	memcpy(own_path, options->config, strlen(options->config) + 1);
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

int
command_check(const struct client_options *options)
{
	struct config *config;
	struct config_errors errs = {0};
	char *bytes;
	size_t length;
	int status;

	if (options->schema)
		config_print_schema(stdout);
	if (options->man)
		config_print_man(stdout);
	if (options->config == NULL)
		return options->schema || options->man ? EXIT_DONE : no_config("check");
	if (load(options->config, &config, &bytes, &length) == -1)
		return EXIT_CONFIG;
	/* `run` would start and ask again; who checks wants to know of a slip of the pen. */
	status =
	    config_check_names(options->config, config, NULL, &errs) > 0 ? EXIT_CONFIG : EXIT_DONE;
	print_errors(&errs);
	if (status == EXIT_DONE)
		printf("%s: good\n", options->config);
	free(bytes);
	config_free(config);
	return status;
}

static int
child(int argc, char **argv)
{
	static char role[32];
	struct handover handover;
	struct config *config;
	int is_worker = strcmp(argv[1], SPAWN_ROLE_WORKER) == 0, status;

	if (spawn_receive(argc, argv, &handover) == -1)
		return usage_fault("only the supervisor starts a", argv[1]);
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
	process_take_short_turns();
	status = is_worker ? worker_main(&handover, config) : collector_main(&handover, config);
	config_free(config);
	return status;
}

/* The exit status: what was printed must have got where it should. */
static int
written(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	if (status == EXIT_DONE)
		fprintf(stderr, "tailrace: standard output: %s\n", strerror(errno));
	return status == EXIT_DONE ? EXIT_FAILED : status;
}

int
main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";
	bool bare = strcmp(word, "-c") == 0 || strncmp(word, "--config", 8) == 0;
	const struct command *command = command_find(bare ? "run" : word);
	struct client_options options;
	int parsed;

	if (strcmp(word, "--version") == 0)
		return print_version();
	if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
		commands_print(stdout);
		return EXIT_DONE;
	}
	if (strcmp(word, "complete") == 0)
		return completion_answer(argc - 2, argv + 2);
	if (command == NULL || command->run == command_run)
		process_title_init(argc, argv);
	if (strcmp(word, SPAWN_ROLE_WORKER) == 0 || strcmp(word, SPAWN_ROLE_COLLECTOR) == 0)
		return child(argc, argv);
	if (command == NULL)
		return usage_fault(argc > 1 ? "unknown command" : "no command",
		                   argc > 1 ? word : NULL);
	parsed = bare ? command_parse(command, argc, argv, &options)
	              : command_parse(command, argc - 1, argv + 1, &options);
	if (parsed != 0)
		return parsed == 1 ? EXIT_DONE : EXIT_USAGE;
	if (command->run != command_run)
		setlocale(LC_CTYPE, ""); /* for people; the daemon's bytes are bytes */
	return written(command->run(&options));
}
