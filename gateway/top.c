/* `tailrace top`: the loop of keys and news. */
#include "client_commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "commands.h"
#include "screen.h"
#include "top.h"
#include "top_fetch.h"

#define WINDOW_DEFAULT_S 300
#define WINDOW_MAX_S (31u * 86400)
#define NOTED_ONCE 40 /* rows of a plain frame whose make-up is asked for */
#define HEAD_ROWS 4   /* title, state of the gateway, of the connection, heading */
#define FOOT_ROWS 1

static const uint64_t windows_s[] = {60, 300, 900, 3600, 21600, 86400};

enum mode { LIST, ROUTE, HELP, FILTER };

struct top {
	const struct client_options *options;
	struct top_model model;
	struct top_wish wish;
	enum top_sort sort;
	bool reverse, paused, done;
	enum mode mode;
	size_t selected, first; /* places in the model's rows */
	json_int_t selected_id; /* the row stays selected where the order changes; 0: none */
	char filter[TOP_FILTER], typed[TOP_FILTER];
	json_t *routes, *status, *flame, *requests; /* of the last answers; owned */
	char fault[512];                            /* why there is no news; empty: there is */
	uint64_t fault_ns;                          /* since when */
	unsigned rows;                              /* of the list on the screen */
};

/* --- what is known ------------------------------------------------------------ */

static void
refill(struct top *top)
{
	if (top->routes == NULL)
		return;
	top_fill(&top->model, top->routes, top->sort, top->reverse, top->filter);
	for (size_t i = 0; i < top->model.count; i++)
		if (top->model.rows[i].id == top->selected_id)
			top->selected = i;
	if (top->selected >= top->model.count)
		top->selected = top->model.count > 0 ? top->model.count - 1 : 0;
	if (top->selected_id != 0 && top->model.count > 0)
		top->selected_id = top->model.rows[top->selected].id;
}

static void
replace(json_t **place, json_t *with)
{
	if (with == NULL)
		return;
	json_decref(*place);
	*place = json_incref(with);
}

static void
take_news(struct top *top, const struct top_news *news)
{
	if (news->fault[0] != '\0' && top->fault[0] == '\0')
		top->fault_ns = clock_now_ns();
	snprintf(top->fault, sizeof(top->fault), "%s", news->fault);
	if (news->minute != NULL)
		top_count(&top->model, news->minute, news->at_ns);
	if (news->noted_of != 0)
		top_note(&top->model, news->noted_of,
		         news->noted != NULL ? news->noted : news->flame, news->at_ns);
	replace(&top->status, news->status);
	if (top->paused)
		return;
	if (news->window_s == top->wish.window_s)
		replace(&top->routes, news->routes);
	if (news->shown != 0 && news->shown == top->wish.shown) {
		replace(&top->flame, news->flame);
		replace(&top->requests, news->requests);
	}
	refill(top);
}

static void
wish_again(struct top *top, bool now)
{
	top->wish.noted = top_oldest(&top->model, top->first, top->rows);
	top_fetch_wish(&top->wish, now);
}

/* --- drawing --------------------------------------------------------------------- */

static void
window_text(uint64_t window_s, char *buf, size_t size)
{
	const char *unit = window_s % 86400 == 0  ? "d"
	                   : window_s % 3600 == 0 ? "h"
	                   : window_s % 60 == 0   ? "m"
	                                          : "s";
	uint64_t scale = *unit == 'd' ? 86400 : *unit == 'h' ? 3600 : *unit == 'm' ? 60 : 1;

	snprintf(buf, size, "%llu%s", (unsigned long long)(window_s / scale), unit);
}

static void
draw_title(const struct top *top, const struct term *term)
{
	time_t now = (time_t)(clock_wall_ns() / NS_PER_S);
	char clock[16], window[32], text[64];
	struct term_line line;
	struct tm tm;

	term_line_begin(&line, term);
	term_line_piece(&line, TERM_BOLD, "tailrace top");
	strftime(clock, sizeof(clock), "%H:%M:%S UTC", gmtime_r(&now, &tm));
	term_line_piece(&line, TERM_PLAIN, clock);
	window_text(top->wish.window_s, window, sizeof(window));
	snprintf(text, sizeof(text), "last %s", window);
	term_line_piece(&line, TERM_PLAIN, text);
	snprintf(text, sizeof(text), "by %s%s", top_sort_name(top->sort),
	         top->reverse ? " (reverse)" : "");
	term_line_piece(&line, TERM_PLAIN, text);
	snprintf(text, sizeof(text), "%zu route%s", top->model.all, top->model.all == 1 ? "" : "s");
	term_line_piece(&line, TERM_PLAIN, text);
	snprintf(text, sizeof(text), "%.2f%% errors",
	         top->model.requests > 0 ? 100 * top->model.errors / top->model.requests : 0);
	term_line_piece(&line, TERM_PLAIN, text);
	term_line_end(&line);
}

/* Filter, pause, and what is wrong with the connection. */
static void
draw_notice(const struct top *top, const struct term *term)
{
	struct term_line line;
	char text[640];

	term_line_begin(&line, term);
	if (top->fault[0] != '\0') {
		snprintf(text, sizeof(text), "%s; asked again each second, for %llu s now",
		         top->fault,
		         (unsigned long long)((clock_now_ns() - top->fault_ns) / NS_PER_S));
		term_line_text(&line, TERM_RED, term->columns, text);
	} else if (top->routes == NULL) {
		term_line_text(&line, TERM_DIM, term->columns, "asking the gateway");
	} else {
		if (top->paused)
			term_line_text(&line, TERM_YELLOW, term->columns, "PAUSED  ");
		if (top->filter[0] != '\0' && line.columns + 8 < term->columns) {
			term_line_text(&line, TERM_DIM, 8, "filter: ");
			term_line_text(&line, TERM_YELLOW, term->columns - line.columns,
			               top->filter);
		}
	}
	term_line_end(&line);
}

static void
draw_help(const struct term *term)
{
	static const char *const keys[][2] = {
	    {"up down k j", "select a route"},
	    {"PgUp PgDn", "a page; Home and End too"},
	    {"Enter", "open it; Escape: back"},
	    {"t f l e", "time, rate, p95, errors"},
	    {"s r", "the next order; reversed"},
	    {"w W", "longer, shorter window"},
	    {"/", "filter; Escape forgets it"},
	    {"p Space", "pause, go on"},
	    {"q", "quit"},
	};
	struct term_line line;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		term_line_begin(&line, term);
		term_line_pad(&line, 2);
		term_line_text(&line, TERM_BOLD, 12, keys[i][0]);
		term_line_pad(&line, 14);
		term_line_text(&line, TERM_PLAIN, term->columns - 14, keys[i][1]);
		term_line_end(&line);
	}
}

static void
draw_list(struct top *top, const struct term *term)
{
	if (top->selected < top->first)
		top->first = top->selected;
	if (top->rows > 0 && top->selected >= top->first + top->rows)
		top->first = top->selected - top->rows + 1;
	if (top->first >= top->model.count)
		top->first = 0;
	top_draw_heading(term, top->sort);
	for (size_t i = top->first; i < top->model.count && i < top->first + top->rows; i++)
		top_draw_row(term, &top->model.rows[i],
		             i == top->selected && top->selected_id != 0);
	if (top->model.count == 0 && top->routes != NULL && top->rows > 0)
		fputs(top->model.all > 0 ? "  no route fits the filter\n"
		                         : "  no request came in this time\n",
		      term->out);
}

static void
draw_foot(const struct top *top, const struct term *term)
{
	static const char *const keys[] = {"q quit",   "? help",   "Enter route", "s sort",
	                                   "/ filter", "w window", "p pause",     "r reverse"};
	struct term_line line;

	term_line_begin(&line, term);
	if (top->mode == FILTER) {
		term_line_text(&line, TERM_BOLD, 1, "/");
		term_line_text(&line, TERM_PLAIN, term->columns - 2, top->typed);
		term_line_text(&line, TERM_DIM, 1, "_");
	} else {
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			term_line_piece(&line, TERM_DIM, keys[i]);
	}
	term_line_end(&line);
}

/* One frame of the screen. */
static void
draw(struct top *top)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	struct term term;
	unsigned rows = screen_size(&term, out);

	top->rows = rows - HEAD_ROWS - FOOT_ROWS;
	draw_title(top, &term);
	top_draw_status(&term, top->status);
	draw_notice(top, &term);
	if (top->mode == HELP)
		draw_help(&term);
	else if (top->mode == ROUTE)
		top_draw_route(&term, top->wish.shown_name, top->flame, top->requests,
		               top->rows + 1);
	else
		draw_list(top, &term);
	fflush(out);
	for (size_t lines = 0, i = 0; lines + 1 < rows; i++) { /* the foot is the last row */
		if (i < size && text[i] != '\n')
			continue;
		lines++;
		if (i >= size)
			fputc('\n', out);
	}
	draw_foot(top, &term);
	fclose(out);
	screen_show(text, rows);
	free(text);
}

/* --- keys ---------------------------------------------------------------------------- */

static void
move_to(struct top *top, long place)
{
	long last = (long)top->model.count - 1;

	if (last < 0)
		return;
	top->selected = (size_t)(place < 0 ? 0 : place > last ? last : place);
	top->selected_id = top->model.rows[top->selected].id;
}

static void
change_window(struct top *top, int step)
{
	const int count = sizeof(windows_s) / sizeof(windows_s[0]);
	int at = 0;

	while (at + 1 < count && windows_s[at] < top->wish.window_s)
		at++;
	at += step;
	top->wish.window_s = windows_s[at < 0 ? count - 1 : at % count];
	wish_again(top, true);
}

static void
open_route(struct top *top)
{
	const struct top_row *row;

	if (top->model.count == 0)
		return;
	row = &top->model.rows[top->selected];
	top->selected_id = row->id;
	top->wish.shown = row->id;
	snprintf(top->wish.shown_name, sizeof(top->wish.shown_name), "%s", row->route);
	json_decref(top->flame);
	json_decref(top->requests);
	top->flame = top->requests = NULL;
	top->mode = ROUTE;
	wish_again(top, true);
}

static void
close_route(struct top *top)
{
	top->mode = LIST;
	top->wish.shown = 0;
	wish_again(top, false);
}

static void
set_sort(struct top *top, enum top_sort sort)
{
	top->sort = sort;
	refill(top);
}

/* Returns whether the key moved the selection. */
static bool
key_moves(struct top *top, int key)
{
	long at = (long)top->selected, page = top->rows > 1 ? (long)top->rows - 1 : 1;
	bool none = top->selected_id == 0; /* the first key selects the first row */

	switch (key) {
	case SCREEN_UP:
	case 'k':
		move_to(top, none ? 0 : at - 1);
		return true;
	case SCREEN_DOWN:
	case 'j':
		move_to(top, none ? 0 : at + 1);
		return true;
	case SCREEN_PAGE_UP:
		move_to(top, at - page);
		return true;
	case SCREEN_PAGE_DOWN:
		move_to(top, at + page);
		return true;
	case SCREEN_HOME:
	case 'g':
		move_to(top, 0);
		return true;
	case SCREEN_END:
	case 'G':
		move_to(top, (long)top->model.count - 1);
		return true;
	default:
		return false;
	}
}

static void
key_in_list(struct top *top, int key)
{
	static const char sorts[] = "tfle";
	const char *sort = key > 0 && key < 128 ? strchr(sorts, key) : NULL;

	if (key_moves(top, key))
		return;
	if (sort != NULL) {
		set_sort(top, (enum top_sort)(sort - sorts));
		return;
	}
	switch (key) {
	case 's':
		set_sort(top, (enum top_sort)((top->sort + 1) % TOP_SORTS));
		break;
	case 'r':
		top->reverse = !top->reverse;
		refill(top);
		break;
	case 'w':
		change_window(top, 1);
		break;
	case 'W':
		change_window(top, -1);
		break;
	case '/':
		top->mode = FILTER;
		snprintf(top->typed, sizeof(top->typed), "%s", top->filter);
		break;
	case SCREEN_ENTER:
	case SCREEN_RIGHT:
		open_route(top);
		break;
	default:
		break;
	}
}

static void
key_in_filter(struct top *top, int key)
{
	size_t n = strlen(top->typed);

	if (key == SCREEN_ENTER || key == SCREEN_ESCAPE) {
		if (key == SCREEN_ESCAPE)
			top->typed[0] = '\0';
		memcpy(top->filter, top->typed, sizeof(top->filter));
		top->mode = LIST;
	} else if (key == SCREEN_BACKSPACE) {
		top_drop_character(top->typed);
		memcpy(top->filter, top->typed, sizeof(top->filter));
	} else if (key >= ' ' && key < 256 && n + 1 < sizeof(top->typed)) {
		top->typed[n] = (char)key;
		top->typed[n + 1] = '\0';
		memcpy(top->filter, top->typed, sizeof(top->filter));
	}
	refill(top);
}

static void
take_key(struct top *top, int key)
{
	if (key == SCREEN_GONE) {
		top->done = true;
	} else if (top->mode == FILTER) {
		key_in_filter(top, key);
	} else if (key == 'q') {
		top->done = true;
	} else if (key == 'p' || key == ' ') {
		top->paused = !top->paused;
	} else if (top->mode == HELP) {
		top->mode = top->wish.shown != 0 ? ROUTE : LIST;
	} else if (key == '?' || key == 'h') {
		top->mode = HELP;
	} else if (top->mode == ROUTE) {
		if (key == SCREEN_ESCAPE || key == SCREEN_ENTER || key == SCREEN_BACKSPACE ||
		    key == SCREEN_LEFT)
			close_route(top);
	} else {
		key_in_list(top, key);
	}
}

/* --- the whole --------------------------------------------------------------------------- */

static int
run_live(struct top *top)
{
	struct top_news news;
	int wake = top_fetch_begin(top->options->control, &top->wish);

	if (wake == -1 || screen_begin() != 0) {
		perror("tailrace: the terminal");
		return EXIT_FAILED;
	}
	while (!top->done) {
		draw(top);
		int key = screen_key(wake, 1000);
		if (key == SCREEN_WAKE && top_fetch_take(&news)) {
			take_news(top, &news);
			top_news_free(&news);
			wish_again(top, false);
		} else if (key != SCREEN_NOTHING && key != SCREEN_WAKE) {
			take_key(top, key);
		}
	}
	screen_end();
	return EXIT_DONE;
}

/* Two looks a second apart, so that there are rates; false after saying what is wrong. */
static bool
look_twice(struct top *top)
{
	struct timespec second = {.tv_sec = 1};

	for (int look = 0; look < 2; look++) {
		struct top_news news;

		if (look > 0)
			nanosleep(&second, NULL);
		top_ask(top->options->control, &top->wish, &news);
		take_news(top, &news);
		top_news_free(&news);
		if (top->fault[0] != '\0') {
			fprintf(stderr, "tailrace: %s\n", top->fault);
			return false;
		}
	}
	for (size_t i = 0; i < top->model.count && i < NOTED_ONCE; i++) {
		json_t *noted =
		    top_ask_flame(top->options->control, top->model.rows[i].id, top->wish.window_s);

		top_note(&top->model, top->model.rows[i].id, noted, clock_now_ns());
		json_decref(noted);
	}
	refill(top);
	return true;
}

static int
run_once(struct top *top)
{
	struct term term;

	if (!look_twice(top))
		return EXIT_FAILED;
	if (top->options->json)
		return client_print_json(top_json(&top->model, top->wish.window_s, top->status));
	term_init(&term, stdout);
	top->rows = (unsigned)top->model.count + 1;
	draw_title(top, &term);
	top_draw_status(&term, top->status);
	draw_list(top, &term);
	return EXIT_DONE;
}

int
client_top(const struct client_options *options)
{
	struct top top = {
	    .options = options,
	    .sort = top_sort_of(options->sort),
	    .reverse = options->reverse,
	    .wish.window_s = WINDOW_DEFAULT_S,
	};
	int status;

	if (options->window != NULL)
		top.wish.window_s = client_seconds(options->window);
	if (top.wish.window_s == 0 || top.wish.window_s > WINDOW_MAX_S) {
		fprintf(stderr, "tailrace: --window is like 90s, 15m, 6h or 2d, 31d at most\n");
		return EXIT_USAGE;
	}
	if (options->filter != NULL)
		snprintf(top.filter, sizeof(top.filter), "%s", options->filter);
	status =
	    options->once || options->json || !screen_possible() ? run_once(&top) : run_live(&top);
	json_decref(top.routes);
	json_decref(top.status);
	json_decref(top.flame);
	json_decref(top.requests);
	top_free(&top.model);
	return status;
}
