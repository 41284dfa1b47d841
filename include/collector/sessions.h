/* Who is logged in: random IDs, of which only digests are kept, bound to the token they were got with.
 * And how often an address may guess at a token. Both bounded; pure: `now_ns` is an argument. One
 * thread. Tokens are told by their SHA-256. */
#ifndef TAILRACE_COLLECTOR_SESSIONS_H
#define TAILRACE_COLLECTOR_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/clock.h"
#include "base/net.h"

#define SESSIONS_MAX 256 /* beyond: the one used least recently ends */
#define SESSION_LIFE_S (12 * 3600)
#define SESSION_IDLE_S (2 * 3600)
#define SESSION_ID_SIZE 65 /* 64 hex digits and NUL: 256 random bits */
#define SESSION_DIGEST_SIZE 32

#define TRIES_MAX 10                /* wrong tokens of one address for one right one at once ... */
#define TRY_AGAIN_NS (6 * NS_PER_S) /* ... and then one in this time */
#define TRIERS_MAX 1024 /* of them; beyond: the one that tried least recently is forgotten */
#define TRIES_KNOWN \
	4 /* wrong tokens of a trier that are remembered: told again they are no guess */

struct sessions;

struct sessions *sessions_new(void);           /* owned */
void sessions_free(struct sessions *sessions); /* null-safe */

/* A new session of whoever knew the token with this digest. */
void sessions_open(struct sessions *sessions, const uint8_t token[SESSION_DIGEST_SIZE],
                   uint64_t now_ns, char ret_id[SESSION_ID_SIZE]);

/* Whether `id` (any text) is one of that token, not over and not idle for too long; it counts as used
 * now. *ret_left_s (may be null) is how long it lives at most. */
bool sessions_use(struct sessions *sessions, const char *id,
                  const uint8_t token[SESSION_DIGEST_SIZE], uint64_t now_ns, uint64_t *ret_left_s);

/* The same, but it does not count as used. */
bool sessions_lives(struct sessions *sessions, const char *id,
                    const uint8_t token[SESSION_DIGEST_SIZE], uint64_t now_ns);

void sessions_end(struct sessions *sessions, const char *id);

/* Whether the address may try to guess `token` now; else *ret_wait_s (at least 1) tells when. IPv4
 * mapped into IPv6 is IPv4; of IPv6 the /64 counts; all of Unix sockets are one. */
bool sessions_may_try(struct sessions *sessions, const struct net_address *from,
                      const uint8_t token[SESSION_DIGEST_SIZE], uint64_t now_ns,
                      uint64_t *ret_wait_s);
/* It told `wrong` instead. */
void sessions_failed(struct sessions *sessions, const struct net_address *from,
                     const uint8_t token[SESSION_DIGEST_SIZE],
                     const uint8_t wrong[SESSION_DIGEST_SIZE], uint64_t now_ns);

#endif
