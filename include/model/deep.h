/* Deep profiles asked for by route, and the code that proves to the hook who asks. Pure. */
#ifndef TAILRACE_MODEL_DEEP_H
#define TAILRACE_MODEL_DEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/record.h"

#define DEEP_MAC_DIGITS 16
#define DEEP_KEY_SIZE 32

/* Whether `route` can be one: "METHOD /template". */
bool deep_route_valid(const char *route);

/* Whether a request may be one of this route: same method, and its path (query left out) fits the
 * template, where {name} stands for one segment or a part of it and {name:path} for all the rest. */
bool deep_route_matches(const char *route, const char *method, size_t method_length,
                        const char *target, size_t target_length);

/* HMAC-SHA256 (RFC 2104) of "<trace>-<span>" in lower-case hex under the key, its first digits; not
 * terminated. */
void deep_mac(const uint8_t key[DEEP_KEY_SIZE], const uint8_t trace_id[TRACE_ID_SIZE],
              const uint8_t span_id[SPAN_ID_SIZE], char ret[DEEP_MAC_DIGITS]);

#endif
