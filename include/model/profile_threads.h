/* What the thread jobs of profiles took (docs/protocol.md, `threads` and `returns`): one total per
 * function. Members of the batch beside its profiles, so that their rows stay as they are. Pure. */
#ifndef TAILRACE_MODEL_PROFILE_THREADS_H
#define TAILRACE_MODEL_PROFILE_THREADS_H

#include "model/profile_batch.h"

/* Reads the members, which may be missing, into the profiles of the batch; rows of profiles that are
 * not in it are read and left. False with *error filled where it is malformed. */
bool profile_threads_read(struct read_error *error, const struct place *top,
                          struct profile_batch *batch);
/* Adds those of the next part. */
void profile_threads_append(struct profile *into, const struct profile *part);
void profile_threads_free(struct profile *profile);

#endif
