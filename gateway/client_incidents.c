/* Incidents for people: a list, one with its cause and history; accepting one; marking deploys. */
#include "client_commands.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

#define ID_LENGTH 16
#define TEXT_INDENT 2
#define NARROW 90         /* columns: below, times are left out of the list */
#define SHARE_LEAST 0.005 /* of the growth: smaller rows are counted only */

/* --- printing ----------------------------------------------------------------- */

static enum term_color
color_of(const char *status)
{
	return strcmp(status, "firing") == 0 ? TERM_RED : TERM_DIM;
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
	if (term->columns >= NARROW) {
		term_line_printf(&line, TERM_DIM, "%.16s", client_text(incident, "since"));
		term_line_pad(&line, 46);
	}
	term_line_text(&line, TERM_BOLD, term->columns - line.columns,
	               client_text(incident, "title"));
	term_line_end(&line);
}

static int
list(const struct client_options *options)
{
	struct term term;
	struct term_line line;
	const json_t *incident;
	size_t i;
	int status;
	json_t *root = client_ask_object(options, "/api/v1/incidents?limit=50", &status);

	if (root == NULL)
		return status;
	term_init(&term, stdout);
	if (json_array_size(json_object_get(root, "incidents")) == 0) {
		printf("no incidents\n");
	} else {
		term_line_begin(&line, &term);
		term_line_printf(&line, TERM_DIM, "%-18s%-10s%s%s", "INCIDENT", "STATUS",
		                 term.columns >= NARROW ? "SINCE (UTC)       " : "", "WHAT");
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
	double ms = client_real(row, "delta_ms");
	char text[TERM_DURATION_SIZE + 2];
	struct term_line line;

	term_line_begin(&line, term);
	term_line_pad(&line, TEXT_INDENT);
	client_put_row_label(&line, term->columns - 20, row);
	client_delta_text(term, ms * 1e6, text, sizeof(text));
	term_line_right(&line, ms < 0 ? TERM_BLUE : TERM_RED, term->columns - 7, text);
	snprintf(text, sizeof(text), "%.0f %%", 100 * client_real(row, "share"));
	term_line_right(&line, TERM_DIM, term->columns, text);
	term_line_end(&line);
}

/* Rows of half a percent and more; the others in one line, so that nothing is left out unsaid. */
static void
put_rows(const struct term *term, const json_t *rows)
{
	const json_t *row;
	unsigned small = 0;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (fabs(client_real(row, "share")) >= SHARE_LEAST)
			put_row(term, row);
		else
			small++;
	}
	if (small > 0)
		fprintf(term->out, "%*s%u more, each under 0.5 %%\n", TEXT_INDENT, "", small);
}

static int
show(const struct client_options *options, json_t *root)
{
	const json_t *cause = json_object_get(root, "cause"), *one;
	struct term term;
	struct term_line line;
	size_t i;

	if (options->json)
		return client_print_json(root);
	term_init(&term, stdout);
	term_line_begin(&line, &term);
	term_line_text(&line, TERM_BOLD, term.columns, client_text(root, "title"));
	term_line_end(&line);
	term_wrapped(&term, TEXT_INDENT, client_text(root, "text"));
	if (json_array_size(json_object_get(cause, "rows")) > 0)
		printf("\n");
	put_rows(&term, json_object_get(cause, "rows"));
	printf("\n");
	json_array_foreach(json_object_get(root, "history"), i, one)
	{
		term_line_begin(&line, &term);
		term_line_pad(&line, TEXT_INDENT);
		term_line_printf(&line, TERM_DIM, "%s  ", client_text(one, "t"));
		term_line_printf(&line, color_of(client_text(one, "status")), "%-9s ",
		                 client_text(one, "status"));
		if (line.columns < term.columns)
			term_line_text(&line, TERM_PLAIN, term.columns - line.columns,
			               client_text(one, "title"));
		term_line_end(&line);
	}
	json_decref(root);
	return EXIT_SUCCESS;
}

int
client_incidents(const struct client_options *options)
{
	const char *id = options->operand_count == 1 ? options->operands[0] : NULL;
	char path[64], known[ID_LENGTH + 1];
	int status;
	json_t *root;

	if (id == NULL && options->accept) {
		fprintf(stderr, "tailrace: --accept needs the ID of an incident\n");
		return EXIT_USAGE;
	}
	if (id == NULL)
		return list(options);
	if (!client_take_hex(id, ID_LENGTH, known)) {
		fprintf(stderr, "tailrace: an incident's ID has 16 hexadecimal digits\n");
		return EXIT_USAGE;
	}
	snprintf(path, sizeof(path), "/api/v1/incidents/%s%s", known,
	         options->accept ? "/accept" : "");
	root = options->accept ? client_post(options, path, json_object(), 200, &status)
	                       : client_ask_object(options, path, &status);
	return root != NULL ? show(options, root) : status;
}

/* --- deploys ------------------------------------------------------------------- */

int
client_deploy(const struct client_options *options)
{
	json_t *root = json_pack("{s:s, s:s*}", "version", options->operands[0], "at", options->at);
	int status;

	root = client_post(options, "/api/v1/deploys", root, 201, &status);
	if (root == NULL)
		return status;
	if (options->json)
		return client_print_json(root);
	printf("deploy of %s marked at %s\n", client_text(root, "version"),
	       client_text(root, "at"));
	json_decref(root);
	return EXIT_SUCCESS;
}
