/* The configuration's text: reads the file, blanks comments, parses JSON and says where it is
 * wrong. */
#ifndef TAILRACE_BASE_CONFIG_TEXT_H
#define TAILRACE_BASE_CONFIG_TEXT_H

#include <stddef.h>
#include <jansson.h>
#include "base/config.h"

/* Overwrites // comments with spaces, up to the end of their line and never inside a string, so
 * that every position after them holds. */
void config_text_blank(char *text, size_t length);

/* The whole file, at most CONFIG_BYTES_MAX bytes, owned by the caller; null with an error added. */
char *config_text_read(const char *path, size_t *ret_length, struct config_errors *errs);

/* The text as JSON (comments allowed, a new reference); null with "file:line:column: …" added
 * for the first syntax error or repeated key. The text is changed. */
json_t *config_text_parse(const char *file, char *text, size_t length, struct config_errors *errs);

#endif
