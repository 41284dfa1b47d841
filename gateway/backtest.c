/* The backtest command: lines in, detector, changes of state out. */
#include "backtest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "backtest_line.h"
#include "backtest_scan.h"
#include "base/xmem.h"
#include "commands.h"
#include "model/detector.h"
#include "progress.h"

#define PROGRESS_LINES 512 /* between two looks at the clock */

struct backtest {
	struct detector *detector;
	FILE *out;
	bool every_tick;
	int64_t t_s;                           /* of the newest line */
	int64_t newest_s[DETECTOR_ROUTES_MAX]; /* of each route's newest line, + 1; 0 before */
	uint64_t number;                       /* of the line being read */
};

/* Text as JSON, quotes included. */
static void
put_text(FILE *out, const char *text)
{
	json_t *string = json_string(text);

	json_dumpf(string, out, JSON_ENCODE_ANY);
	json_decref(string);
}

static void
put_event(void *arg, const struct detector_event *event)
{
	FILE *out = arg;

	fprintf(out, "{\"t\": %" PRId64 ", \"route\": ", event->t_s);
	put_text(out, event->route->name);
	fprintf(out, ", \"state\": \"%s\", \"since\": %" PRId64 ", \"evidence_nats\": %.3f",
	        detector_state_name(event->state), event->since_s, event->evidence_nats);
	if (event->quantile > 0)
		fprintf(out, ", \"quantile\": %g", event->quantile);
	else
		fputs(", \"quantile\": null", out);
	if (event->threshold_nats > 0)
		fprintf(out, ", \"threshold_nats\": %.3f", event->threshold_nats);
	fprintf(out, ", \"baseline\": \"%s\"", detector_basis_name(event->route->basis));
	if (event->reopened)
		fputs(", \"reopened\": true", out);
	if (event->improved)
		fputs(", \"note\": \"improved\"", out);
	if (event->by_deploy) {
		fputs(", \"deploy\": ", out);
		put_text(out, event->deploy);
		fprintf(out, ", \"p\": %.3g", event->p);
	}
	fputs("}\n", out);
}

/* --every-tick: the evidence after the tick, to all its digits. */
static void
put_tick(FILE *out, int64_t t_s, const struct detector_route *route)
{
	fprintf(out, "{\"t\": %" PRId64 ", \"route\": ", t_s);
	put_text(out, route->name);
	fprintf(out, ", \"tick\": \"%s\", \"evidence_nats\": %.17g}\n",
	        detector_basis_name(route->basis), route->slower.nats);
}

static int __attribute__((format(printf, 2, 3)))
fault(const struct backtest *backtest, const char *format, ...)
{
	va_list args;

	fflush(backtest->out);
	progress_end();
	fprintf(stderr, "tailrace: line %" PRIu64 ": ", backtest->number);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return -1;
}

static int
take_tick(struct backtest *backtest, const struct backtest_line *line)
{
	struct detector_route *route = detector_route_at(backtest->detector, line->route);

	if (route == NULL)
		return fault(backtest, "more than %d routes", DETECTOR_ROUTES_MAX);
	if (backtest->newest_s[route->index] == line->t_s + 1)
		return fault(backtest, "duplicate: this route has had a window at this \"t\"");
	backtest->newest_s[route->index] = line->t_s + 1;
	if (line->cell_count == 0)
		return 0;
	detector_tick(backtest->detector, route, line->t_s, line->cells, line->cell_count);
	if (backtest->every_tick && route->compared)
		put_tick(backtest->out, line->t_s, route);
	return 0;
}

static int
take_line(struct backtest *backtest, const char *text, size_t length)
{
	static struct backtest_line line;

	if (!backtest_scan(text, length, &line) && backtest_line_read(text, length, &line) == -1)
		return fault(backtest, "%s", line.fault);
	if (line.t_s < backtest->t_s)
		return fault(backtest, "out of order: \"t\" is smaller than in an earlier line");
	backtest->t_s = line.t_s;
	detector_advance(backtest->detector, line.t_s);
	if (line.deploy[0] == '\0')
		return take_tick(backtest, &line);
	detector_mark(backtest->detector, line.t_s, line.deploy);
	return 0;
}

static int
take_all(struct backtest *backtest, FILE *in)
{
	char *text = xcalloc(1, BACKTEST_LINE_BYTES_MAX + 2);
	int status = 0;

	struct stat file;
	uint64_t bytes = 0, total = 0;

	if (fstat(fileno(in), &file) == 0 && S_ISREG(file.st_mode))
		total = (uint64_t)file.st_size;
	progress_begin("backtest", false);
	while (status == 0 && fgets(text, BACKTEST_LINE_BYTES_MAX + 2, in) != NULL) {
		size_t length = strlen(text);

		backtest->number++;
		bytes += length;
		if (backtest->number % PROGRESS_LINES == 0)
			progress_show(bytes, total, backtest->number, "lines");
		if (length > 0 && text[length - 1] == '\n')
			length--;
		else if (!feof(in))
			status =
			    fault(backtest, length > BACKTEST_LINE_BYTES_MAX ? "longer than 1 MiB"
			                                                     : "holds a zero byte");
		if (status == 0)
			status = take_line(backtest, text, length);
	}
	progress_end();
	if (status == 0 && ferror(in)) {
		fprintf(stderr, "tailrace: standard input: %s\n", strerror(errno));
		status = -1;
	}
	free(text);
	return status;
}

/* Only the detector's part of the file is used, but a file that is wrong anywhere is refused. */
static int
read_config(const char *path, struct detector_params *params)
{
	struct config_errors errs = {0};
	struct config *config = NULL;
	char *bytes;
	size_t length;
	unsigned routes = params->routes;
	int status = config_load_file(path, &config, &bytes, &length, &errs);

	for (size_t i = 0; i < errs.count; i++)
		fprintf(stderr, "%s\n", errs.lines[i]);
	config_errors_free(&errs);
	if (status == -1)
		return -1;
	detector_params_configured(params, &config->alerts);
	params->routes = routes;
	free(bytes);
	config_free(config);
	return 0;
}

int
backtest_command(const struct client_options *options)
{
	static struct backtest backtest;
	struct detector_params params;
	int status;

	backtest.out = stdout;
	backtest.t_s = -1;
	backtest.every_tick = options->every_tick;
	detector_params_default(&params);
	if (options->routes > 0)
		params.routes = options->routes;
	if (options->config != NULL && read_config(options->config, &params) == -1)
		return EXIT_CONFIG;
	backtest.detector = detector_new(&params, put_event, backtest.out);
	status = take_all(&backtest, stdin);
	if (status == 0 && backtest.number == 0)
		fputs("tailrace: standard input: no ticks\n", stderr);
	if (fflush(backtest.out) == EOF || ferror(backtest.out)) {
		fprintf(stderr, "tailrace: standard output: %s\n", strerror(errno));
		status = -1;
	}
	detector_free(backtest.detector);
	return status == 0 ? EXIT_DONE : EXIT_FAILED;
}
