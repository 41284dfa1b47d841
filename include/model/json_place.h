/* Where in a JSON text: nesting checked before a parser sees it, and the pointer of a byte offset.
 * Pure. */
#ifndef TAILRACE_MODEL_JSON_PLACE_H
#define TAILRACE_MODEL_JSON_PLACE_H

#include <stddef.h>

#define JSON_PLACE_DEPTH_MAX 16

/* Writes the RFC 6901 pointer of the value being read at byte `offset` (as far as the text makes
 * sense up to there) into `buf`. Returns the deepest nesting met before `offset`; beyond
 * `depth_max` (at most JSON_PLACE_DEPTH_MAX) it stops, with the pointer of the value that is too
 * deep. */
size_t json_place(const char *text, size_t length, size_t offset, size_t depth_max, char *buf,
                  size_t size);

#endif
