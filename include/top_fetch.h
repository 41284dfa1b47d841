/* The thread that asks the gateway for `tailrace top`, so that a key is answered while a gateway is
 * slow or away. */
#ifndef TAILRACE_TOP_FETCH_H
#define TAILRACE_TOP_FETCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "top.h"

/* What to ask for next. */
struct top_wish {
	uint64_t window_s;
	json_int_t noted; /* the route whose make-up is wanted; 0: none */
	json_int_t shown; /* the route that is looked at; 0: none */
	char shown_name[TOP_TEXT];
};

/* What was answered: null what was not asked for or not answered. */
struct top_news {
	json_t *minute, *routes, *status, *noted, *flame, *requests; /* owned */
	json_int_t noted_of; /* whose make-up was asked for, answered or not; 0: nobody's */
	json_int_t shown;    /* whose flame and requests they are */
	uint64_t window_s;   /* of routes */
	uint64_t at_ns;
	char fault[512]; /* empty: all is well */
};

/* Asks once, here and now. */
void top_ask(const char *control, const struct top_wish *wish, struct top_news *ret);

void top_news_free(struct top_news *news);

/* Asks what a route's time in the window is made of. Owned by the caller; null: not answered. */
json_t *top_ask_flame(const char *control, json_int_t id, uint64_t window_s);

/* Starts the thread, which asks each second, and at once where the wish changed. `control` is kept.
 * Returns a descriptor that can be read when there is news, or -1 with errno. Ends with the process. */
int top_fetch_begin(const char *control, const struct top_wish *wish);

/* Changes the wish; `now`: do not wait for the second. Any thread. */
void top_fetch_wish(const struct top_wish *wish, bool now);

/* Takes the news, once the descriptor told of some. False: none. */
bool top_fetch_take(struct top_news *ret);

#endif
