/* The drawing of `tailrace top`. Columns go as the terminal gets narrower. */
#include "top.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "client_tools.h"

#define MARK_COLUMNS 2
#define GAP 2 /* before what the route is mostly */
#define ROUTE_COLUMNS_MIN 12
#define MAIN_COLUMNS_MAX 60
#define STATE_COLUMNS 12 /* "learning 99%" */
#define STATE_FROM 88    /* shown on terminals at least so wide; below, a mark tells of alerts */
#define REQUEST_FROM 59  /* a request fits a line on terminals at least so wide */

enum column { RATE, ERRORS, P50, P95, P99, SHARE, BAR, COLUMNS };

static const struct {
	const char *name;
	unsigned columns;
	unsigned from; /* shown on terminals at least so wide */
	enum top_sort sort;
} columns[COLUMNS] = {
    [RATE] = {"REQ/S", 7, 0, TOP_RATE},  [ERRORS] = {"ERRORS", 8, 58, TOP_ERRORS},
    [P50] = {"P50", 10, 140, TOP_SORTS}, [P95] = {"P95", 10, 0, TOP_P95},
    [P99] = {"P99", 10, 112, TOP_SORTS}, [SHARE] = {"TIME", 7, 0, TOP_TIME},
    [BAR] = {"", 10, 128, TOP_SORTS},
};

/* Where each column ends on a terminal; the route's and the main part's widths. */
struct layout {
	unsigned route, main, state;
	unsigned end[COLUMNS]; /* 0: not shown */
};

static void
lay_out(const struct term *term, struct layout *ret)
{
	unsigned fixed = MARK_COLUMNS + GAP, rest, at;

	*ret = (struct layout){.state = term->columns >= STATE_FROM ? STATE_COLUMNS : 0};
	for (unsigned i = 0; i < COLUMNS; i++)
		fixed += term->columns >= columns[i].from ? columns[i].columns : 0;
	fixed += ret->state;
	rest =
	    term->columns > fixed + ROUTE_COLUMNS_MIN ? term->columns - fixed : ROUTE_COLUMNS_MIN;
	if (rest >= 28)
		ret->main = rest / 2 < MAIN_COLUMNS_MAX ? rest / 2 : MAIN_COLUMNS_MAX;
	ret->route = rest - ret->main;
	at = MARK_COLUMNS + ret->route;
	for (unsigned i = 0; i < COLUMNS; i++) {
		if (term->columns < columns[i].from)
			continue;
		at += columns[i].columns;
		ret->end[i] = at;
	}
}

static unsigned
main_begin(const struct layout *layout)
{
	for (unsigned i = COLUMNS; i-- > 0;)
		if (layout->end[i] > 0)
			return layout->end[i] + GAP;
	return 0;
}

/* "42s", "12m", "3h12m", "5d3h". */
static void
uptime_text(json_int_t s, char *buf, size_t size)
{
	if (s < 60)
		snprintf(buf, size, "%llds", (long long)s);
	else if (s < 3600)
		snprintf(buf, size, "%lldm", (long long)s / 60);
	else if (s < 86400)
		snprintf(buf, size, "%lldh%lldm", (long long)s / 3600, (long long)s % 3600 / 60);
	else
		snprintf(buf, size, "%lldd%lldh", (long long)s / 86400,
		         (long long)s % 86400 / 3600);
}

static void
put_drops(struct term_line *line, const struct top_status *sum)
{
	char text[160];

	if (sum->drops == 0) {
		term_line_piece(line, TERM_DIM, "nothing lost");
		return;
	}
	snprintf(text, sizeof(text), "%lld lost", (long long)sum->drops);
	term_line_piece(line, TERM_RED, text);
	snprintf(text, sizeof(text), "(most: %s)", sum->most_dropped);
	term_line_piece(line, TERM_RED, text);
}

void
top_draw_status(const struct term *term, const json_t *status)
{
	struct top_status sum;
	struct term_line line;
	char text[96], uptime[32];

	term_line_begin(&line, term);
	top_sum_up(status, &sum);
	if (status != NULL && sum.drops > 0)
		put_drops(&line, &sum);
	if (status != NULL) {
		uptime_text(sum.uptime_s, uptime, sizeof(uptime));
		snprintf(text, sizeof(text), "%.32s up %s", sum.version, uptime);
		term_line_piece(&line, TERM_DIM, text);
		snprintf(text, sizeof(text), "%.1f req/s", sum.requests_per_s);
		term_line_piece(&line, TERM_PLAIN, text);
		snprintf(text, sizeof(text), "joined %.0f%%", floor(100 * sum.joined_ratio));
		term_line_piece(&line, sum.joined_ratio < 0.99 ? TERM_YELLOW : TERM_DIM,
		                sum.joined_ratio < 0 ? "joined -" : text);
		snprintf(text, sizeof(text), "%lld worker%s", (long long)sum.workers,
		         sum.workers == 1 ? "" : "s");
		term_line_piece(&line, sum.workers == 0 ? TERM_RED : TERM_DIM, text);
		snprintf(text, sizeof(text), "%lld hook%s", (long long)sum.hooks,
		         sum.hooks == 1 ? "" : "s");
		term_line_piece(&line, sum.hooks == 0 ? TERM_YELLOW : TERM_DIM, text);
		if (sum.drops == 0)
			put_drops(&line, &sum);
	}
	term_line_end(&line);
}

void
top_draw_heading(const struct term *term, enum top_sort sort)
{
	struct layout layout;
	struct term_line line;

	lay_out(term, &layout);
	term_line_begin(&line, term);
	term_line_pad(&line, MARK_COLUMNS);
	term_line_text(&line, TERM_DIM, layout.route, "ROUTE");
	for (unsigned i = 0; i < COLUMNS; i++) {
		enum term_color color = columns[i].sort == sort ? TERM_BOLD : TERM_DIM;

		if (layout.end[i] > 0 && i != BAR)
			term_line_right(&line, color, layout.end[i], columns[i].name);
	}
	term_line_pad(&line, main_begin(&layout));
	if (layout.main > 2)
		term_line_text(&line, TERM_DIM, layout.main - 2, "MOSTLY");
	term_line_pad(&line, main_begin(&layout) + layout.main);
	if (layout.state > 0)
		term_line_text(&line, TERM_DIM, layout.state, "STATE");
	term_line_end(&line);
}

static enum term_color
state_color(const char *state)
{
	return strcmp(state, "firing") == 0    ? TERM_RED
	       : strcmp(state, "pending") == 0 ? TERM_YELLOW
	       : strcmp(state, "ok") == 0      ? TERM_GREEN
	                                       : TERM_DIM;
}

static bool
is_alert(const char *state)
{
	return strcmp(state, "firing") == 0 || strcmp(state, "pending") == 0;
}

static void
put_state(struct term_line *line, const struct top_row *row, unsigned room)
{
	char text[64];

	if (strcmp(row->state, "learning") == 0 && row->learned >= 0 && row->learned < 1)
		snprintf(text, sizeof(text), "learning %.0f%%", floor(100 * row->learned));
	else
		snprintf(text, sizeof(text), "%s", row->state);
	term_line_text(line, state_color(row->state), room, text);
}

static void
put_ns(struct term_line *line, unsigned end, uint64_t ns)
{
	char text[TERM_DURATION_SIZE];

	if (end > 0)
		term_line_right(line, TERM_PLAIN, end, term_duration(line->term, ns, text));
}

/* A request a minute is not none. */
static int
rate_digits(double rate)
{
	if (rate >= 99.95)
		return 0;
	return rate > 0 && rate < 0.095 ? 2 : 1;
}

static void
put_numbers(struct term_line *line, const struct layout *layout, const struct top_row *row)
{
	char text[32];

	if (row->rate < 0)
		snprintf(text, sizeof(text), "-");
	else
		snprintf(text, sizeof(text), "%.*f", rate_digits(row->rate), row->rate);
	term_line_right(line, TERM_PLAIN, layout->end[RATE], text);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)row->errors);
	if (layout->end[ERRORS] > 0)
		term_line_right(line, row->errors > 0 ? TERM_RED : TERM_DIM, layout->end[ERRORS],
		                text);
	put_ns(line, layout->end[P50], row->p50_ns);
	put_ns(line, layout->end[P95], row->p95_ns);
	put_ns(line, layout->end[P99], row->p99_ns);
	snprintf(text, sizeof(text), "%.1f%%", 100 * row->share);
	term_line_right(line, TERM_PLAIN, layout->end[SHARE], text);
	if (layout->end[BAR] > 0) {
		term_line_pad(line, layout->end[SHARE] + 2);
		term_line_bar(line, TERM_CYAN, columns[BAR].columns - 2, 0, row->share, false);
	}
}

void
top_draw_row(const struct term *term, const struct top_row *row, bool selected)
{
	struct layout layout;
	struct term_line line;

	lay_out(term, &layout);
	bool alert = layout.state == 0 && is_alert(row->state);
	term_line_begin(&line, term);
	if (selected || alert)
		term_line_text(&line, alert ? state_color(row->state) : TERM_BOLD, 1,
		               selected ? ">" : "!");
	term_line_pad(&line, MARK_COLUMNS);
	term_line_text(&line, selected ? TERM_BOLD : TERM_PLAIN, layout.route - 1, row->route);
	put_numbers(&line, &layout, row);
	term_line_pad(&line, main_begin(&layout));
	if (layout.main > 2)
		term_line_text(&line, TERM_DIM, layout.main - 2, row->main);
	term_line_pad(&line, main_begin(&layout) + layout.main);
	if (layout.state > 0)
		put_state(&line, row, layout.state);
	term_line_end(&line);
}

/* --- one route ------------------------------------------------------------------- */

static void
draw_frame(const struct term *term, const json_t *row, double whole)
{
	double share = whole > 0 ? client_real(row, "ns") / whole : 0;
	char text[TERM_DURATION_SIZE];
	struct term_line line;
	unsigned bar = term->columns >= 80 ? term->columns / 5 : 0;
	unsigned label = term->columns > bar + 40 ? term->columns - bar - 22 : 18;

	term_line_begin(&line, term);
	term_line_pad(&line, MARK_COLUMNS);
	client_put_row_label(&line, label, row);
	put_ns(&line, label + 11, (uint64_t)llround(fmax(0, client_real(row, "ns"))));
	snprintf(text, sizeof(text), "%.1f%%", 100 * share);
	term_line_right(&line, TERM_PLAIN, label + 18, text);
	if (bar > 0) {
		term_line_pad(&line, label + 20);
		term_line_bar(&line, TERM_CYAN, bar, 0, share, false);
	}
	term_line_end(&line);
}

static void
draw_request(const struct term *term, const json_t *request)
{
	const char *start = client_text(request, "start");
	const json_t *status = json_object_get(request, "status");
	char text[16];
	struct term_line line;

	term_line_begin(&line, term);
	term_line_pad(&line, MARK_COLUMNS);
	term_line_printf(&line, TERM_DIM, "%.8s", strlen(start) >= 19 ? start + 11 : start);
	snprintf(text, sizeof(text), json_is_integer(status) ? "%d" : "-",
	         (int)json_integer_value(status));
	term_line_right(&line, TERM_PLAIN, MARK_COLUMNS + 14, text);
	put_ns(&line, MARK_COLUMNS + 24, client_number(request, "total_ns"));
	if (term->columns < REQUEST_FROM) {
		term_line_end(&line);
		term_line_begin(&line, term);
		term_line_pad(&line, 2 * MARK_COLUMNS);
	} else {
		term_line_pad(&line, MARK_COLUMNS + 25);
	}
	term_line_text(&line, TERM_PLAIN, 32, client_text(request, "trace_id"));
	term_line_end(&line);
}

static unsigned
draw_title(const struct term *term, const char *text, const char *note)
{
	struct term_line line;

	term_line_begin(&line, term);
	term_line_text(&line, TERM_BOLD, term->columns, text);
	if (line.columns + 2 < term->columns && *note != '\0') {
		term_line_pad(&line, line.columns + 2);
		term_line_text(&line, TERM_DIM, term->columns - line.columns, note);
	}
	term_line_end(&line);
	return 1;
}

void
top_draw_route(const struct term *term, const char *route, const json_t *flame,
               const json_t *requests, unsigned rows)
{
	const json_t *frames = json_object_get(flame, "rows");
	const json_t *slowest = json_object_get(requests, "requests");
	double whole = client_real(json_object_get(flame, "tree"), "ns");
	unsigned used = draw_title(term, route, "Escape: back");
	unsigned half = rows > 8 ? (rows - 5) / 2 : 2;
	char mean[TERM_DURATION_SIZE], text[96];

	snprintf(text, sizeof(text), "of %.0f requests, mean %s", client_real(flame, "requests"),
	         term_duration(term, (uint64_t)llround(fmax(0, whole)), mean));
	used += draw_title(term, "worst frames", flame != NULL ? text : "asking");
	for (size_t i = 0; i < json_array_size(frames) && i < half; i++, used++)
		draw_frame(term, json_array_get(frames, i), whole);
	fputc('\n', term->out);
	used += 1 + draw_title(term, "slowest requests kept", "tailrace show TRACE_ID");
	unsigned each = term->columns < REQUEST_FROM ? 2 : 1;
	for (size_t i = 0; i < json_array_size(slowest) && used + each <= rows; i++, used += each)
		draw_request(term, json_array_get(slowest, i));
}
