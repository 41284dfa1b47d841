/* One line of the access log from an exchange record. Pure; any thread. */
#ifndef TAILRACE_MODEL_ACCESS_LINE_H
#define TAILRACE_MODEL_ACCESS_LINE_H

#include <stddef.h>
#include "model/record.h"
#include "model/text.h"

/* What the record's indices mean; null = none. Borrowed. */
struct access_names {
	const char *route, *upstream, *server;
};

/* Appends a JSON object and a newline: IDs, request, status, the twelve phases (their sum is
 * total_ns), bytes, and how it ended. `size` counts the text behind the record; a record whose
 * lengths do not fit appends nothing. */
void access_line_json(struct text *out, const struct exchange_record *record, size_t size,
                      const struct access_names *names);

/* Appends a line of the combined format of Apache and nginx, in the process's time zone. Quotes,
 * backslashes and bytes outside 0x20-0x7e of what a client sent are written as \xNN. */
void access_line_combined(struct text *out, const struct exchange_record *record, size_t size);

#endif
