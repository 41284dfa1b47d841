/* A hash table of addresses behind a mutex; an entry lives as long as its connections. */
#include "proxy/address_count.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"

/* A table that cannot grow keeps working; an entry that cannot be had is answered. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct address_entry {
	uint8_t key[9]; /* family, then the first 8 bytes */
	size_t connections;
	UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct address_entry *entries;

/* False for peers without an address. */
static bool
key_of(const struct net_address *address, uint8_t key[9])
{
	memset(key, 0, 9);
	if (address->sa.sa_family == AF_INET) {
		key[0] = 4;
		memcpy(key + 1, &address->in.sin_addr, 4);
	} else if (address->sa.sa_family == AF_INET6 &&
	           IN6_IS_ADDR_V4MAPPED(&address->in6.sin6_addr)) {
		key[0] = 4;
		memcpy(key + 1, &address->in6.sin6_addr.s6_addr[12], 4);
	} else if (address->sa.sa_family == AF_INET6) {
		key[0] = 6;
		memcpy(key + 1, &address->in6.sin6_addr, 8);
	}
	return key[0] != 0;
}

static struct address_entry *
find_or_add(const uint8_t key[9])
{
	struct address_entry *entry;

	HASH_FIND(hh, entries, key, 9, entry);
	if (entry)
		return entry;
	entry = xmem_try(sizeof *entry);
	if (!entry)
		return NULL;
	memset(entry, 0, sizeof *entry);
	memcpy(entry->key, key, 9);
	HASH_ADD(hh, entries, key, 9, entry);
	if (entry->hh.tbl)
		return entry;
	free(entry); /* the table had no memory for it */
	return NULL;
}

bool
address_enter(const struct net_address *address, size_t max)
{
	struct address_entry *entry;
	uint8_t key[9];
	bool fits;

	if (!key_of(address, key))
		return true;
	pthread_mutex_lock(&mutex);
	entry = find_or_add(key);
	fits = entry && entry->connections < max;
	if (fits)
		entry->connections++;
	pthread_mutex_unlock(&mutex);
	return fits;
}

void
address_leave(const struct net_address *address)
{
	struct address_entry *entry;
	uint8_t key[9];

	if (!key_of(address, key))
		return;
	pthread_mutex_lock(&mutex);
	HASH_FIND(hh, entries, key, 9, entry);
	if (entry && --entry->connections == 0) {
		HASH_DEL(entries, entry);
		free(entry);
	}
	pthread_mutex_unlock(&mutex);
}

size_t
address_count(void)
{
	size_t count;

	pthread_mutex_lock(&mutex);
	count = HASH_COUNT(entries);
	pthread_mutex_unlock(&mutex);
	return count;
}
