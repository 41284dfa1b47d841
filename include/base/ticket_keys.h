/* Keys of TLS session tickets: made by the supervisor, on the board, so that every thread of every
 * worker generation opens what another has sealed. A key seals for TICKET_ROTATION_NS and opens
 * twice that long more; then it is gone for good. Readers never wait: what changes under them is
 * read again. */
#ifndef TAILRACE_BASE_TICKET_KEYS_H
#define TAILRACE_BASE_TICKET_KEYS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "base/clock.h"

#define TICKET_KEYS 3 /* the newest seals, all open */
#define TICKET_ROTATION_NS (3600 * NS_PER_S)
#define TICKET_LIFETIME_S 7200 /* of a session: no longer than its key is kept */

struct ticket_key {
	uint8_t name[16]; /* random, in clear in each ticket */
	uint8_t cipher[32];
	uint8_t mac[32];
};

#define TICKET_KEY_WORDS (sizeof(struct ticket_key) / sizeof(uint64_t))

struct ticket_keys {
	_Atomic uint64_t version; /* odd: being changed */
	_Atomic uint64_t rotated_ns;
	_Atomic uint64_t words[TICKET_KEYS][TICKET_KEY_WORDS]; /* newest first */
};

/* New random keys; the only writer is who made the board. */
void ticket_keys_init(struct ticket_keys *keys, uint64_t now_ns);

/* Once TICKET_ROTATION_NS have passed: a new key before the others, the oldest goes. Cheap. */
void ticket_keys_rotate(struct ticket_keys *keys, uint64_t now_ns);

/* Copies all keys. -1 where they cannot be had (a writer died within a change): then there are no
 * tickets. Any process, any thread. */
int ticket_keys_read(const struct ticket_keys *keys, struct ticket_key ret[TICKET_KEYS]);

#endif
