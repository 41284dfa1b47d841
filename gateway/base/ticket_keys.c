/* Ticket keys under a version number that readers compare before and after. */
#include "base/ticket_keys.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <openssl/crypto.h>
#include "base/log.h"

#define READS_MAX 100

_Static_assert(sizeof(struct ticket_key) == TICKET_KEY_WORDS * sizeof(uint64_t), "whole words");

static void
fill(uint64_t words[TICKET_KEY_WORDS])
{
	size_t size = TICKET_KEY_WORDS * sizeof(uint64_t);

	if (getrandom(words, size, 0) != (ssize_t)size)
		fatal("random bytes for ticket keys: %s", strerror(errno));
}

/* Each word is released behind the odd version, so that who acquires a new word sees that. */
static void
put(struct ticket_keys *keys, size_t at, const uint64_t words[TICKET_KEY_WORDS])
{
	for (size_t i = 0; i < TICKET_KEY_WORDS; i++)
		atomic_store_explicit(&keys->words[at][i], words[i], memory_order_release);
}

static void
begin_change(struct ticket_keys *keys)
{
	atomic_fetch_add_explicit(&keys->version, 1, memory_order_relaxed);
}

static void
end_change(struct ticket_keys *keys, uint64_t now_ns)
{
	atomic_store_explicit(&keys->rotated_ns, now_ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&keys->version, 1, memory_order_release);
}

void
ticket_keys_init(struct ticket_keys *keys, uint64_t now_ns)
{
	uint64_t words[TICKET_KEY_WORDS];

	begin_change(keys);
	for (size_t i = 0; i < TICKET_KEYS; i++) {
		fill(words);
		put(keys, i, words);
	}
	end_change(keys, now_ns);
	OPENSSL_cleanse(words, sizeof(words));
}

void
ticket_keys_rotate(struct ticket_keys *keys, uint64_t now_ns)
{
	uint64_t rotated_ns = atomic_load_explicit(&keys->rotated_ns, memory_order_relaxed);
	uint64_t words[TICKET_KEY_WORDS];

	if (now_ns < rotated_ns + TICKET_ROTATION_NS)
		return;
	begin_change(keys);
	for (size_t i = TICKET_KEYS - 1; i > 0; i--) {
		for (size_t j = 0; j < TICKET_KEY_WORDS; j++)
			words[j] =
			    atomic_load_explicit(&keys->words[i - 1][j], memory_order_relaxed);
		put(keys, i, words);
	}
	fill(words);
	put(keys, 0, words);
	end_change(keys, now_ns);
	OPENSSL_cleanse(words, sizeof(words));
}

int
ticket_keys_read(const struct ticket_keys *keys, struct ticket_key ret[TICKET_KEYS])
{
	uint64_t words[TICKET_KEYS][TICKET_KEY_WORDS];

	for (int tries = 0; tries < READS_MAX; tries++) {
		uint64_t before = atomic_load_explicit(&keys->version, memory_order_acquire);

		for (size_t i = 0; i < TICKET_KEYS; i++)
			for (size_t j = 0; j < TICKET_KEY_WORDS; j++)
				words[i][j] =
				    atomic_load_explicit(&keys->words[i][j], memory_order_acquire);
		if (before % 2 == 0 &&
		    atomic_load_explicit(&keys->version, memory_order_relaxed) == before) {
			memcpy(ret, words, sizeof(words));
			OPENSSL_cleanse(words, sizeof(words));
			return before == 0 ? -1 : 0; /* 0: nobody made any */
		}
	}
	return -1;
}
