/* The commands about deep profiles: deep asks for them, export writes one request in a format other
 * tools read. What needs Python is handed over to the Python package's own command. */
#include "client_commands.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "commands.h"
#include "progress.h"

#define POLL_MS 200

/* --- deep ------------------------------------------------------------------------- */

static const char *
explain(const char *state)
{
	static const struct {
		const char *state, *text;
	} known[] = {
	    {"ok", "profiled"},
	    {"cut", "profiled in part: deep profiles used up their share of the time (5 %)"},
	    {"busy", "not profiled: another profiler was running there"},
	    {"limited", "not profiled: two others were, or their share of the time was used up"},
	    {"gone", "not profiled: the hook does not have it any more"},
	    {"no_profile", "not profiled: no profile came (is the hook there?)"},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].state, state) == 0)
			return known[i].text;
	return state;
}

static void
put_one(const struct client_options *options, const struct term *term, const json_t *asked)
{
	struct term_line line;

	if (options->json) {
		json_dumpf(asked, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		term_line_begin(&line, term);
		term_line_text(&line, TERM_BOLD, 32, client_text(asked, "trace_id"));
		client_put_duration(&line, 44, json_object_get(asked, "total_ns"));
		term_line_pad(&line, 46);
		term_line_printf(&line, TERM_DIM, "%s", explain(client_text(asked, "state")));
		term_line_end(&line);
	}
	fflush(stdout);
}

struct progress {
	json_int_t since_ns; /* when the order was taken */
	json_t *shown;       /* span IDs already printed */
	unsigned profiled;
};

/* Prints what has come since the last look. Returns false after complaining. */
static bool
look(const struct client_options *options, const struct term *term, struct progress *progress)
{
	struct control_answer answer = {0};
	const json_t *asked, *recent;
	json_t *root;
	size_t i;

	if (client_ask(options, "/api/v1/deep", &answer) == -1)
		return false;
	root = json_loadb(answer.body, answer.length, 0, NULL);
	recent = json_object_get(root, "recent");
	for (i = json_array_size(recent); i-- > 0;) { /* oldest first */
		asked = json_array_get(recent, i);

		const char *state = client_text(asked, "state");
		const char *span = client_text(asked, "span_id");

		if (strcmp(state, "asked") == 0 ||
		    strcmp(client_text(asked, "route"), options->operands[0]) != 0 ||
		    json_integer_value(json_object_get(asked, "start_ns")) < progress->since_ns ||
		    json_object_get(progress->shown, span) != NULL)
			continue;
		json_object_set_new(progress->shown, span, json_true());
		progress->profiled += strcmp(state, "ok") == 0 || strcmp(state, "cut") == 0;
		put_one(options, term, asked);
	}
	json_decref(root);
	control_answer_free(&answer);
	return true;
}

/* What was ordered, and that the terminal is not stuck. */
static void
say_order(const struct client_options *options, int max_per_minute)
{
	const char *route = options->operands[0];

	if (options->count == 1)
		fprintf(stderr, "tailrace: the next request of %s gets a deep profile", route);
	else
		fprintf(stderr,
		        "tailrace: the next %u requests of %s get a deep profile, at most %d a "
		        "minute",
		        options->count, route, max_per_minute);
	if (options->wait_s > 0)
		fprintf(stderr, "; waiting up to %u s for %s", options->wait_s,
		        options->count == 1 ? "it" : "them");
	fputc('\n', stderr);
}

int
client_deep(const struct client_options *options)
{
	struct timespec pause = {.tv_nsec = POLL_MS * (long)NS_PER_MS};
	uint64_t until_ns = clock_now_ns() + options->wait_s * NS_PER_S;
	struct progress progress = {0};
	struct term term;
	json_t *taken =
	    json_pack("{s:s, s:i}", "route", options->operands[0], "count", (int)options->count);
	bool good = true;
	int status;

	taken = client_post(options, "/api/v1/deep", taken, 200, &status);
	if (taken == NULL)
		return status;
	progress.since_ns = json_integer_value(json_object_get(taken, "now_ns"));
	progress.shown = json_object();
	term_init(&term, stdout);
	say_order(options, (int)json_integer_value(json_object_get(taken, "max_per_minute")));
	json_decref(taken);
	while (good && json_object_size(progress.shown) < options->count &&
	       clock_now_ns() < until_ns) {
		nanosleep(&pause, NULL);
		good = look(options, &term, &progress);
	}
	if (good && json_object_size(progress.shown) < options->count && options->wait_s > 0)
		fprintf(stderr, "tailrace: %zu of %u came within %u s; the order stands\n",
		        json_object_size(progress.shown), options->count, options->wait_s);
	json_decref(progress.shown);
	return good && (progress.profiled >= options->count || options->wait_s == 0) ? EXIT_SUCCESS
	                                                                             : EXIT_FAILURE;
}

/* --- export ----------------------------------------------------------------------- */

static int
write_out(const struct client_options *options, const struct control_answer *answer)
{
	FILE *out = options->output == NULL ? stdout : fopen(options->output, "w");
	bool good = out != NULL && fwrite(answer->body, 1, answer->length, out) == answer->length;

	if (out != NULL)
		good = (options->output == NULL ? fflush(out) : fclose(out)) == 0 && good;
	if (!good)
		fprintf(stderr, "tailrace: %s: %s\n",
		        options->output == NULL ? "standard output" : options->output,
		        strerror(errno));
	return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void
show_bytes(size_t done)
{
	progress_show(done, 0, 0, "");
}

static int
export_here(const struct client_options *options, const char *trace)
{
	struct control_answer answer = {0};
	char path[CLIENT_PATH_BYTES_MAX];
	int status;

	snprintf(path, sizeof(path), "/api/v1/requests/%s/profile?format=%s", trace,
	         options->format);
	progress_begin("export", true);
	control_set_progress(show_bytes);
	status = client_ask(options, path, &answer);
	progress_end();
	if (status != 200 && status != -1)
		client_complain(&answer);
	status = status == 200 ? write_out(options, &answer) : EXIT_FAILURE;
	control_answer_free(&answer);
	return status;
}

/* As `python3 -m tailrace` does, but where the package is missing it says where it may be. */
static const char run_module[] =
    "import runpy, sys\n"
    "try:\n"
    "    import tailrace\n"
    "except ImportError:\n"
    "    sys.exit('tailrace: --format ' + sys.argv[2] + ' is made by the Python package '\n"
    "        'tailrace, which this python3 lacks: activate the environment of the app, '\n"
    "        'or pip install ./hook')\n"
    "sys.argv[2:3] = '--format', sys.argv[2]\n"
    "runpy.run_module('tailrace', run_name='__main__', alter_sys=True)\n";

/* Becomes the Python command, which says itself what it misses. */
static int
export_in_python(const struct client_options *options, const char *trace)
{
	const char *arguments[12] = {"python3", "-c", run_module, "export", options->format, trace};
	char *argv[12] = {NULL};
	size_t n = 6;

	arguments[n++] = "--control";
	arguments[n++] = options->control;
	if (options->output != NULL) {
		arguments[n++] = "--output";
		arguments[n++] = options->output;
	}
	for (size_t i = 0; i < n; i++)
		argv[i] = strdup(arguments[i]);
	fflush(NULL);
	execvp("python3", argv);
	fprintf(stderr, "tailrace: --format %s needs python3 with the package tailrace: %s\n",
	        options->format, strerror(errno));
	return EXIT_FAILURE;
}

int
client_export(const struct client_options *options)
{
	static const char *const python[] = {"pstats", "callgrind", "html"};
	char trace[33];

	if (!client_take_hex(options->operands[0], 32, trace)) {
		fprintf(stderr, "tailrace: a trace ID has 32 hexadecimal digits\n");
		return EXIT_USAGE;
	}
	for (size_t i = 0; i < sizeof(python) / sizeof(python[0]); i++)
		if (strcmp(options->format, python[i]) == 0)
			return export_in_python(options, trace);
	return export_here(options, trace);
}
