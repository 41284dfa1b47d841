/* The commands whose answer is a list: routes, requests. */
#include "client_commands.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"

#define NARROW 84 /* columns: below, a request's time is left out */
#define FOLDED 60 /* below, a request takes two lines */

enum { REQUESTS, ERRORS, P50, P95, P99, MOST, JOINED, COLUMNS };

static const struct {
	const char *name, *key;
	unsigned columns, from; /* width; shown on terminals at least so wide */
} columns[COLUMNS] = {
    [REQUESTS] = {"REQUESTS", "requests", 10, 0},
    [ERRORS] = {"ERRORS", "errors", 8, 48},
    [P50] = {"P50", "p50_ns", 10, 80},
    [P95] = {"P95", "p95_ns", 10, 0},
    [P99] = {"P99", "p99_ns", 10, 72},
    [MOST] = {"MAX", "max_ns", 10, 90},
    [JOINED] = {"JOINED", "joined_ratio", 8, 90},
};

/* The route's width; the others stand right of it. */
static unsigned
label_columns(const struct term *term)
{
	unsigned rest = term->columns;

	for (unsigned i = 0; i < COLUMNS; i++)
		rest -= term->columns >= columns[i].from ? columns[i].columns : 0;
	return rest;
}

static void
put_route_heading(const struct term *term)
{
	unsigned at = label_columns(term);
	struct term_line line;

	term_line_begin(&line, term);
	term_line_text(&line, TERM_DIM, at, "ROUTE");
	for (unsigned i = 0; i < COLUMNS; i++) {
		if (term->columns < columns[i].from)
			continue;
		at += columns[i].columns;
		term_line_right(&line, TERM_DIM, at, columns[i].name);
	}
	term_line_end(&line);
}

static void
put_count(struct term_line *line, enum term_color color, unsigned at, const json_t *value)
{
	char text[32];

	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	term_line_right(line, color, at, text);
}

static void
put_route(const struct term *term, const json_t *route)
{
	unsigned at = label_columns(term);
	struct term_line line;
	char text[32];

	term_line_begin(&line, term);
	term_line_text(&line, TERM_BOLD, at, client_text(route, "route"));
	for (unsigned i = 0; i < COLUMNS; i++) {
		const json_t *value = json_object_get(route, columns[i].key);

		if (term->columns < columns[i].from)
			continue;
		at += columns[i].columns;
		if (i == REQUESTS) {
			put_count(&line, TERM_PLAIN, at, value);
		} else if (i == ERRORS) {
			put_count(&line, json_integer_value(value) > 0 ? TERM_RED : TERM_DIM, at,
			          value);
		} else if (i == JOINED && json_is_number(value)) {
			snprintf(text, sizeof(text), "%.0f%%", 100 * json_number_value(value));
			term_line_right(&line, TERM_DIM, at, text);
		} else if (i != JOINED) {
			client_put_duration(&line, at, value);
		}
	}
	term_line_end(&line);
}

int
client_routes(const struct client_options *options)
{
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
	put_route_heading(&term);
	if (json_array_size(json_object_get(root, "routes")) == 0)
		printf("no request came in this time\n");
	json_array_foreach(json_object_get(root, "routes"), i, route) put_route(&term, route);
	json_decref(root);
	return EXIT_SUCCESS;
}

/* Where a request's columns end. On terminals below FOLDED its ID has a line of its own. */
struct request_layout {
	unsigned time, status, total, mark, route; /* time: 0 = not shown */
};

static struct request_layout
lay_out_request(const struct term *term)
{
	unsigned begin = term->columns >= FOLDED ? 34 : 0;
	unsigned time = term->columns >= NARROW ? 12 : 0;

	return (struct request_layout){.time = time,
	                               .status = begin + time + 6,
	                               .total = begin + time + 17,
	                               .mark = begin + time + 19,
	                               .route = begin + time + 21};
}

static void
put_request_heading(const struct term *term)
{
	struct request_layout at = lay_out_request(term);
	struct term_line line;

	term_line_begin(&line, term);
	if (term->columns >= FOLDED)
		term_line_text(&line, TERM_DIM, 32, "TRACE");
	if (at.time > 0) {
		term_line_pad(&line, 34);
		term_line_text(&line, TERM_DIM, at.time, "TIME (UTC)");
	}
	term_line_right(&line, TERM_DIM, at.status, "STATUS");
	term_line_right(&line, TERM_DIM, at.total, "TOTAL");
	term_line_pad(&line, at.mark);
	term_line_text(&line, TERM_DIM, term->columns - at.mark,
	               at.time > 0 ? "* ROUTE (*: with a profile)" : "* ROUTE");
	term_line_end(&line);
}

static void
put_request(const struct term *term, const json_t *request)
{
	const json_t *status = json_object_get(request, "status");
	json_int_t code = json_integer_value(status);
	const char *start = client_text(request, "start"), *id = client_text(request, "trace_id");
	struct request_layout at = lay_out_request(term);
	struct term_line line;
	char text[16] = "-";

	term_line_begin(&line, term);
	if (term->columns >= FOLDED)
		term_line_printf(&line, TERM_DIM, "%.32s", id);
	if (strlen(start) >= 23 && at.time > 0) {
		term_line_pad(&line, 34);
		term_line_printf(&line, TERM_DIM, "%.12s", start + 11);
	}
	if (json_is_integer(status))
		snprintf(text, sizeof(text), "%d", (int)code);
	term_line_right(&line, code >= 500 || code == 0 ? TERM_RED : TERM_PLAIN, at.status, text);
	client_put_duration(&line, at.total, json_object_get(request, "total_ns"));
	term_line_pad(&line, at.mark);
	if (json_is_true(json_object_get(request, "has_profile")))
		term_line_text(&line, TERM_DIM, 1, "*");
	term_line_pad(&line, at.route);
	term_line_text(&line, TERM_BOLD, term->columns - at.route, client_text(request, "route"));
	term_line_end(&line);
	if (term->columns >= FOLDED)
		return;
	term_line_begin(&line, term);
	term_line_pad(&line, 2);
	term_line_printf(&line, TERM_DIM, "%.32s", id);
	term_line_end(&line);
}

int
client_requests(const struct client_options *options)
{
	char path[CLIENT_PATH_BYTES_MAX];
	struct term term;
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
	put_request_heading(&term);
	if (json_array_size(json_object_get(root, "requests")) == 0)
		printf("no request is kept%s\n", options->route != NULL ? " of this route" : "");
	json_array_foreach(json_object_get(root, "requests"), i, request)
	    put_request(&term, request);
	json_decref(root);
	return EXIT_SUCCESS;
}
