/* W3C Trace Context: reading and writing traceparent and tracestate, and the thread's pool of random
 * IDs. Pure but for id_pool, which refills itself by getrandom(2). */
#ifndef TAILRACE_MODEL_TRACE_CONTEXT_H
#define TAILRACE_MODEL_TRACE_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "model/record.h"

#define TRACEPARENT_LENGTH 55 /* version 00 */
#define TRACEPARENT_IDS 3     /* where in it `trace-span` begins */
#define TRACEPARENT_IDS_LENGTH (2 * TRACE_ID_SIZE + 1 + 2 * SPAN_ID_SIZE)
#define TRACESTATE_MAX 512 /* kept; longer ones are dropped (W3C 3.3.1.5 asks for 512 at least) */
#define TRACESTATE_MEMBERS_MAX 32
#define TRACE_FLAG_SAMPLED 0x01
#define TRACE_FLAG_RANDOM 0x02 /* W3C level 2: the trace ID is random */

struct trace_parent {
	uint8_t trace_id[TRACE_ID_SIZE];
	uint8_t parent_id[SPAN_ID_SIZE];
	uint8_t flags;
};

/* Reads a traceparent value (W3C 3.2.2): version 00 exactly, higher versions by the 00 prefix, never
 * ff; lower-case hex only; IDs not all zero. Returns 0, or -1 where it is to be ignored. */
int trace_parent_parse(const char *value, size_t length, struct trace_parent *ret);

/* Writes TRACEPARENT_LENGTH bytes of version 00 at `out`, no terminator. */
void trace_parent_format(char *out, const uint8_t trace_id[TRACE_ID_SIZE],
                         const uint8_t span_id[SPAN_ID_SIZE], uint8_t flags);

/* Is this a tracestate worth passing on: list-members `key=value` by the grammar of W3C 3.3.1,
 * at most 32, keys not repeated, at most TRACESTATE_MAX bytes? */
bool trace_state_valid(const char *value, size_t length);

/* Lower-case hex of `size` bytes: writes 2 * size characters, no terminator. */
void hex_format(char *out, const uint8_t *bytes, size_t size);

/* Reads 2 * size lower-case hex digits. Returns 0, or -1. */
int hex_parse(const char *text, uint8_t *ret, size_t size);

/* Random bytes of one thread, bought 4 KiB at a time. Zero-initialised = empty. */
#define ID_POOL_SIZE 4096
struct id_pool {
	uint8_t bytes[ID_POOL_SIZE];
	size_t left;
};

/* Takes `size` (at most 32) random bytes that are not all zero. Fatal where the kernel gives none. */
void id_pool_take(struct id_pool *pool, uint8_t *ret, size_t size);

#endif
