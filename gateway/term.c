/* Lines for people: escaped text, columns counted by the locale, bars in eighths of a cell with an
 * ASCII fallback, and colours that only a terminal gets. */
#include "term.h"

#include <langinfo.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#define RESET "\033[0m"

static const char *const color_codes[TERM_COLOR_COUNT] = {
    [TERM_PLAIN] = "",        [TERM_BOLD] = "\033[1m",     [TERM_DIM] = "\033[2m",
    [TERM_RED] = "\033[31m",  [TERM_GREEN] = "\033[32m",   [TERM_YELLOW] = "\033[33m",
    [TERM_BLUE] = "\033[34m", [TERM_MAGENTA] = "\033[35m", [TERM_CYAN] = "\033[36m",
};

static unsigned
columns_of(FILE *out)
{
	struct winsize size;

	if (!isatty(fileno(out)))
		return TERM_COLUMNS_PIPED;
	if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
		return TERM_COLUMNS_PIPED;
	if (size.ws_col < TERM_COLUMNS_MIN)
		return TERM_COLUMNS_MIN;
	return size.ws_col > TERM_COLUMNS_MAX ? TERM_COLUMNS_MAX : size.ws_col;
}

void
term_init(struct term *term, FILE *out)
{
	const char *type = getenv("TERM");
	const char *no_color = getenv("NO_COLOR");

	term->out = out;
	term->clip = false;
	term->columns = columns_of(out);
	term->color = isatty(fileno(out)) && (no_color == NULL || *no_color == '\0') &&
	              (type == NULL || strcmp(type, "dumb") != 0);
	term->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

void
term_line_begin(struct term_line *line, const struct term *term)
{
	line->term = term;
	line->length = 0;
	line->columns = 0;
	line->text[0] = '\0';
}

/* Appends bytes as they are; room for a colour reset is kept. */
static void
append(struct term_line *line, const char *bytes, size_t n, unsigned columns)
{
	if (line->length + n + sizeof(RESET) > sizeof(line->text))
		return;
	if (line->term->clip && line->columns + columns > line->term->columns)
		return;
	memcpy(line->text + line->length, bytes, n);
	line->length += n;
	line->text[line->length] = '\0';
	line->columns += columns;
}

static void
color_on(struct term_line *line, enum term_color color)
{
	if (line->term->color)
		append(line, color_codes[color], strlen(color_codes[color]), 0);
}

/* Into the room that append() keeps, where the text filled the rest. */
static void
color_off(struct term_line *line, enum term_color color)
{
	if (!line->term->color || color == TERM_PLAIN ||
	    line->length + sizeof(RESET) > sizeof(line->text))
		return;
	memcpy(line->text + line->length, RESET, sizeof(RESET));
	line->length += strlen(RESET);
}

/* Characters that move the cursor or turn the direction of what follows. */
static bool
is_unsafe(wchar_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x202a && c <= 0x202e) ||
	       (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/* One character of `text` made printable. Returns the bytes it took of `text`; *ret_columns is its
 * width and `out` its printable form. What the locale cannot show becomes \xNN, byte by byte. */
static size_t
printable(const char *text, char out[16], unsigned *ret_columns)
{
	mbstate_t state = {0};
	wchar_t c;
	size_t n = mbrtowc(&c, text, MB_CUR_MAX, &state);
	int width;

	if (n != (size_t)-1 && n != (size_t)-2 && !is_unsafe(c)) {
		width = wcwidth(c);
		if (width >= 0) {
			memcpy(out, text, n);
			out[n] = '\0';
			*ret_columns = (unsigned)width;
			return n;
		}
	}
	snprintf(out, 16, "\\x%02x", (unsigned char)*text);
	*ret_columns = 4;
	return 1;
}

unsigned
term_width(const struct term *term, const char *text)
{
	unsigned total = 0, columns;
	char out[16];

	(void)term;
	while (*text != '\0') {
		text += printable(text, out, &columns);
		total += columns;
	}
	return total;
}

void
term_line_text(struct term_line *line, enum term_color color, unsigned columns_max,
               const char *text)
{
	const char *ellipsis = line->term->utf8 ? "\u2026" : ".";
	unsigned used = 0, columns;
	bool cut = term_width(line->term, text) > columns_max;
	char out[16];

	if (*text == '\0' || columns_max == 0)
		return;
	color_on(line, color);
	while (*text != '\0') {
		text += printable(text, out, &columns);
		if (used + columns > (cut ? columns_max - 1 : columns_max))
			break;
		append(line, out, strlen(out), columns);
		used += columns;
	}
	if (cut)
		append(line, ellipsis, strlen(ellipsis), 1);
	color_off(line, color);
}

void
term_line_printf(struct term_line *line, enum term_color color, const char *format, ...)
{
	char text[TERM_LINE_BYTES];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	term_line_text(line, color, TERM_LINE_BYTES, text);
}

void
term_line_piece(struct term_line *line, enum term_color color, const char *text)
{
	unsigned gap = line->columns > 0 ? 2 : 0, width = term_width(line->term, text);

	if (line->columns + gap + width > line->term->columns)
		return;
	term_line_pad(line, line->columns + gap);
	term_line_text(line, color, width, text);
}

void
term_line_pad(struct term_line *line, unsigned column)
{
	if (line->term->clip && column > line->term->columns)
		column = line->term->columns;
	while (line->columns < column && line->length + sizeof(RESET) + 1 < sizeof(line->text))
		append(line, " ", 1, 1);
}

void
term_line_right(struct term_line *line, enum term_color color, unsigned column, const char *text)
{
	unsigned width = term_width(line->term, text);

	if (line->columns + width < column)
		term_line_pad(line, column - width);
	else if (line->columns > 0)
		append(line, " ", 1, 1);
	term_line_text(line, color, width, text);
}

/* The glyph of one cell that is filled from `from` to `to` eighths. */
static const char *
cell_glyph(const struct term *term, unsigned from, unsigned to, bool light)
{
	static const char *const left[9] = {" ",      "\u258f", "\u258e", "\u258d", "\u258c",
	                                    "\u258b", "\u258a", "\u2589", "\u2588"};

	if (from >= to)
		return " ";
	if (!term->utf8) {
		if (to - from < 4)
			return light ? ":" : "|";
		return light ? "=" : "#";
	}
	if (light && to - from >= 4)
		return "\u2592";
	if (from >= 4)
		return to - from >= 4 ? "\u2590" : "\u2595";
	return left[to];
}

void
term_line_bar(struct term_line *line, enum term_color color, unsigned cells, double from, double to,
              bool light)
{
	unsigned scale = cells * 8, first, last;

	if (!(from >= 0))
		from = 0;
	if (!(to <= 1))
		to = 1;
	if (cells == 0 || !(to > from))
		return;
	first = (unsigned)(from * scale + 0.5);
	last = (unsigned)(to * scale + 0.5);
	if (first >= scale)
		first = scale - 1;
	if (last <= first)
		last = first + 1;
	term_line_pad(line, line->columns + first / 8);
	color_on(line, color);
	for (unsigned cell = first / 8; cell * 8 < last; cell++) {
		unsigned a = first > cell * 8 ? first - cell * 8 : 0;
		unsigned b = last < cell * 8 + 8 ? last - cell * 8 : 8;
		const char *glyph = cell_glyph(line->term, a, b, light);

		append(line, glyph, strlen(glyph), 1);
	}
	color_off(line, color);
}

void
term_line_end(struct term_line *line)
{
	while (line->length > 0 && line->text[line->length - 1] == ' ')
		line->length--;
	line->text[line->length] = '\0';
	fputs(line->text, line->term->out);
	fputc('\n', line->term->out);
}

void
term_wrapped(const struct term *term, unsigned indent, const char *text)
{
	struct term_line line;
	char word[TERM_LINE_BYTES];

	term_line_begin(&line, term);
	while (*text != '\0') {
		size_t length = strcspn(text, " ");

		snprintf(word, sizeof(word), "%.*s", (int)length, text);
		if (line.columns > indent &&
		    line.columns + 1 + term_width(term, word) > term->columns) {
			term_line_end(&line);
			term_line_begin(&line, term);
		}
		term_line_pad(&line, line.columns > indent ? line.columns + 1 : indent);
		term_line_text(&line, TERM_PLAIN, term->columns - indent, word);
		text += length;
		text += strspn(text, " ");
	}
	term_line_end(&line);
}

const char *
term_duration(const struct term *term, uint64_t ns, char buf[TERM_DURATION_SIZE])
{
	static const struct {
		uint64_t below; /* in ns, so that no rounding shows 1000 of a unit */
		double unit;
		int decimals;
		const char *name;
	} steps[] = {
	    {9995, 1e3, 2, "us"},       {99950, 1e3, 1, "us"},     {999500, 1e3, 0, "us"},
	    {99995000, 1e6, 2, "ms"},   {999950000, 1e6, 1, "ms"}, {9999500000, 1e9, 3, "s"},
	    {59995000000, 1e9, 2, "s"},
	};
	unsigned long long seconds;
	const char *name;

	if (ns < 1000) {
		snprintf(buf, TERM_DURATION_SIZE, "%u ns", (unsigned)ns);
		return buf;
	}
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (ns >= steps[i].below)
			continue;
		name = term->utf8 && strcmp(steps[i].name, "us") == 0 ? "\u00b5s" : steps[i].name;
		snprintf(buf, TERM_DURATION_SIZE, "%.*f %s", steps[i].decimals,
		         (double)ns / steps[i].unit, name);
		return buf;
	}
	seconds = (unsigned long long)(ns + 500000000) / 1000000000;
	snprintf(buf, TERM_DURATION_SIZE, "%llu min %llu s", seconds / 60, seconds % 60);
	return buf;
}
