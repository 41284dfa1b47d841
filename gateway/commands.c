/* The table, and what is made of it. */
#include "commands.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backtest.h"
#include "client_commands.h"

#define OPTIONS_MAX 32 /* of one command, and one more for the end */
#define FIRST_VALUE 256
#define LABEL_COLUMNS 28

#define AT(member) offsetof(struct client_options, member)

#define FORMATS "json|speedscope|collapsed|chrome|pstats|callgrind|html"

const struct command_option command_options[] = {
    {.name = "accept", .offset = AT(accept), .help = "take the level of now as the new normal"},
    {.name = "at",
     .value = "TIME",
     .offset = AT(at),
     .help = "when it began, like 2026-05-01T14:02:00Z; default: now"},
    {.name = "baseline",
     .value = "TIME",
     .complete = COMPLETE_TIMES,
     .offset = AT(baseline),
     .help = "compare what came since TIME with the time before: 2026-05-01T14:02:00Z, unix "
             "seconds, or an age (30m, 6h, 2d)"},
    {.name = "config",
     .letter = 'c',
     .value = "FILE",
     .complete = COMPLETE_FILE,
     .offset = AT(config),
     .help = "the configuration"},
    {.name = "control",
     .value = "ADDRESS",
     .complete = COMPLETE_FILE,
     .offset = AT(control),
     .help = "the gateway to ask: unix:/path, host:port or https://host:port; default: "
             "$TAILRACE_CONTROL, else the default socket"},
    {.name = "count",
     .value = "N",
     .min = 1,
     .max = 1000,
     .offset = AT(count),
     .help = "how many requests, 1 to 1000; default: 1"},
    {.name = "every-tick", .offset = AT(every_tick), .help = "also the evidence after each tick"},
    {.name = "filter",
     .value = "TEXT",
     .complete = COMPLETE_ROUTE,
     .offset = AT(filter),
     .help = "only routes that contain TEXT"},
    {.name = "format",
     .value = "FORMAT",
     .words = FORMATS,
     .complete = COMPLETE_WORDS,
     .offset = AT(format),
     .help = "json, speedscope, collapsed, chrome; of deep profiles and with the Python package "
             "tailrace also pstats, callgrind, html; default: json"},
    {.name = "json", .offset = AT(json), .help = "the gateway's answer as JSON"},
    {.name = "limit",
     .value = "N",
     .min = 1,
     .max = 1000,
     .offset = AT(limit),
     .help = "at most so many, 1 to 1000; default: 20"},
    {.name = "man", .offset = AT(man), .help = "print tailrace.json(5)"},
    {.name = "once", .offset = AT(once), .help = "print one frame and end, as into a pipe"},
    {.name = "output",
     .letter = 'o',
     .value = "FILE",
     .complete = COMPLETE_FILE,
     .offset = AT(output),
     .help = "where to write; default: standard output"},
    {.name = "reverse", .offset = AT(reverse), .help = "the smallest first"},
    {.name = "route",
     .value = "ROUTE",
     .complete = COMPLETE_ROUTE,
     .offset = AT(route),
     .help = "only requests of this route, like \"GET /items/{id}\""},
    {.name = "routes",
     .value = "N",
     .min = 1,
     .max = 1000000,
     .offset = AT(routes),
     .help = "keep the false-alarm budget as one of N routes would; default: those given"},
    {.name = "schema", .offset = AT(schema), .help = "print the JSON schema of configurations"},
    {.name = "slowest", .offset = AT(slowest), .help = "the slowest first"},
    {.name = "sort",
     .value = "COLUMN",
     .words = "time|rate|p95|errors",
     .complete = COMPLETE_WORDS,
     .offset = AT(sort),
     .help = "time, rate, p95 or errors; default: time"},
    {.name = "span",
     .value = "SPAN_ID",
     .offset = AT(span),
     .help = "of several exchanges of a trace the one with this span ID; default: the newest"},
    {.name = "upgrade", .value = "FD", .min = 0, .max = 1u << 20, .offset = AT(upgrade_fd)},
    {.name = "wait",
     .value = "SECONDS",
     .min = 0,
     .max = 86400,
     .offset = AT(wait_s),
     .help = "how long to wait for them, 0 to 86400; default: 60"},
    {.name = "window",
     .value = "SPAN",
     .complete = COMPLETE_TIMES,
     .offset = AT(window),
     .help = "look at so much time: 90s, 15m, 6h, 2d"},
    {.name = "help", .letter = 'h', .offset = AT(help), .help = "this text"},
    {0},
};

const struct command commands[] = {
    {.name = "run",
     .options = "config upgrade",
     .run = command_run,
     .help = "run the gateway (\"run\" may be left out)"},
    {.name = "check",
     .options = "config schema man",
     .run = command_check,
     .help = "say all that is wrong with a configuration"},
    {.name = "routes",
     .options = "window control json",
     .run = client_routes,
     .help = "what each route's requests took"},
    {.name = "top",
     .options = "sort reverse window filter once control json",
     .run = client_top,
     .help = "the routes that take the most time, live"},
    {.name = "requests",
     .options = "route slowest limit control json",
     .run = client_requests,
     .help = "kept requests, the latest first"},
    {.name = "show",
     .operand = "TRACE_ID",
     .least = 1,
     .most = 1,
     .complete = COMPLETE_TRACE,
     .options = "span control json",
     .run = client_show,
     .help = "where the time of one request went"},
    {.name = "flame",
     .operand = "ROUTE",
     .least = 1,
     .most = 1,
     .complete = COMPLETE_ROUTE,
     .options = "baseline window control json",
     .run = client_flame,
     .help = "what a route's mean time is made of, and what changed"},
    {.name = "deep",
     .operand = "ROUTE",
     .least = 1,
     .most = 1,
     .complete = COMPLETE_ROUTE,
     .options = "count wait control json",
     .run = client_deep,
     .help = "profile every call of a route's next requests"},
    {.name = "export",
     .operand = "TRACE_ID",
     .least = 1,
     .most = 1,
     .complete = COMPLETE_TRACE,
     .options = "format output control",
     .run = client_export,
     .help = "one request for other tools"},
    {.name = "incidents",
     .operand = "[ID]",
     .most = 1,
     .complete = COMPLETE_INCIDENT,
     .options = "accept control json",
     .run = client_incidents,
     .help = "what got slower, since when, and why"},
    {.name = "deploy",
     .operand = "VERSION",
     .least = 1,
     .most = 1,
     .options = "at control json",
     .run = client_deploy,
     .help = "say that a version of the app begins to run"},
    {.name = "backtest",
     .options = "config every-tick routes",
     .run = backtest_command,
     .help = "find regressions in ticks on standard input"},
    {.name = "completion",
     .operand = "SHELL",
     .least = 1,
     .most = 1,
     .complete = COMPLETE_WORDS,
     .words = "bash|zsh|fish",
     .options = "",
     .run = completion_script,
     .help = "print the completion script of bash, zsh or fish"},
    {0},
};

/* --- looking up ----------------------------------------------------------- */

const struct command *
command_find(const char *name)
{
	for (const struct command *c = commands; c->name != NULL; c++)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

static const struct command_option *
option_named(const char *name, size_t length)
{
	for (const struct command_option *o = command_options; o->name != NULL; o++)
		if (strlen(o->name) == length && strncmp(o->name, name, length) == 0)
			return o;
	return NULL;
}

const struct command_option *
command_option_at(const struct command *command, size_t n)
{
	const char *word = command->options + strspn(command->options, " ");

	for (; *word != '\0'; n--) {
		size_t length = strcspn(word, " ");

		if (n == 0)
			return option_named(word, length);
		word += length;
		word += strspn(word, " ");
	}
	return n == 0 ? option_named("help", 4) : NULL; /* every command has it */
}

/* --- usage ---------------------------------------------------------------- */

/* Prints text in lines from column `indent` on; the first one goes on where the cursor is. */
static void
put_folded(FILE *out, unsigned indent, const char *text)
{
	unsigned column = indent;

	while (*text != '\0') {
		size_t word = strcspn(text, " ");

		if (column > indent && column + 1 + word > 90) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			fputc(' ', out);
			column++;
		}
		fprintf(out, "%.*s", (int)word, text);
		column += (unsigned)word;
		text += word;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

static void
put_entry(FILE *out, const char *label, const char *help)
{
	fprintf(out, "  %-*s", LABEL_COLUMNS - 2, label);
	if (strlen(label) + 3 > LABEL_COLUMNS)
		fprintf(out, "\n%*s", LABEL_COLUMNS, "");
	put_folded(out, LABEL_COLUMNS, help);
}

void
commands_print(FILE *out)
{
	char label[64];

	fputs("usage: tailrace COMMAND [OPTION...]; tailrace COMMAND --help tells its options\n\n",
	      out);
	for (const struct command *c = commands; c->name != NULL; c++) {
		snprintf(label, sizeof(label), "%s%s%s", c->name, c->operand != NULL ? " " : "",
		         c->operand != NULL ? c->operand : "");
		put_entry(out, label, c->help);
	}
	put_entry(out, "--version, --help",
	          "the program's version, and those of its libraries; this");
	fputs("\nMost commands ask a running gateway: --control ADDRESS, else $TAILRACE_CONTROL,\n"
	      "else the default socket; they take --json. tailrace(8) has all of it.\n"
	      "Exit status: 0 done, 1 failed at run time, 2 wrong usage, 78 bad configuration.\n",
	      out);
}

static void
option_label(const struct command_option *o, char *buf, size_t size)
{
	char letter[8] = "";

	if (o->letter != 0)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	snprintf(buf, size, "%s--%s%s%s", letter, o->name, o->value != NULL ? " " : "",
	         o->value != NULL ? o->value : "");
}

void
command_print(FILE *out, const struct command *command)
{
	const struct command_option *o;
	char label[64];

	fprintf(out, "usage: tailrace %s%s%s [OPTION...]\n", command->name,
	        command->operand != NULL ? " " : "",
	        command->operand != NULL ? command->operand : "");
	fprintf(out, "%c%s.\n\n", toupper((unsigned char)command->help[0]), command->help + 1);
	for (size_t i = 0; (o = command_option_at(command, i)) != NULL; i++) {
		if (o->help == NULL)
			continue;
		option_label(o, label, sizeof(label));
		put_entry(out, label, o->help);
	}
}

/* --- parsing ---------------------------------------------------------------- */

static bool
is_word_of(const char *words, const char *text)
{
	size_t length = strlen(text);

	for (const char *at = words; at != NULL && length > 0; at = strchr(at, '|')) {
		at += *at == '|';
		if (strncmp(at, text, length) == 0 && (at[length] == '|' || at[length] == '\0'))
			return true;
	}
	return false;
}

/* Returns false after saying what is wrong. */
static bool
take_value(const struct command_option *o, const char *text, struct client_options *ret)
{
	char *place = (char *)ret + o->offset, *end;

	if (o->value == NULL) {
		*(bool *)place = true;
		return true;
	}
	if (o->max > 0) {
		unsigned long value = strtoul(text, &end, 10);

		if (!isdigit((unsigned char)*text) || *end != '\0' || value < o->min ||
		    value > o->max) {
			fprintf(stderr, "tailrace: --%s takes %u to %u\n", o->name, o->min, o->max);
			return false;
		}
		*(unsigned *)place = (unsigned)value;
		return true;
	}
	if (o->words != NULL && !is_word_of(o->words, text)) {
		fprintf(stderr, "tailrace: --%s takes one of %s\n", o->name, o->words);
		return false;
	}
	*(const char **)place = text;
	return true;
}

static int
usage_fault(const struct command *command)
{
	fputc('\n', stderr);
	command_print(stderr, command);
	return -1;
}

/* Returns how many options the command has, as getopt_long() wants them. */
static size_t
make_table(const struct command *command, struct option *table, char *letters)
{
	const struct command_option *o;
	size_t n = 0;

	for (; (o = command_option_at(command, n)) != NULL && n + 1 < OPTIONS_MAX; n++) {
		table[n] = (struct option){
		    .name = o->name,
		    .has_arg = o->value != NULL ? required_argument : no_argument,
		    .val = o->letter != 0 ? o->letter : FIRST_VALUE + (int)n,
		};
		if (o->letter != 0) {
			*letters++ = o->letter;
			if (o->value != NULL)
				*letters++ = ':';
		}
	}
	*letters = '\0';
	table[n] = (struct option){0};
	return n;
}

/* What getopt_long() did not like: `c` is its answer, ':' where a value is missing. */
static void
complain_of_option(const struct command *command, const struct option *table, int c, char **argv)
{
	size_t at = 0;

	while (table[at].name != NULL && (optopt == 0 || table[at].val != optopt))
		at++;
	if (table[at].name != NULL && c == ':')
		fprintf(stderr, "tailrace: --%s needs a value: %s\n", table[at].name,
		        command_option_at(command, at)->value);
	else if (table[at].name != NULL)
		fprintf(stderr, "tailrace: --%s takes no value\n", table[at].name);
	else if (optopt != 0 && optopt < FIRST_VALUE) /* a letter, of several perhaps */
		fprintf(stderr, "tailrace: unknown option: -%c\n", optopt > 0 ? optopt : '?');
	else
		fprintf(stderr, "tailrace: unknown option, or short for several: %s\n",
		        argv[optind - 1]);
}

static int
take_options(const struct command *command, int argc, char **argv, struct client_options *ret)
{
	struct option table[OPTIONS_MAX];
	char letters[2 * OPTIONS_MAX] = ":"; /* a missing value is told apart */
	size_t count = make_table(command, table, letters + 1);
	int c;

	optind = 0; /* glibc: start over */
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, table, NULL)) != -1) {
		size_t at = 0;

		while (at < count && table[at].val != c)
			at++;
		if (at == count) {
			complain_of_option(command, table, c, argv);
			return usage_fault(command);
		}
		if (!take_value(command_option_at(command, at), optarg, ret))
			return -1;
	}
	return 0;
}

int
command_parse(const struct command *command, int argc, char **argv, struct client_options *ret)
{
	*ret = (struct client_options){
	    .control = control_default_address(),
	    .format = "json",
	    .sort = "time",
	    .limit = 20,
	    .count = 1,
	    .wait_s = 60,
	    .upgrade_fd = CLIENT_NO_UPGRADE,
	};
	if (take_options(command, argc, argv, ret) != 0)
		return -1;
	if (ret->help) {
		command_print(stdout, command);
		return 1;
	}
	ret->operands = argv + optind;
	ret->operand_count = argc - optind;
	if (ret->operand_count < command->least || ret->operand_count > command->most) {
		fprintf(stderr,
		        ret->operand_count < command->least
		            ? "tailrace: %s needs %s\n"
		            : "tailrace: %s: one word too many: %s\n",
		        command->name,
		        ret->operand_count < command->least ? command->operand
		                                            : ret->operands[command->most]);
		return usage_fault(command);
	}
	if (command->words != NULL && !is_word_of(command->words, ret->operands[0])) {
		fprintf(stderr, "tailrace: %s takes one of %s\n", command->name, command->words);
		return -1;
	}
	return 0;
}
