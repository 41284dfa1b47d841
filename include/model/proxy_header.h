/* The header a load balancer puts before everything else on a connection: PROXY protocol, versions
 * 1 and 2 (the specification is HAProxy's doc/proxy-protocol.txt). Pure; strict: what is not
 * exactly right is refused. */
#ifndef TAILRACE_MODEL_PROXY_HEADER_H
#define TAILRACE_MODEL_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include "base/net.h"

#define PROXY_HEADER_LINE_MAX 107u /* version 1, line end included */
#define PROXY_HEADER_MAX 4096u     /* version 2, TLVs included; the protocol itself allows 65 551 */

enum proxy_header_result {
	PROXY_HEADER_MORE, /* right so far */
	PROXY_HEADER_DONE,
	PROXY_HEADER_BAD,
	PROXY_HEADER_TOO_LARGE,
};

struct proxy_header {
	size_t length;   /* bytes of the header; what follows is the client's */
	bool has_source; /* else the connection speaks for itself: LOCAL, UNKNOWN, unix sockets */
	struct net_address source;
};

/* Looks at the first `length` bytes of a connection. Call again with more of them after MORE; `ret`
 * is filled at DONE. Never asks for bytes behind the header. */
enum proxy_header_result proxy_header_parse(const void *bytes, size_t length,
                                            struct proxy_header *ret);

#endif
