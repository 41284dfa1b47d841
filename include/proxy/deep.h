/* Which requests are asked a deep profile of: a client with the token, a share of all, or the next
 * ones of a route an operator named; all under one limit per minute. */
#ifndef TAILRACE_PROXY_DEEP_H
#define TAILRACE_PROXY_DEEP_H

#include <stdbool.h>
#include "base/board.h"
#include "base/config.h"

struct deep_policy; /* read by all loops of the process */
struct exchange;

/* Before rights are dropped: reads profile.deep.token_file. Null where it cannot be read (logged).
 * Board and config are borrowed. */
struct deep_policy *deep_policy_new(const struct config *config, struct board *board);
void deep_policy_free(struct deep_policy *policy); /* null-safe */

/* Whether this exchange is one: decided at its first attempt, counted against the limit, noted in its
 * flags. Two loads where nobody asks. */
bool deep_asked(const struct deep_policy *policy, struct exchange *exchange);

/* ";deep;<mac>" for the attempt's span. Returns the end. */
char *deep_put(const struct deep_policy *policy, const struct exchange *exchange, char *p);

#endif
