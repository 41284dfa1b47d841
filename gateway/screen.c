/* Raw mode, the alternate screen, keys. */
#include "screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "base/xmem.h"

#define ROWS_MIN 4
#define COLUMNS_MIN 20
#define ESCAPE_WAIT_MS 30 /* a key's bytes come together; Escape comes alone */

/* Alternate screen, no cursor, no wrapping at the right edge; and all back. */
static const char enter[] = "\033[?1049h\033[?25l\033[?7l\033[2J";
static const char leave[] = "\033[?7h\033[?25h\033[0m\033[?1049l";

static struct termios saved;
static volatile sig_atomic_t is_taken;

bool
screen_possible(void)
{
	const char *type = getenv("TERM");

	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && type != NULL && *type != '\0' &&
	       strcmp(type, "dumb") != 0;
}

static void
put(const char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t done = write(STDOUT_FILENO, bytes, n);

		if (done > 0) {
			bytes += done;
			n -= (size_t)done;
		} else if (errno != EINTR && errno != EAGAIN) {
			return; /* the terminal is gone: the next key tells */
		}
	}
}

static int
take(void)
{
	struct termios raw = saved;

	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN); /* signals stay: Ctrl-C, Ctrl-Z */
	raw.c_iflag &= ~(tcflag_t)(IXON | ICRNL);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	signal(SIGTTOU, SIG_DFL); /* behind a shell's `bg` or `&`: stopped until it is in front */
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) != 0)
		return -1;
	is_taken = 1;
	put(enter, sizeof(enter) - 1);
	return 0;
}

/* Async-signal-safe: write(), signal() and tcsetattr() are. */
void
screen_end(void)
{
	if (!is_taken)
		return;
	is_taken = 0;
	put(leave, sizeof(leave) - 1);
	signal(SIGTTOU, SIG_IGN); /* given back from behind the shell too */
	tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
}

/* A signal that ends the process, or a crash: the terminal first. */
static void
on_end(int number)
{
	screen_end();
	signal(number, SIG_DFL);
	raise(number);
}

static void
on_stop(int number)
{
	int error = errno;

	(void)number;
	screen_end();
	kill(getpid(), SIGSTOP);
	take(); /* and went on */
	errno = error;
}

static void
on_resize(int number)
{
	(void)number; /* poll() ends with EINTR */
}

int
screen_begin(void)
{
	static const int ends[] = {SIGINT,  SIGTERM, SIGHUP, SIGQUIT, SIGABRT,
	                           SIGSEGV, SIGBUS,  SIGILL, SIGFPE};
	struct sigaction action = {.sa_handler = on_end};
	pid_t front = tcgetpgrp(STDIN_FILENO);

	if (front != -1 && front != getpgrp())
		kill(0, SIGTTOU); /* its modes are the shell's own until we are in front */
	if (tcgetattr(STDIN_FILENO, &saved) != 0)
		return -1;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		sigaction(ends[i], &action, NULL);
	action.sa_handler = on_stop;
	sigaction(SIGTSTP, &action, NULL);
	action.sa_handler = on_resize;
	sigaction(SIGWINCH, &action, NULL);
	atexit(screen_end);
	return take();
}

/* One byte, or a screen_key where none comes. */
static int
read_byte(int timeout_ms)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	unsigned char byte;
	ssize_t n;

	if (poll(&input, 1, timeout_ms) <= 0)
		return SCREEN_NOTHING;
	n = read(STDIN_FILENO, &byte, 1);
	if (n == 1)
		return byte;
	return n == 0 || errno != EINTR ? SCREEN_GONE : SCREEN_NOTHING;
}

/* What follows ESC [ or ESC O: numbers, then what it is. */
static int
read_sequence(void)
{
	int number = 0, byte;

	while ((byte = read_byte(ESCAPE_WAIT_MS)) >= 0) {
		if (byte >= '0' && byte <= '9')
			number = number < 1000 ? number * 10 + byte - '0' : number;
		else if (byte == ';')
			number = 1000; /* with a modifier: some other key */
		else
			break;
	}
	switch (byte) {
	case 'A':
		return SCREEN_UP;
	case 'B':
		return SCREEN_DOWN;
	case 'C':
		return SCREEN_RIGHT;
	case 'D':
		return SCREEN_LEFT;
	case 'H':
		return SCREEN_HOME;
	case 'F':
		return SCREEN_END;
	case 'M':
		return SCREEN_ENTER; /* of the keypad */
	case '~':
		return number == 5                  ? SCREEN_PAGE_UP
		       : number == 6                ? SCREEN_PAGE_DOWN
		       : number == 1 || number == 7 ? SCREEN_HOME
		       : number == 4 || number == 8 ? SCREEN_END
		                                    : SCREEN_OTHER;
	default:
		return SCREEN_OTHER;
	}
}

int
screen_key(int wake_fd, int timeout_ms)
{
	struct pollfd both[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
	                         {.fd = wake_fd, .events = POLLIN}};
	int byte;

	if (poll(both, 2, timeout_ms) <= 0)
		return SCREEN_NOTHING;
	if (both[0].revents == 0)
		return both[1].revents != 0 ? SCREEN_WAKE : SCREEN_NOTHING;
	byte = read_byte(0);
	if (byte == '\n' || byte == '\r')
		return SCREEN_ENTER;
	if (byte == 8)
		return SCREEN_BACKSPACE;
	if (byte != SCREEN_ESCAPE)
		return byte;
	byte = read_byte(ESCAPE_WAIT_MS);
	if (byte == '[' || byte == 'O')
		return read_sequence();
	return byte < 0 ? SCREEN_ESCAPE : SCREEN_OTHER;
}

unsigned
screen_size(struct term *term, FILE *out)
{
	struct winsize size = {0};

	term_init(term, stdout);
	term->out = out;
	term->clip = true;
	term->columns = 80;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		term->columns = size.ws_col < COLUMNS_MIN        ? COLUMNS_MIN
		                : size.ws_col > TERM_COLUMNS_MAX ? TERM_COLUMNS_MAX
		                                                 : size.ws_col;
	return size.ws_row == 0 ? 24 : size.ws_row < ROWS_MIN ? ROWS_MIN : size.ws_row;
}

void
screen_show(const char *text, unsigned rows)
{
	static const char next[] = "\033[K\r\n", last[] = "\033[J";
	size_t size = strlen(text) + rows * sizeof(next) + 64, n = 0;
	char *out = xcalloc(1, size);

	n += (size_t)snprintf(out, size, "\033[H");
	for (unsigned row = 0; row < rows && *text != '\0'; row++) {
		size_t length = strcspn(text, "\n");

		memcpy(out + n, text, length);
		n += length;
		text += length + (text[length] == '\n');
		n += (size_t)snprintf(out + n, size - n, "%s",
		                      row + 1 < rows && *text != '\0' ? next : "\033[K");
	}
	n += (size_t)snprintf(out + n, size - n, "%s", last);
	put(out, n); /* at once: no frame is seen half */
	free(out);
}
