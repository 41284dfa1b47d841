/* The commands that ask a running gateway: routes, requests, show, flame. They read the control
 * API, print for people or hand the JSON through, and end with 0 done, 1 failed, 2 wrong usage. */
#include "handover.h"

#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "client_flame.h"
#include "client_tools.h"
#include "control_client.h"
#include "term.h"
#include "waterfall.h"

#define EXIT_USAGE 2
#define PATH_BYTES_MAX 2048
#define PROFILE_WAIT_MS 3000 /* a hook posts every 100 ms, so later means never */
#define DETAIL_WAIT_MS 600   /* and comes with a post after that */
#define POLL_MS 50
#define LIMIT_MAX 1000

static int
usage(FILE *out, int status)
{
	fprintf(out,
	        "usage: tailrace routes [--control ADDRESS] [--json]\n"
	        "       tailrace requests [--route ROUTE] [--slowest] [--limit N]\n"
	        "                         [--control ADDRESS] [--json]\n"
	        "       tailrace show TRACE_ID [--span SPAN_ID] [--control ADDRESS] [--json]\n"
	        "       tailrace flame ROUTE [--baseline T] [--window SPAN]\n"
	        "                      [--control ADDRESS] [--json]\n"
	        "T is a time (2026-05-01T14:02:00Z, unix seconds) or an age (30m, 6h, 2d)\n"
	        "ADDRESS is unix:/path or host:port; default: TAILRACE_CONTROL, else %s\n",
	        control_default_address());
	return status;
}

/* Returns 0, 1 where help was asked for, or -1 after saying what is wrong. */
static int
parse_options(int argc, char **argv, struct client_options *ret)
{
	static const struct option table[] = {
	    {"control", required_argument, NULL, 'c'},  {"route", required_argument, NULL, 'r'},
	    {"span", required_argument, NULL, 's'},     {"limit", required_argument, NULL, 'n'},
	    {"slowest", no_argument, NULL, 'S'},        {"json", no_argument, NULL, 'j'},
	    {"baseline", required_argument, NULL, 'b'}, {"window", required_argument, NULL, 'w'},
	    {"help", no_argument, NULL, 'h'},           {0},
	};
	char *end;
	int c;

	*ret = (struct client_options){.control = control_default_address(), .limit = 20};
	optind = 0; /* glibc: start over, for main() may have parsed options of its own */
	opterr = 0;
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		switch (c) {
		case 'c':
			ret->control = optarg;
			break;
		case 'r':
			ret->route = optarg;
			break;
		case 's':
			ret->span = optarg;
			break;
		case 'n':
			ret->limit = (unsigned)strtoul(optarg, &end, 10);
			if (*end != '\0' || ret->limit == 0 || ret->limit > LIMIT_MAX) {
				fprintf(stderr, "tailrace: --limit takes 1 to %d\n", LIMIT_MAX);
				return -1;
			}
			break;
		case 'b':
			ret->baseline = optarg;
			break;
		case 'w':
			ret->window = optarg;
			break;
		case 'S':
			ret->slowest = true;
			break;
		case 'j':
			ret->json = true;
			break;
		case 'h':
			return 1;
		default:
			fprintf(stderr, "tailrace: unknown option or no value: %s\n",
			        argv[optind - 1]);
			return -1;
		}
	}
	ret->operands = argv + optind;
	ret->operand_count = argc - optind;
	return 0;
}

/* --- tables ------------------------------------------------------------------ */

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

static int
command_routes(const struct client_options *options)
{
	static const char *const names[] = {"ROUTE", "REQUESTS", "ERRORS", "P50",
	                                    "P95",   "P99",      "MAX",    "JOINED"};
	unsigned columns[8];
	struct term term;
	const json_t *route;
	size_t i;
	int status;
	json_t *root = client_ask_object(options, "/api/v1/routes", &status);

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

static int
command_requests(const struct client_options *options)
{
	char path[PATH_BYTES_MAX];
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

/* --- show ---------------------------------------------------------------------- */

static bool
is_hex(const char *text, size_t n)
{
	return strlen(text) == n && strspn(text, "0123456789abcdefABCDEF") == n;
}

/* True while a profile may still come: the gateway gave no reason why there is none. */
static bool
is_pending(const json_t *exchange)
{
	const char *reason = json_string_value(json_object_get(exchange, "profile_missing"));

	return !json_is_object(json_object_get(exchange, "profile")) &&
	       (reason == NULL || strcmp(reason, "pending") == 0);
}

/* True where the profile came just now and its detail may follow. */
static bool
lacks_detail(const json_t *exchange)
{
	const json_t *profile = json_object_get(exchange, "profile");
	const char *detail = json_string_value(json_object_get(profile, "detail"));
	const char *engine = json_string_value(json_object_get(profile, "engine"));

	return detail != NULL && strcmp(detail, "absent") == 0 && engine != NULL &&
	       strcmp(engine, "totals") != 0;
}

/* Whether it began within the last seconds: else nothing more will come. */
static bool
is_recent(const json_t *exchange)
{
	const char *start = json_string_value(json_object_get(exchange, "start"));
	char from[32];

	clock_format(clock_wall_ns() - 5 * NS_PER_S, from, sizeof(from));
	return start != NULL && strcmp(start, from) > 0;
}

/* Asks until the exchange is there with its profile, or PROFILE_WAIT_MS are over. Returns the last
 * status with its answer, or -1. */
static int
ask_until_joined(const struct client_options *options, const char *path, struct control_answer *ret)
{
	uint64_t until_ns = clock_now_ns() + PROFILE_WAIT_MS * NS_PER_MS;
	bool waited = false; /* for detail: once, and only where the profile was waited for */
	struct timespec pause = {.tv_nsec = POLL_MS * (long)NS_PER_MS};

	for (;;) {
		int status = client_ask(options, path, ret);
		bool again = status == 404;

		if (status == 200) {
			json_t *root = json_loadb(ret->body, ret->length, 0, NULL);

			again = json_is_object(root) && is_pending(root);
			if (!again && !waited && json_is_object(root) && is_recent(root) &&
			    lacks_detail(root)) {
				waited = again = true;
				until_ns = clock_now_ns() + DETAIL_WAIT_MS * NS_PER_MS;
			} else if (!again && waited) {
				again = lacks_detail(root);
			}
			json_decref(root);
		}
		if (!again || clock_now_ns() >= until_ns)
			return status;
		control_answer_free(ret);
		nanosleep(&pause, NULL);
	}
}

static int
print_exchange(const struct client_options *options, const struct control_answer *answer)
{
	json_t *root = json_loadb(answer->body, answer->length, JSON_REJECT_DUPLICATES, NULL);
	struct term term;

	if (!json_is_object(root)) {
		fprintf(stderr, "tailrace: the answer is no JSON object\n");
		json_decref(root);
		return EXIT_FAILURE;
	}
	if (is_pending(root))
		fprintf(stderr,
		        "tailrace: no profile came within %d s: is the hook in the app, and "
		        "TAILRACE_CALLBACK in its environment this gateway's control address?\n",
		        PROFILE_WAIT_MS / 1000);
	if (options->json) {
		fwrite(answer->body, 1, answer->length, stdout);
		fputc('\n', stdout);
	} else {
		term_init(&term, stdout);
		waterfall_print(&term, root);
	}
	json_decref(root);
	return EXIT_SUCCESS;
}

static int
command_show(const struct client_options *options)
{
	struct control_answer answer = {0};
	char path[PATH_BYTES_MAX], *trace;
	int status, result = EXIT_FAILURE;

	if (options->operand_count != 1)
		return usage(stderr, EXIT_USAGE);
	trace = options->operands[0];
	if (!is_hex(trace, 32) || (options->span != NULL && !is_hex(options->span, 16))) {
		fprintf(stderr, "tailrace: a trace ID has 32 hexadecimal digits, a span ID 16\n");
		return EXIT_USAGE;
	}
	snprintf(path, sizeof(path), "/api/v1/requests/%s%s%s", trace,
	         options->span == NULL ? "" : "?span=", options->span == NULL ? "" : options->span);
	for (char *p = path; *p != '\0'; p++)
		*p = (char)tolower((unsigned char)*p);
	status = ask_until_joined(options, path, &answer);
	if (status == 200)
		result = print_exchange(options, &answer);
	else if (status == 404)
		fprintf(stderr,
		        "tailrace: no request with trace %s is kept (the gateway keeps a "
		        "bounded number of them; `tailrace requests` lists the latest)\n",
		        trace);
	else if (status != -1)
		client_complain(&answer);
	control_answer_free(&answer);
	return result;
}

int
client_cli_main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct client_options *options);
		int operands;
	} commands[] = {
	    {"routes", command_routes, 0},
	    {"requests", command_requests, 0},
	    {"show", command_show, 1},
	    {"flame", client_flame, 1},
	};
	struct client_options options;
	int parsed;

	setlocale(LC_CTYPE, "");
	parsed = argc < 1 ? -1 : parse_options(argc, argv, &options);
	if (parsed != 0)
		return parsed == 1 ? usage(stdout, EXIT_SUCCESS) : usage(stderr, EXIT_USAGE);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[0], commands[i].name) != 0)
			continue;
		if (options.operand_count != commands[i].operands)
			return usage(stderr, EXIT_USAGE);
		return commands[i].run(&options);
	}
	return usage(stderr, EXIT_USAGE);
}
