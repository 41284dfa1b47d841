/* The whole terminal for one program: alternate screen, no echo, keys one by one; given back on every
 * way out (return, exit, signals, a stop by Ctrl-Z). What is needed of a terminal's language is what
 * all of today's speak (ECMA-48), so that no terminfo is asked. One thread. */
#ifndef TAILRACE_SCREEN_H
#define TAILRACE_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include "term.h"

enum screen_key {
	SCREEN_NOTHING = -1, /* the time is over, or the size changed */
	SCREEN_GONE = -2,    /* end of input: the terminal is gone */
	SCREEN_WAKE = -3,    /* the other descriptor can be read */
	SCREEN_ESCAPE = 27,
	SCREEN_ENTER = 13,
	SCREEN_BACKSPACE = 127,
	SCREEN_UP = 256,
	SCREEN_DOWN,
	SCREEN_LEFT,
	SCREEN_RIGHT,
	SCREEN_PAGE_UP,
	SCREEN_PAGE_DOWN,
	SCREEN_HOME,
	SCREEN_END,
	SCREEN_OTHER, /* a key nobody here knows */
};

/* Whether standard input and output are a terminal that can do it (TERM is set and not "dumb"). */
bool screen_possible(void);

/* Takes the terminal. Returns 0, or -1 with errno. */
int screen_begin(void);

/* Gives it back; safe to call again. */
void screen_end(void);

/* The next key, or why there is none; bytes of UTF-8 come one by one. Waits at most timeout_ms, and for
 * `wake_fd` too. */
int screen_key(int wake_fd, int timeout_ms);

/* Sets a term for drawing into `out` at the terminal's present size. Returns its rows. */
unsigned screen_size(struct term *term, FILE *out);

/* Shows lines of text, as many as there are rows; what was there before goes. */
void screen_show(const char *text, unsigned rows);

#endif
