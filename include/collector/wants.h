/* Which profiles' detail is asked back from the hooks: those of exchanges that are kept. Each is told
 * once, to the instance that sent the profile, in the answer to its next batch. Loop's thread. */
#ifndef TAILRACE_COLLECTOR_WANTS_H
#define TAILRACE_COLLECTOR_WANTS_H

#include <stdbool.h>
#include <stddef.h>
#include "model/profile.h"
#include "model/text.h"

#define WANTS_MAX 4096      /* that wait; the oldest is forgotten */
#define WANTS_ANSWER_MAX 64 /* told in one answer */
#define WANTS_AGE_S 10      /* hooks keep detail for seconds */

struct wants;
struct wants *wants_new(void);
void wants_free(struct wants *wants); /* null-safe */

void wants_add(struct wants *wants, const struct profile *profile, uint64_t now_ns);

/* Appends the JSON array of keys for an instance; they count as told. */
void wants_write(struct wants *wants, const uint8_t instance[PROFILE_INSTANCE_SIZE],
                 uint64_t now_ns, struct text *out);

#endif
