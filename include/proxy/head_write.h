/* Rebuilds message heads from parsed fields: nothing raw travels on (RFC 9110 7.6, docs/protocol.md). */
#ifndef TAILRACE_PROXY_HEAD_WRITE_H
#define TAILRACE_PROXY_HEAD_WRITE_H

#include "proxy/block.h"
#include "proxy/exchange.h"

/* The request head of the current attempt, in a block with `extra` bytes of room left behind it. Null
 * when memory is short. */
struct block *request_head_write(struct exchange *exchange, size_t extra);

/* The final response head towards the client. */
struct block *response_head_write(struct exchange *exchange, size_t extra);

/* 101 (Switching Protocols) to WebSocket. */
struct block *switching_head_write(struct exchange *exchange);

/* Another interim (1xx) response head. */
struct block *interim_head_write(struct exchange *exchange);

#endif
