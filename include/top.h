/* What `tailrace top` shows, apart from how it comes and where it goes: rows of routes made of the
 * API's answers, their order, and the drawing. One thread. */
#ifndef TAILRACE_TOP_H
#define TAILRACE_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/route.h"
#include "term.h"

#define TOP_TEXT (ROUTE_NAME_MAX + 1) /* routes' names are whole */
#define TOP_FILTER 64

enum top_sort { TOP_TIME, TOP_RATE, TOP_P95, TOP_ERRORS, TOP_SORTS };

/* One route in the window. */
struct top_row {
	json_int_t id;
	char route[TOP_TEXT];
	uint64_t requests, errors, p50_ns, p95_ns, p99_ns;
	double time_ns;      /* all its requests together */
	double share;        /* of all routes' time */
	double rate;         /* requests/s of the last seconds; < 0: not known yet */
	char main[TOP_TEXT]; /* what takes the most of it; empty: not known yet */
	char state[32];
	double learned; /* while learning: how far, 0 to 1; < 0: not known */
};

/* What the gateway says of itself, of an answer of /api/v1/status. Texts are the answer's. */
struct top_status {
	const char *version;
	const char *most_dropped; /* the counter with the most; null: nothing was lost */
	json_int_t uptime_s, drops, workers, hooks;
	double requests_per_s; /* of the last minute */
	double joined_ratio;   /* < 0: nothing was sent to the app */
};

/* What is kept of a route from one answer to the next. Opaque. */
struct top_track;

struct top_model {
	struct top_row *rows;     /* owned, in order */
	size_t count, all;        /* that fit the filter; of all routes */
	double errors, requests;  /* of all routes */
	struct top_track *tracks; /* owned, by ID */
};

/* Takes a look at the counts of the running minute, for the rates. now_ns: any steady clock. */
void top_count(struct top_model *model, const json_t *minute, uint64_t now_ns);

/* Notes what a route's time is made of: an answer of /flame, or null where there came none; then what
 * was known stays, and others are asked for first. */
void top_note(struct top_model *model, json_int_t id, const json_t *flame, uint64_t now_ns);

/* Makes the rows anew of an answer of /routes. `filter`: part of the name in any case; empty: all. */
void top_fill(struct top_model *model, const json_t *routes, enum top_sort sort, bool reverse,
              const char *filter);

/* Of the rows from first on, at most `count`, the one whose make-up is known least recently. 0: none. */
json_int_t top_oldest(const struct top_model *model, size_t first, size_t count);

void top_free(struct top_model *model);

void top_sum_up(const json_t *status, struct top_status *ret);

const char *top_sort_name(enum top_sort sort);

/* TOP_SORTS where it is none. */
enum top_sort top_sort_of(const char *name);

/* What /api/v1/status tells (null: nothing yet) in a line, as much of it as fits. */
void top_draw_status(const struct term *term, const json_t *status);

/* The heading, and one row; `selected` is marked. */
void top_draw_heading(const struct term *term, enum top_sort sort);
void top_draw_row(const struct term *term, const struct top_row *row, bool selected);

/* One route: its worst frames (a /flame answer, or null) and slowest requests (a /requests answer, or
 * null), in at most `rows` lines. */
void top_draw_route(const struct term *term, const char *route, const json_t *flame,
                    const json_t *requests, unsigned rows);

/* Takes the last character (UTF-8) off a text. */
void top_drop_character(char *text);

/* The rows as JSON, and what the gateway says of itself (or null). Owned by the caller. */
json_t *top_json(const struct top_model *model, uint64_t window_s, const json_t *status);

#endif
