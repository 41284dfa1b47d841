/* Reading JSON that somebody else wrote, value by value: each reader checks type and bounds, and
 * the first thing wrong leaves its RFC 6901 pointer and a sentence. Pure. */
#ifndef TAILRACE_MODEL_JSON_READ_H
#define TAILRACE_MODEL_JSON_READ_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_READ_POINTER_SIZE 256
#define JSON_READ_MESSAGE_SIZE 160

struct read_error {
	char message[JSON_READ_MESSAGE_SIZE];
	char pointer[JSON_READ_POINTER_SIZE];
};

/* The value being read: an element or a member of what is above. Lives on the reader's stack. */
struct place {
	const struct place *up; /* null = the whole document */
	const char *key;        /* null = element */
	size_t index;
	json_t *value; /* borrowed; null where it is missing */
};

struct place place_member(const struct place *up, const char *key);
struct place place_element(const struct place *up, size_t index);

/* Readers return false, with *error filled, at the first thing wrong. */
bool read_fail(struct read_error *error, const struct place *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool read_array(struct read_error *error, const struct place *at, size_t max, size_t *ret_count);
bool read_row(struct read_error *error, const struct place *at,
              size_t fields); /* an array of exactly so many */
bool read_string(struct read_error *error, const struct place *at, size_t max);
bool read_number(struct read_error *error, const struct place *at, uint64_t max,
                 uint64_t *ret); /* 0 to max */

/* Elements of a row. Optional ones may be null. Strings are copied (owned by the caller). */
bool read_u64(struct read_error *error, const struct place *row, size_t index, uint64_t max,
              uint64_t *ret);
bool read_optional_u64(struct read_error *error, const struct place *row, size_t index,
                       bool *ret_has, uint64_t *ret);
bool read_flag(struct read_error *error, const struct place *row, size_t index, bool *ret);
bool read_optional_string(struct read_error *error, const struct place *row, size_t index,
                          size_t max, char **ret);

/* The index of a word in a list of `count` names (null names are skipped). */
bool read_word(struct read_error *error, const struct place *at, const char *(*name)(unsigned),
               unsigned count, uint8_t *ret);

#endif
