/* Request targets as routing sees them; what the app gets is never rewritten (rule 14). Pure. */
#ifndef TAILRACE_MODEL_TARGET_H
#define TAILRACE_MODEL_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include "model/headers.h"

/* Whether target_normal() needs no buffer. */
bool target_is_normal(struct text target);

/* The path of an origin-form target with unreserved characters decoded and dot segments taken out
 * (RFC 3986 6.2.2), its query cut off: two spellings of one path look the same. Borrows from `target` where there
 * is nothing to do, else from `buf`, which holds at least target.length bytes; what does not fit is
 * cut. "*" stays; a target that begins with its query has the path "/". */
struct text target_normal(struct text target, char *buf, size_t size);

#endif
