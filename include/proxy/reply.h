/* The gateway's own answers: refusals and errors, small, with the named reason and the trace ID. */
#ifndef TAILRACE_PROXY_REPLY_H
#define TAILRACE_PROXY_REPLY_H

#include "proxy/block.h"
#include "proxy/exchange.h"

/* Head and body for exchange->cause: JSON where the client takes it, else plain text. Sets
 * exchange->status. Null when memory is short. */
struct block *reply_write(struct exchange *exchange);

#endif
