/* Who held the loop while a request was due (docs/protocol.md, `stalls`), and before the app was
 * called (`holds`, a member of the batch beside its profiles). Pure. */
#ifndef TAILRACE_MODEL_PROFILE_STALLS_H
#define TAILRACE_MODEL_PROFILE_STALLS_H

#include "model/profile_batch.h"

/* Reads field 15 of a profile's row, at most `rows_left`. False with *error filled where it is
 * malformed. */
bool profile_stalls_read(struct read_error *error, const struct place *row, size_t rows_left,
                         struct profile *profile);

/* Reads the member `holds`, which may be missing, behind the stalls of the batch's profiles; rows
 * of profiles that are not in it are read and left. */
bool profile_holds_read(struct read_error *error, const struct place *top,
                        struct profile_batch *batch);

/* Adds those of the next part of a long response. */
void profile_stalls_append(struct profile *into, const struct profile *part);

/* Once it is known when the request was sent: cuts what held the loop before the ASGI call to
 * (from_ns, to_ns], and drops what lies outside. `exact`: the two clocks are one. */
void profile_stalls_cut(struct profile *profile, uint64_t from_ns, uint64_t to_ns, bool exact);

void profile_stalls_free(struct profile *profile);

#endif
