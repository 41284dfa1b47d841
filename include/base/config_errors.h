/* Collects what is wrong with a configuration, each error with the JSON pointer of its place. */
#ifndef TAILRACE_BASE_CONFIG_ERRORS_H
#define TAILRACE_BASE_CONFIG_ERRORS_H

#include <stddef.h>
#include <jansson.h>
#include "base/config.h"

#define CONFIG_ERRORS_MAX 100 /* lines kept; the last then says that there are more */
#define CONFIG_POINTER_SIZE 512

/* Where a reader is. Every step into a value is a push, every step out a pop. */
struct config_place {
	const char *file;
	struct config_errors *errs;
	size_t length;
	char pointer[CONFIG_POINTER_SIZE]; /* RFC 6901; cut where it grows too long */
};

/* Adds one line. */
void config_errors_add(struct config_errors *errs, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Appends one segment, escaped; returns what config_place_pop() needs. */
size_t config_place_push(struct config_place *place, const char *segment);
size_t config_place_push_index(struct config_place *place, size_t index);
void config_place_pop(struct config_place *place, size_t length);

/* "file: /pointer: <text>", and the environment's name where it set the value. */
void config_place_error(const struct config_place *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same at a place given as printf does. */
void config_place_error_at(struct config_place *place, const char *text, const char *pointer, ...)
    __attribute__((format(printf, 3, 4)));

/* "file: /pointer: found <value>, allowed: <text>". `found` null = nothing found. */
void config_place_fault(const struct config_place *place, const json_t *found, const char *format,
                        ...) __attribute__((format(printf, 3, 4)));

#endif
