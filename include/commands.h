/* The one table of commands and options: the parser, the usage texts and the shells' completion are
 * made of it, and a test holds tailrace(8) against it. One thread. */
#ifndef TAILRACE_COMMANDS_H
#define TAILRACE_COMMANDS_H

#include <stddef.h>
#include "client_tools.h"

enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_CONFIG = 78 };

/* What the shell offers for a value. */
enum complete {
	COMPLETE_NOTHING,
	COMPLETE_FILE,
	COMPLETE_ROUTE,    /* names the gateway knows */
	COMPLETE_TRACE,    /* IDs of the latest requests */
	COMPLETE_INCIDENT, /* IDs of incidents */
	COMPLETE_WORDS,    /* those that it may be */
	COMPLETE_TIMES,    /* examples of spans of time */
};

struct command_option {
	const char *name;  /* without its dashes */
	char letter;       /* its short form; 0: none */
	const char *value; /* what the usage calls its value; null: a flag */
	const char *words; /* all it may be, by "|"; null: anything */
	unsigned min, max; /* of a number; max 0: a text */
	enum complete complete;
	size_t offset;    /* in struct client_options: bool, unsigned or const char * */
	const char *help; /* null: the program's own, not told */
};

struct command {
	const char *name;
	const char *operand;    /* as the usage shows it; null: none */
	int least, most;        /* operands */
	enum complete complete; /* of the operand */
	const char *words;      /* all an operand may be, by "|"; null: anything */
	const char *options;    /* their names, by spaces */
	const char *help;       /* a line */
	int (*run)(const struct client_options *options); /* returns the exit status */
};

/* Ended by one without a name. Those without help are the program's own. */
extern const struct command commands[];
extern const struct command_option command_options[];

/* Null where there is none. */
const struct command *command_find(const char *name);

/* The n-th option of a command, from 0; null behind the last. */
const struct command_option *command_option_at(const struct command *command, size_t n);

/* Reads the options and operands behind argv[0]. Returns 0, 1 where help was asked for and printed,
 * or -1 after saying what is wrong. What it returns points into argv. */
int command_parse(const struct command *command, int argc, char **argv, struct client_options *ret);

/* All commands, a line or two each. */
void commands_print(FILE *out);

/* One command with its options. */
void command_print(FILE *out, const struct command *command);

/* `tailrace completion SHELL`: the shell's script. `tailrace complete WORD...`: what may stand for the
 * last of the words, each as a line, with a tab and what it is; `:file` for the names of files. */
int completion_script(const struct client_options *options);
int completion_answer(int argc, char **argv);

/* The commands of the daemon (main.c). */
int command_run(const struct client_options *options);
int command_check(const struct client_options *options);

#endif
