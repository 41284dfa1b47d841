/* Integers of one to ten bytes, seven bits a byte, lowest first: how packed counts are written. Pure. */
#ifndef TAILRACE_MODEL_VARINT_H
#define TAILRACE_MODEL_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define VARINT_BYTES_MAX 10

/* Writes at most VARINT_BYTES_MAX bytes. Returns how many. */
size_t varint_put(uint8_t *at, uint64_t value);

/* Returns the bytes taken, 0 where there is no whole integer in `left` bytes. */
size_t varint_get(const uint8_t *at, size_t left, uint64_t *ret);

#endif
