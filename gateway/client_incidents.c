/* Incidents for people: a list, one with its cause and history; accepting one; marking deploys. */
#include "client_incidents.h"

#include <getopt.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_tools.h"

#define EXIT_USAGE 2
#define ID_LENGTH 16
#define TEXT_INDENT 2

struct options {
	struct client_options client;
	bool accept;
	const char *at; /* null = now */
};

static int
usage(FILE *out, int status)
{
	fprintf(out,
	        "usage: tailrace incidents [ID [--accept]] [--control ADDRESS] [--json]\n"
	        "       tailrace deploy VERSION [--at TIME] [--control ADDRESS] [--json]\n"
	        "--accept takes the level of now as the new normal; TIME is like "
	        "2026-05-01T14:02:00Z\n"
	        "ADDRESS is unix:/path or host:port; default: TAILRACE_CONTROL, else %s\n",
	        control_default_address());
	return status;
}

/* Returns 0, 1 where help was asked for, or -1 after saying what is wrong. */
static int
parse(int argc, char **argv, struct options *ret)
{
	static const struct option table[] = {
	    {"control", required_argument, NULL, 'c'}, {"json", no_argument, NULL, 'j'},
	    {"accept", no_argument, NULL, 'a'},        {"at", required_argument, NULL, 't'},
	    {"help", no_argument, NULL, 'h'},          {0},
	};
	int c;

	*ret = (struct options){.client.control = control_default_address()};
	setlocale(LC_CTYPE, "");
	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		switch (c) {
		case 'c':
			ret->client.control = optarg;
			break;
		case 'j':
			ret->client.json = true;
			break;
		case 'a':
			ret->accept = true;
			break;
		case 't':
			ret->at = optarg;
			break;
		case 'h':
			return 1;
		default:
			fprintf(stderr, "tailrace: unknown option or no value: %s\n",
			        argv[optind - 1]);
			return -1;
		}
	}
	ret->client.operands = argv + optind;
	ret->client.operand_count = argc - optind;
	return 0;
}

/* POSTs; the answer's object where it has the wanted status, else null after complaining. */
static json_t *
post(const struct options *options, const char *path, const char *body, int wanted)
{
	struct control_answer answer = {0};
	char error[512];
	json_t *root = NULL;

	if (control_post(options->client.control, path, body, &answer, error, sizeof(error)) != 0) {
		fprintf(stderr, "tailrace: %s\n", error);
		return NULL;
	}
	if (answer.status == wanted)
		root = json_loadb(answer.body, answer.length, 0, NULL);
	else
		client_complain(&answer);
	control_answer_free(&answer);
	return root;
}

static int
print_json(json_t *root)
{
	int status = json_dumpf(root, stdout, JSON_COMPACT);

	fputc('\n', stdout);
	json_decref(root);
	return status == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- printing ----------------------------------------------------------------- */

static enum term_color
color_of(const char *status)
{
	return strcmp(status, "firing") == 0 ? TERM_RED : TERM_DIM;
}

/* Words that do not fit go to the next line. */
static void
put_wrapped(const struct term *term, const char *text)
{
	struct term_line line;
	unsigned width = term->columns - TEXT_INDENT;

	while (*text != '\0') {
		size_t length = strlen(text), cut = length;
		char part[TERM_COLUMNS_MAX * 4 + 1];

		if (length > width) {
			for (cut = width; cut > 0 && text[cut] != ' '; cut--)
				;
			if (cut == 0)
				cut = width;
		}
		snprintf(part, sizeof(part), "%.*s", (int)cut, text);
		term_line_begin(&line, term);
		term_line_pad(&line, TEXT_INDENT);
		term_line_text(&line, TERM_PLAIN, term->columns, part);
		term_line_end(&line);
		text += cut;
		text += strspn(text, " ");
	}
}

static void
put_incident(const struct term *term, const json_t *incident)
{
	const char *status = client_text(incident, "status");
	struct term_line line;

	term_line_begin(&line, term);
	term_line_printf(&line, TERM_DIM, "%.16s", client_text(incident, "id"));
	term_line_pad(&line, 18);
	term_line_printf(&line, color_of(status), "%s", status);
	term_line_pad(&line, 28);
	term_line_printf(&line, TERM_DIM, "%.16s", client_text(incident, "since"));
	term_line_pad(&line, 46);
	term_line_text(&line, TERM_BOLD, term->columns - 46, client_text(incident, "title"));
	term_line_end(&line);
}

static int
list(const struct options *options)
{
	struct term term;
	struct term_line line;
	const json_t *incident;
	size_t i;
	int status;
	json_t *root = client_ask_object(&options->client, "/api/v1/incidents?limit=50", &status);

	if (root == NULL)
		return status;
	term_init(&term, stdout);
	if (json_array_size(json_object_get(root, "incidents")) == 0) {
		printf("no incidents\n");
	} else {
		term_line_begin(&line, &term);
		term_line_printf(&line, TERM_DIM, "%-18s%-10s%-18s%s", "INCIDENT", "STATUS",
		                 "SINCE (UTC)", "WHAT");
		term_line_end(&line);
	}
	json_array_foreach(json_object_get(root, "incidents"), i, incident)
	    put_incident(&term, incident);
	json_decref(root);
	return EXIT_SUCCESS;
}

static void
put_row(const struct term *term, const json_t *row)
{
	struct term_line line;
	double share = json_number_value(json_object_get(row, "share"));
	char text[32];

	term_line_begin(&line, term);
	term_line_pad(&line, TEXT_INDENT);
	term_line_printf(&line, TERM_PLAIN, "%s%s%s  ", client_text(row, "kind"),
	                 json_is_string(json_object_get(row, "cause")) ? " " : "",
	                 json_is_string(json_object_get(row, "cause")) ? client_text(row, "cause")
	                                                               : "");
	if (json_is_string(json_object_get(row, "frame")))
		term_line_text(&line, TERM_BOLD, 48, client_text(row, "frame"));
	snprintf(text, sizeof(text), "%+.3g ms",
	         json_number_value(json_object_get(row, "delta_ms")));
	term_line_right(&line, TERM_PLAIN, term->columns - 8, text);
	snprintf(text, sizeof(text), "%.0f %%", 100 * share);
	term_line_right(&line, TERM_DIM, term->columns, text);
	term_line_end(&line);
}

static int
show(const struct options *options, json_t *root)
{
	const json_t *cause = json_object_get(root, "cause"), *one;
	struct term term;
	struct term_line line;
	size_t i;

	if (options->client.json)
		return print_json(root);
	term_init(&term, stdout);
	term_line_begin(&line, &term);
	term_line_text(&line, TERM_BOLD, term.columns, client_text(root, "title"));
	term_line_end(&line);
	put_wrapped(&term, client_text(root, "text"));
	if (json_array_size(json_object_get(cause, "rows")) > 0)
		printf("\n");
	json_array_foreach(json_object_get(cause, "rows"), i, one) put_row(&term, one);
	printf("\n");
	json_array_foreach(json_object_get(root, "history"), i, one)
	{
		term_line_begin(&line, &term);
		term_line_pad(&line, TEXT_INDENT);
		term_line_printf(&line, TERM_DIM, "%s  ", client_text(one, "t"));
		term_line_printf(&line, color_of(client_text(one, "status")), "%-9s ",
		                 client_text(one, "status"));
		term_line_text(&line, TERM_PLAIN, term.columns, client_text(one, "title"));
		term_line_end(&line);
	}
	json_decref(root);
	return EXIT_SUCCESS;
}

int
client_incidents_main(int argc, char **argv)
{
	struct options options;
	char path[64];
	int parsed = parse(argc, argv, &options), status;
	const char *id =
	    parsed == 0 && options.client.operand_count == 1 ? options.client.operands[0] : NULL;
	json_t *root;

	if (parsed != 0)
		return parsed == 1 ? usage(stdout, EXIT_SUCCESS) : usage(stderr, EXIT_USAGE);
	if (options.client.operand_count > 1 || options.at != NULL ||
	    (options.accept && id == NULL))
		return usage(stderr, EXIT_USAGE);
	if (id == NULL)
		return list(&options);
	if (strlen(id) != ID_LENGTH || strspn(id, "0123456789abcdef") != ID_LENGTH) {
		fprintf(stderr, "tailrace: an incident's ID has 16 hexadecimal digits\n");
		return EXIT_USAGE;
	}
	snprintf(path, sizeof(path), "/api/v1/incidents/%s%s", id, options.accept ? "/accept" : "");
	if (options.accept) {
		root = post(&options, path, "", 200);
		return root != NULL ? show(&options, root) : EXIT_FAILURE;
	}
	root = client_ask_object(&options.client, path, &status);
	return root != NULL ? show(&options, root) : status;
}

/* --- deploys ------------------------------------------------------------------- */

int
client_deploy_main(int argc, char **argv)
{
	struct options options;
	int parsed = parse(argc, argv, &options);
	json_t *root;
	char *body;

	if (parsed != 0)
		return parsed == 1 ? usage(stdout, EXIT_SUCCESS) : usage(stderr, EXIT_USAGE);
	if (options.client.operand_count != 1 || options.accept)
		return usage(stderr, EXIT_USAGE);
	root = json_pack("{s:s, s:s?}", "version", options.client.operands[0], "at", options.at);
	body = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (body == NULL) {
		fprintf(stderr, "tailrace: the version is no UTF-8\n");
		return EXIT_USAGE;
	}
	root = post(&options, "/api/v1/deploys", body, 201);
	free(body);
	if (root == NULL)
		return EXIT_FAILURE;
	if (options.client.json)
		return print_json(root);
	printf("deploy of %s marked at %s\n", client_text(root, "version"),
	       client_text(root, "at"));
	json_decref(root);
	return EXIT_SUCCESS;
}
