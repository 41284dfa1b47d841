/* The commands whose answer is a list: routes, requests. */
#include "client_commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"

static void
put_route(const struct term *term, const json_t *route)
{
	static const char *const percentiles[] = {"p50_ns", "p95_ns", "p99_ns", "max_ns"};
	unsigned label = term->columns - 66;
	uint64_t errors = client_number(route, "errors");
	const json_t *joined = json_object_get(route, "joined_ratio");
	struct term_line line;
	char text[32];

	term_line_begin(&line, term);
	term_line_text(&line, TERM_BOLD, label, client_text(route, "route"));
	snprintf(text, sizeof(text), "%" PRIu64, client_number(route, "requests"));
	term_line_right(&line, TERM_PLAIN, label + 10, text);
	snprintf(text, sizeof(text), "%" PRIu64, errors);
	term_line_right(&line, errors > 0 ? TERM_RED : TERM_DIM, label + 18, text);
	for (unsigned i = 0; i < 4; i++)
		client_put_duration(&line, label + 28 + 10 * i,
		                    json_object_get(route, percentiles[i]));
	if (json_is_number(joined)) {
		snprintf(text, sizeof(text), "%.0f%%", 100 * json_number_value(joined));
		term_line_right(&line, TERM_DIM, label + 66, text);
	}
	term_line_end(&line);
}

int
client_routes(const struct client_options *options)
{
	static const char *const names[] = {"ROUTE", "REQUESTS", "ERRORS", "P50",
	                                    "P95",   "P99",      "MAX",    "JOINED"};
	unsigned columns[8];
	struct term term;
	const json_t *route;
	size_t i;
	int status;
	char path[64] = "/api/v1/routes";
	json_t *root;

	if (options->window != NULL && client_seconds(options->window) == 0) {
		fprintf(stderr, "tailrace: --window is like 90s, 15m, 6h or 2d\n");
		return EXIT_USAGE;
	}
	if (options->window != NULL)
		snprintf(path, sizeof(path), "/api/v1/routes?window=%llus",
		         (unsigned long long)client_seconds(options->window));
	root = client_ask_object(options, path, &status);
	if (root == NULL)
		return status;
	term_init(&term, stdout);
	columns[0] = term.columns - 66;
	columns[1] = columns[0] + 10;
	columns[2] = columns[0] + 18;
	for (i = 3; i < 7; i++)
		columns[i] = columns[0] + 28 + 10 * ((unsigned)i - 3);
	columns[7] = columns[0] + 66;
	client_put_heading(&term, columns[0], names, columns, 8);
	json_array_foreach(json_object_get(root, "routes"), i, route) put_route(&term, route);
	json_decref(root);
	return EXIT_SUCCESS;
}

static void
put_request(const struct term *term, const json_t *request)
{
	const json_t *status = json_object_get(request, "status");
	json_int_t code = json_integer_value(status);
	const char *start = client_text(request, "start");
	struct term_line line;
	char text[16];

	term_line_begin(&line, term);
	term_line_printf(&line, TERM_DIM, "%.32s", client_text(request, "trace_id"));
	term_line_pad(&line, 34);
	if (strlen(start) >= 23)
		term_line_printf(&line, TERM_DIM, "%.12s", start + 11);
	if (json_is_integer(status))
		snprintf(text, sizeof(text), "%d", (int)code);
	else
		snprintf(text, sizeof(text), "-");
	term_line_right(&line, code >= 500 || code == 0 ? TERM_RED : TERM_PLAIN, 52, text);
	client_put_duration(&line, 63, json_object_get(request, "total_ns"));
	term_line_pad(&line, 65);
	if (json_is_true(json_object_get(request, "has_profile")))
		term_line_text(&line, TERM_DIM, 1, "*");
	term_line_pad(&line, 67);
	term_line_text(&line, TERM_BOLD, term->columns - 67, client_text(request, "route"));
	term_line_end(&line);
}

int
client_requests(const struct client_options *options)
{
	char path[CLIENT_PATH_BYTES_MAX];
	struct term term;
	struct term_line line;
	const json_t *request;
	json_t *root;
	size_t i;
	int status;

	snprintf(path, sizeof(path), "/api/v1/requests?sort=%s&limit=%u",
	         options->slowest ? "slowest" : "latest", options->limit);
	if (options->route != NULL) {
		strcat(path, "&route=");
		client_append_encoded(path, sizeof(path), options->route);
	}
	root = client_ask_object(options, path, &status);
	if (root == NULL)
		return status;
	term_init(&term, stdout);
	term_line_begin(&line, &term);
	term_line_printf(&line, TERM_DIM, "%-34s%-12s%6s%11s  * ROUTE (*: with a profile)", "TRACE",
	                 "TIME (UTC)", "STATUS", "TOTAL");
	term_line_end(&line);
	json_array_foreach(json_object_get(root, "requests"), i, request)
	    put_request(&term, request);
	json_decref(root);
	return EXIT_SUCCESS;
}
