/* Completion: each shell's script is a few lines that ask `tailrace complete WORD...`, so that all
 * of it comes from the table of commands, and names from the gateway. */
#include "commands.h"

#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define ANSWER_TIMEOUT_MS 400 /* somebody waits with a finger on a key */
#define SHOWN_MAX 200
#define CONTROL_IS "--control="

/* --- the scripts ------------------------------------------------------------ */

/* Bash splits words at ":" and "=" too; they are put together again, and what stands before the
 * last of them is taken off what is offered. */
static const char bash_script[] =
    "# bash completion of tailrace; made by `tailrace completion bash`\n"
    "_tailrace() {\n"
    "\tlocal -a words=()\n"
    "\tlocal i word glue='' cut='' line candidate quote=''\n"
    "\tfor ((i = 1; i <= COMP_CWORD; i++)); do\n"
    "\t\tword=${COMP_WORDS[i]}\n"
    "\t\tif [[ ${#words[@]} -gt 0 && ( -n $glue || $word == [:=]* ) ]]; then\n"
    "\t\t\tcut=${words[-1]}\n"
    "\t\t\t[[ $word == [:=]* ]] && cut+=$word\n"
    "\t\t\twords[-1]+=$word\n"
    "\t\telse\n"
    "\t\t\tcut=''\n"
    "\t\t\twords+=(\"$word\")\n"
    "\t\tfi\n"
    "\t\tglue=''\n"
    "\t\t[[ $word == *[:=] ]] && glue=1\n"
    "\tdone\n"
    "\tword=${words[-1]-}\n"
    "\tcase $word in\n"
    "\t\\\"*|\\'*) quote=${word:0:1} word=${word:1} ;;\n"
    "\t*) word=${word//\\\\/} ;;\n"
    "\tesac\n"
    "\tfor ((i = 0; i + 1 < ${#words[@]}; i++)); do\n"
    "\t\tcase ${words[i]} in\n"
    "\t\t\\\"*\\\"|\\'*\\') words[i]=${words[i]:1:-1} ;;\n"
    "\t\t*) words[i]=${words[i]//\\\\/} ;;\n"
    "\t\tesac\n"
    "\tdone\n"
    "\twords[-1]=$word\n"
    "\tCOMPREPLY=()\n"
    "\twhile IFS= read -r line; do\n"
    "\t\tif [[ $line == :file ]]; then\n"
    "\t\t\tcompopt -o filenames 2>/dev/null\n"
    "\t\t\tlocal path=${word#unix:}\n"
    "\t\t\twhile IFS= read -r candidate; do\n"
    "\t\t\t\tCOMPREPLY+=(\"$candidate\")\n"
    "\t\t\tdone < <(compgen -f -- \"$path\")\n"
    "\t\t\treturn\n"
    "\t\tfi\n"
    "\t\tcandidate=${line%%$'\\t'*}\n"
    "\t\tif [[ -z $quote ]]; then printf -v candidate %q \"$candidate\"; fi\n"
    "\t\tCOMPREPLY+=(\"${candidate#\"$cut\"}\")\n"
    "\tdone < <(\"${COMP_WORDS[0]}\" complete \"${words[@]}\" 2>/dev/null)\n"
    "}\n"
    "complete -F _tailrace tailrace\n";

static const char zsh_script[] =
    "#compdef tailrace\n"
    "# zsh completion of tailrace; made by `tailrace completion zsh`\n"
    "_tailrace() {\n"
    "\tlocal line\n"
    "\tlocal -a found shown\n"
    "\tfor line in \"${(@f)$(\"${(Q)words[1]}\" complete \"${(@Q)words[2,CURRENT-1]}\" "
    "\"${(Q)PREFIX}\" 2>/dev/null)}\"; do\n"
    "\t\tcase $line in\n"
    "\t\t'') ;;\n"
    "\t\t:file) compset -P 'unix:'; _files; return ;;\n"
    "\t\t*$'\\t'*) found+=(\"${line%%$'\\t'*}\"); shown+=(\"${line/$'\\t'/  -- }\") ;;\n"
    "\t\t*) found+=(\"$line\"); shown+=(\"$line\") ;;\n"
    "\t\tesac\n"
    "\tdone\n"
    "\tcompadd -l -V tailrace -d shown -a found\n"
    "}\n"
    "if [ \"$funcstack[1]\" = _tailrace ]; then _tailrace \"$@\"; else compdef _tailrace tailrace; "
    "fi\n";

static const char fish_script[] =
    "# fish completion of tailrace; made by `tailrace completion fish`\n"
    "function __tailrace_complete\n"
    "\tset -l words (commandline -opc)\n"
    "\tset -l last (commandline -ct)\n"
    "\tset -l found ($words[1] complete $words[2..-1] \"$last\" 2>/dev/null)\n"
    "\tif test \"$found[1]\" = :file\n"
    "\t\t__fish_complete_path \"$last\"\n"
    "\telse if set -q found[1]\n"
    "\t\tprintf '%s\\n' $found\n"
    "\tend\n"
    "end\n"
    "complete -c tailrace -f -k -a '(__tailrace_complete)'\n";

int
completion_script(const struct client_options *options)
{
	const char *shell = options->operands[0];

	fputs(strcmp(shell, "bash") == 0  ? bash_script
	      : strcmp(shell, "zsh") == 0 ? zsh_script
	                                  : fish_script,
	      stdout);
	return EXIT_DONE;
}

/* --- what may stand there --------------------------------------------------------- */

static bool
has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

/* A candidate where it begins with what is there already. A name with control bytes is none that a
 * shell could take; a description with some is left out. */
static void
offer(const char *begun, const char *candidate, const char *what)
{
	if (strncmp(candidate, begun, strlen(begun)) != 0 || has_control(candidate))
		return;
	if (what != NULL && has_control(what))
		what = NULL;
	printf("%s%s%s\n", candidate, what != NULL ? "\t" : "", what != NULL ? what : "");
}

static void
offer_words(const char *begun, const char *words)
{
	while (words != NULL && *words != '\0') {
		size_t length = strcspn(words, "|");
		char word[64];

		snprintf(word, sizeof(word), "%.*s", (int)length, words);
		offer(begun, word, NULL);
		words += length;
		words += *words == '|';
	}
}

static json_t *
ask(const struct client_options *options, const char *path)
{
	struct control_answer answer = {0};
	char error[512];
	json_t *root = NULL;

	control_set_timeout(ANSWER_TIMEOUT_MS);
	if (control_get(options->control, path, &answer, error, sizeof(error)) == 0 &&
	    answer.status == 200)
		root = json_loadb(answer.body, answer.length, 0, NULL);
	control_answer_free(&answer);
	return root;
}

/* Members of the answer's array: `key` is the candidate, `what` says what it is. */
static void
offer_answer(const struct client_options *options, const char *begun, const char *path,
             const char *array, const char *key, const char *what)
{
	json_t *root = ask(options, path);
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(root, array), i, one)
	{
		if (i < SHOWN_MAX && json_is_string(json_object_get(one, key)))
			offer(begun, client_text(one, key), client_text(one, what));
	}
	json_decref(root);
}

static void
offer_value(const struct client_options *options, enum complete kind, const char *words,
            const char *begun)
{
	switch (kind) {
	case COMPLETE_FILE:
		puts(":file");
		break;
	case COMPLETE_WORDS:
		offer_words(begun, words);
		break;
	case COMPLETE_TIMES:
		offer_words(begun, "5m|15m|30m|1h|6h|1d|7d");
		break;
	case COMPLETE_ROUTE:
		offer_answer(options, begun, "/api/v1/routes?window=1d", "routes", "route",
		             "state");
		break;
	case COMPLETE_TRACE:
		offer_answer(options, begun, "/api/v1/requests?limit=50", "requests", "trace_id",
		             "route");
		break;
	case COMPLETE_INCIDENT:
		offer_answer(options, begun, "/api/v1/incidents?limit=50", "incidents", "id",
		             "title");
		break;
	case COMPLETE_NOTHING:
		break;
	}
}

static const struct command_option *
option_of(const struct command *command, const char *word)
{
	const struct command_option *o;
	const char letter = word[0] == '-' && word[1] != '-' && word[2] == '\0' ? word[1] : 0;

	for (size_t i = 0; (o = command_option_at(command, i)) != NULL; i++)
		if ((letter != 0 && o->letter == letter) ||
		    (strncmp(word, "--", 2) == 0 && strcmp(word + 2, o->name) == 0))
			return o;
	return NULL;
}

static void
offer_options(const struct command *command, const char *begun)
{
	const struct command_option *o;
	char text[64];

	for (size_t i = 0; (o = command_option_at(command, i)) != NULL; i++) {
		snprintf(text, sizeof(text), "--%s", o->name);
		if (o->help != NULL)
			offer(begun, text, o->help);
	}
}

/* The words after the command's name: which option is open, how many operands are there. */
static void
offer_in(const struct command *command, int count, char **words)
{
	struct client_options options = {.control = control_default_address()};
	const struct command_option *open = NULL;
	const char *last = words[count - 1], *equals;
	int operands = 0;

	for (int i = 0; i + 1 < count; i++) {
		if (open != NULL) {
			if (strcmp(open->name, "control") == 0)
				options.control = words[i];
			open = NULL;
		} else if (strncmp(words[i], CONTROL_IS, strlen(CONTROL_IS)) == 0) {
			options.control = words[i] + strlen(CONTROL_IS);
		} else if (words[i][0] == '-' && words[i][1] != '\0') {
			open = option_of(command, words[i]);
			if (open != NULL && open->value == NULL)
				open = NULL;
		} else {
			operands++;
		}
	}
	equals = strncmp(last, "--", 2) == 0 ? strchr(last, '=') : NULL;
	if (open != NULL)
		offer_value(&options, open->complete, open->words, last);
	else if (equals != NULL)
		return; /* shells differ too much in what they make of it */
	else if (last[0] == '-')
		offer_options(command, last);
	else if (operands < command->most)
		offer_value(&options, command->complete, command->words, last);
	else
		offer_options(command, last);
}

int
completion_answer(int argc, char **argv)
{
	const struct command *command;

	setlocale(LC_CTYPE, "");
	if (argc < 1)
		return EXIT_USAGE;
	if (argc == 1) {
		for (command = commands; command->name != NULL; command++)
			offer(argv[0], command->name, command->help);
		if (argv[0][0] == '-') {
			offer(argv[0], "--help", "all commands");
			offer(argv[0], "--version", "and those of its libraries");
		}
		return EXIT_DONE;
	}
	command = command_find(strcmp(argv[0], "-c") == 0 ? "run" : argv[0]);
	if (command == NULL)
		return EXIT_DONE;
	if (strcmp(argv[0], "-c") == 0)
		offer_in(command, argc, argv);
	else
		offer_in(command, argc - 1, argv + 1);
	return EXIT_DONE;
}
