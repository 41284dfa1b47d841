/* Two tables, searched from end to end: a look-up of 256 digests takes microseconds. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include "base/log.h"
#include "base/xmem.h"
#include "collector/sessions.h"

struct session {
	bool open;
	uint8_t digest[SESSION_DIGEST_SIZE]; /* of its ID */
	uint8_t token[SESSION_DIGEST_SIZE];
	uint64_t since_ns, used_ns;
};

#define TRIER_KEY_SIZE 17 /* family, address, the beginning of the token's digest */

/* A bucket: `tries` were used at `at_ns`, and one comes back each TRY_AGAIN_NS. */
struct trier {
	uint8_t key[TRIER_KEY_SIZE]; /* address, token */
	uint64_t known[TRIES_KNOWN]; /* wrong tokens told last; 0 = none */
	size_t next_known;
	uint32_t tries;
	uint64_t at_ns;
};

struct sessions {
	struct session sessions[SESSIONS_MAX];
	struct trier triers[TRIERS_MAX];
	size_t trier_count;
};

struct sessions *
sessions_new(void)
{
	return xcalloc(1, sizeof(struct sessions));
}

void
sessions_free(struct sessions *sessions)
{
	if (sessions != NULL)
		OPENSSL_cleanse(sessions, sizeof(*sessions));
	free(sessions);
}

static void
digest_of(const char *id, uint8_t ret[SESSION_DIGEST_SIZE])
{
	SHA256((const unsigned char *)id, strlen(id), ret);
}

static bool
is_over(const struct session *session, uint64_t now_ns)
{
	return !session->open || now_ns - session->since_ns >= SESSION_LIFE_S * NS_PER_S ||
	       now_ns - session->used_ns >= SESSION_IDLE_S * NS_PER_S;
}

static void
random_id(char ret[SESSION_ID_SIZE])
{
	uint8_t bytes[(SESSION_ID_SIZE - 1) / 2];
	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		fatal("getrandom: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(bytes); i++) {
		ret[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
		ret[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
	}
	ret[SESSION_ID_SIZE - 1] = '\0';
	OPENSSL_cleanse(bytes, sizeof(bytes));
}

void
sessions_open(struct sessions *sessions, const uint8_t token[SESSION_DIGEST_SIZE], uint64_t now_ns,
              char ret_id[SESSION_ID_SIZE])
{
	struct session *place = &sessions->sessions[0];
	for (size_t i = 0; i < SESSIONS_MAX; i++) {
		struct session *session = &sessions->sessions[i];
		if (is_over(session, now_ns)) {
			place = session;
			break;
		}
		if (session->used_ns < place->used_ns)
			place = session;
	}
	*place = (struct session){.open = true, .since_ns = now_ns, .used_ns = now_ns};
	random_id(ret_id);
	digest_of(ret_id, place->digest);
	memcpy(place->token, token, SESSION_DIGEST_SIZE);
}

/* Digests are compared: what the time taken tells of one says nothing of the ID. */
static struct session *
find(struct sessions *sessions, const char *id)
{
	uint8_t digest[SESSION_DIGEST_SIZE];
	digest_of(id, digest);
	for (size_t i = 0; i < SESSIONS_MAX; i++) {
		struct session *session = &sessions->sessions[i];
		if (session->open && CRYPTO_memcmp(session->digest, digest, sizeof(digest)) == 0)
			return session;
	}
	return NULL;
}

static struct session *
find_living(struct sessions *sessions, const char *id, const uint8_t token[SESSION_DIGEST_SIZE],
            uint64_t now_ns)
{
	struct session *session = find(sessions, id);
	if (session == NULL || is_over(session, now_ns) ||
	    CRYPTO_memcmp(session->token, token, SESSION_DIGEST_SIZE) != 0)
		return NULL;
	return session;
}

bool
sessions_lives(struct sessions *sessions, const char *id, const uint8_t token[SESSION_DIGEST_SIZE],
               uint64_t now_ns)
{
	return find_living(sessions, id, token, now_ns) != NULL;
}

bool
sessions_use(struct sessions *sessions, const char *id, const uint8_t token[SESSION_DIGEST_SIZE],
             uint64_t now_ns, uint64_t *ret_left_s)
{
	struct session *session = find_living(sessions, id, token, now_ns);
	if (session == NULL)
		return false;
	session->used_ns = now_ns;
	if (ret_left_s != NULL)
		*ret_left_s = SESSION_LIFE_S - (now_ns - session->since_ns) / NS_PER_S;
	return true;
}

void
sessions_end(struct sessions *sessions, const char *id)
{
	struct session *session = find(sessions, id);
	if (session != NULL)
		*session = (struct session){0};
}

/* --- tries --------------------------------------------------------------------------------- */

static void
key_of(const struct net_address *from, const uint8_t token[SESSION_DIGEST_SIZE],
       uint8_t key[TRIER_KEY_SIZE])
{
	memset(key, 0, TRIER_KEY_SIZE);
	memcpy(key + 9, token, TRIER_KEY_SIZE - 9);
	if (from->sa.sa_family == AF_INET) {
		key[0] = 4;
		memcpy(key + 1, &from->in.sin_addr, 4);
	} else if (from->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&from->in6.sin6_addr)) {
		key[0] = 4;
		memcpy(key + 1, &from->in6.sin6_addr.s6_addr[12], 4);
	} else if (from->sa.sa_family == AF_INET6) {
		key[0] = 6;
		memcpy(key + 1, &from->in6.sin6_addr, 8);
	}
}

static struct trier *
trier_of(struct sessions *sessions, const uint8_t key[TRIER_KEY_SIZE])
{
	for (size_t i = 0; i < sessions->trier_count; i++)
		if (memcmp(sessions->triers[i].key, key, TRIER_KEY_SIZE) == 0)
			return &sessions->triers[i];
	return NULL;
}

/* What came back since then. */
static void
refill(struct trier *trier, uint64_t now_ns)
{
	uint64_t back = (now_ns - trier->at_ns) / TRY_AGAIN_NS;
	trier->at_ns += back * TRY_AGAIN_NS;
	trier->tries = back < trier->tries ? trier->tries - (uint32_t)back : 0;
}

bool
sessions_may_try(struct sessions *sessions, const struct net_address *from,
                 const uint8_t token[SESSION_DIGEST_SIZE], uint64_t now_ns, uint64_t *ret_wait_s)
{
	uint8_t key[TRIER_KEY_SIZE];
	key_of(from, token, key);
	struct trier *trier = trier_of(sessions, key);
	if (trier == NULL)
		return true;
	refill(trier, now_ns);
	if (trier->tries < TRIES_MAX)
		return true;
	*ret_wait_s = (trier->at_ns + TRY_AGAIN_NS - now_ns + NS_PER_S - 1) / NS_PER_S;
	return false;
}

/* A place for one who tries for the first time: a free one, or that of who tried least recently. */
static struct trier *
new_trier(struct sessions *sessions, const uint8_t key[TRIER_KEY_SIZE], uint64_t now_ns)
{
	struct trier *trier = &sessions->triers[0];
	if (sessions->trier_count < TRIERS_MAX)
		trier = &sessions->triers[sessions->trier_count++];
	else
		for (size_t i = 1; i < TRIERS_MAX; i++)
			if (sessions->triers[i].at_ns < trier->at_ns)
				trier = &sessions->triers[i];
	*trier = (struct trier){.at_ns = now_ns};
	memcpy(trier->key, key, TRIER_KEY_SIZE);
	return trier;
}

/* Whether it told this one before; from now on it did. */
static bool
told_before(struct trier *trier, const uint8_t wrong[SESSION_DIGEST_SIZE])
{
	uint64_t digest;
	memcpy(&digest, wrong, sizeof(digest));
	for (size_t i = 0; i < TRIES_KNOWN; i++)
		if (trier->known[i] == digest)
			return true;
	trier->known[trier->next_known++ % TRIES_KNOWN] = digest;
	return false;
}

void
sessions_failed(struct sessions *sessions, const struct net_address *from,
                const uint8_t token[SESSION_DIGEST_SIZE], const uint8_t wrong[SESSION_DIGEST_SIZE],
                uint64_t now_ns)
{
	uint8_t key[TRIER_KEY_SIZE];
	key_of(from, token, key);
	struct trier *trier = trier_of(sessions, key);
	if (trier == NULL)
		trier = new_trier(sessions, key, now_ns);
	if (told_before(trier, wrong))
		return;
	if (trier->tries == 0)
		trier->at_ns = now_ns;
	refill(trier, now_ns);
	trier->tries++;
}
