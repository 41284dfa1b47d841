/* What the client commands share: options, asking the gateway, tables. One thread. */
#ifndef TAILRACE_CLIENT_TOOLS_H
#define TAILRACE_CLIENT_TOOLS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "control_client.h"
#include "term.h"

#define CLIENT_PATH_BYTES_MAX 2048

#define CLIENT_NO_UPGRADE UINT32_MAX

/* What commands.c read: every option any of them has. Texts are borrowed from argv. */
struct client_options {
	const char *control, *config, *output; /* config, output: null = not given */
	const char *route;                     /* null = all */
	const char *span;                      /* null = the newest */
	const char *baseline, *window;         /* null = not given */
	const char *at;                        /* null = now */
	const char *filter;                    /* null = all */
	const char *format, *sort;
	bool accept, every_tick, help, json, man, once, reverse, schema, slowest;
	unsigned limit, count, wait_s;
	unsigned routes;     /* 0 = not given */
	unsigned upgrade_fd; /* CLIENT_NO_UPGRADE: none */
	char **operands;
	int operand_count;
};

/* Prints the error that the gateway answered. */
void client_complain(const struct control_answer *answer);

/* Whether text is `digits` hexadecimal digits; then they are in `ret` (digits + 1 bytes), in lower case
 * as the gateway writes them. */
bool client_take_hex(const char *text, size_t digits, char *ret);

/* "90", "90s", "15m", "6h", "2d" in seconds; 0 where it is none. */
uint64_t client_seconds(const char *text);

/* GETs `path`. Returns the status, or -1 after complaining where nothing answered. */
int client_ask(const struct client_options *options, const char *path, struct control_answer *ret);

/* GETs `path`, which must answer 200 with an object. Null after complaining. Free with
 * json_decref(); with --json the body was printed as it came and *ret_status is the exit status. */
json_t *client_ask_object(const struct client_options *options, const char *path, int *ret_status);

/* POSTs `body`, which it takes; null: what was to be in it is no UTF-8. Null after complaining, with
 * the exit status in *ret_status, unless it is answered with the wanted status and JSON. Free with
 * json_decref(). */
json_t *client_post(const struct client_options *options, const char *path, json_t *body,
                    int wanted, int *ret_status);

/* Prints JSON in a line and frees it. Returns the exit status. */
int client_print_json(json_t *root);

/* Appends `text` to the path, percent-encoded but for unreserved characters (RFC 3986 2.3). */
void client_append_encoded(char *path, size_t size, const char *text);

/* Members of an object: "-" and 0 where they are not there. */
const char *client_text(const json_t *object, const char *key);
uint64_t client_number(const json_t *object, const char *key);
double client_real(const json_t *object, const char *key);

/* Appends a duration right-aligned, "-" where `value` is none. */
void client_put_duration(struct term_line *line, unsigned column, const json_t *value);

/* A difference of two times with its sign: "+33.9 ms". Fits TERM_DURATION_SIZE + 1 bytes. */
void client_delta_text(const struct term *term, double delta_ns, char *buf, size_t size);

/* What a row of time is, where its cause is known and whose frame it is: up to `column`. */
void client_put_row_label(struct term_line *line, unsigned column, const json_t *row);

/* Prints a dim line of names: the first one `first` columns wide, the others right-aligned. */
void client_put_heading(const struct term *term, unsigned first, const char *const *names,
                        const unsigned *columns, size_t count);

#endif
