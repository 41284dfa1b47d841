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

struct client_options {
	const char *control;
	const char *route;             /* null = all */
	const char *span;              /* null = the newest */
	const char *baseline, *window; /* of flame; null = not given */
	bool slowest, json;
	unsigned limit;
	char **operands; /* borrowed from argv */
	int operand_count;
};

/* Prints the error that the gateway answered. */
void client_complain(const struct control_answer *answer);

/* GETs `path`. Returns the status, or -1 after complaining where nothing answered. */
int client_ask(const struct client_options *options, const char *path, struct control_answer *ret);

/* GETs `path`, which must answer 200 with an object. Null after complaining. Free with
 * json_decref(); with --json the body was printed as it came and *ret_status is the exit status. */
json_t *client_ask_object(const struct client_options *options, const char *path, int *ret_status);

/* Appends `text` to the path, percent-encoded but for unreserved characters (RFC 3986 2.3). */
void client_append_encoded(char *path, size_t size, const char *text);

/* Members of an object: "-" and 0 where they are not there. */
const char *client_text(const json_t *object, const char *key);
uint64_t client_number(const json_t *object, const char *key);

/* Appends a duration right-aligned, "-" where `value` is none. */
void client_put_duration(struct term_line *line, unsigned column, const json_t *value);

/* Prints a dim line of names: the first one `first` columns wide, the others right-aligned. */
void client_put_heading(const struct term *term, unsigned first, const char *const *names,
                        const unsigned *columns, size_t count);

#endif
