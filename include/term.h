/* Text for people on a terminal or in a pipe: lines of known width, colours, bars, durations. What is
 * printed may come from clients (paths, names), so control bytes are escaped always. One thread. */
#ifndef TAILRACE_TERM_H
#define TAILRACE_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TERM_COLUMNS_PIPED 100
#define TERM_COLUMNS_MIN 40
#define TERM_COLUMNS_MAX 200
#define TERM_LINE_BYTES 4096

enum term_color {
	TERM_PLAIN,
	TERM_BOLD,
	TERM_DIM,
	TERM_RED,
	TERM_GREEN,
	TERM_YELLOW,
	TERM_BLUE,
	TERM_MAGENTA,
	TERM_CYAN,
	TERM_COLOR_COUNT
};

struct term {
	FILE *out; /* borrowed */
	unsigned columns;
	bool color; /* out is a terminal, TERM is not "dumb", NO_COLOR is not set */
	bool utf8;  /* the locale's character set */
	bool clip;  /* lines end at the last column; off unless set */
};

/* Looks at `out`, the locale (call setlocale() before) and the environment. */
void term_init(struct term *term, FILE *out);

/* One line while it is put together. What goes beyond its buffer is cut. */
struct term_line {
	const struct term *term;
	size_t length;    /* bytes in text */
	unsigned columns; /* that it takes on the screen */
	char text[TERM_LINE_BYTES];
};

void term_line_begin(struct term_line *line, const struct term *term);

/* Appends text, escaped, at most `columns_max` wide (longer text ends in an ellipsis), in a colour. */
void term_line_text(struct term_line *line, enum term_color color, unsigned columns_max,
                    const char *text);

/* As term_line_text() without a limit of its own. */
void term_line_printf(struct term_line *line, enum term_color color, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends text right-aligned so that it ends at `column` (or one space on, where that is past). */
void term_line_right(struct term_line *line, enum term_color color, unsigned column,
                     const char *text);

/* Appends text two columns behind what is there, where all of it fits the terminal. */
void term_line_piece(struct term_line *line, enum term_color color, const char *text);

/* Pads with spaces up to `column`. */
void term_line_pad(struct term_line *line, unsigned column);

/* Appends a bar on a scale of `cells` columns: from and to are shares of it, 0 to 1. A bar is never
 * invisible where `to` > `from`. `light` draws it in a weaker shade. */
void term_line_bar(struct term_line *line, enum term_color color, unsigned cells, double from,
                   double to, bool light);

/* Prints text in as many lines as it takes, each from column `indent` on; words stay whole where they
 * fit a line. */
void term_wrapped(const struct term *term, unsigned indent, const char *text);

/* Prints the line without the spaces at its end. */
void term_line_end(struct term_line *line);

/* How many columns `text` takes when escaped and printed. */
unsigned term_width(const struct term *term, const char *text);

/* "812 ns", "12.3 µs", "1.23 ms", "205 ms", "1.20 s", "2 min 3 s". Returns buf. */
#define TERM_DURATION_SIZE 32
const char *term_duration(const struct term *term, uint64_t ns, char buf[TERM_DURATION_SIZE]);

#endif
