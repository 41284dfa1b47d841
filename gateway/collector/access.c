/* Tokens compared in constant time, peers by their credentials. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include "base/log.h"
#include "base/xmem.h"
#include "collector/access.h"
#include "collector/control.h"

static int
token_read(const char *path, char **ret, char *why, size_t size)
{
	char buf[CONTROL_TOKEN_MAX + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd >= 0 ? read(fd, buf, sizeof(buf)) : -1;
	if (length < 0)
		snprintf(why, size, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	if (length < 0)
		return -1;
	while (length > 0 && strchr(" \t\r\n", buf[length - 1]) != NULL)
		length--;
	if (length == 0 || (size_t)length > CONTROL_TOKEN_MAX ||
	    memchr(buf, '\0', (size_t)length) != NULL) {
		snprintf(why, size, "%s: holds no token of 1 to %d bytes", path, CONTROL_TOKEN_MAX);
		return -1;
	}
	if (length < ACCESS_TOKEN_SHORT)
		log_warn("%s: a token of %zd bytes can be guessed: take %d or more, at random",
		         path, length, ACCESS_TOKEN_SHORT);
	*ret = xstrndup(buf, (size_t)length);
	OPENSSL_cleanse(buf, sizeof(buf));
	return 0;
}

static void
users_init(struct access_rule *rule, const struct config *config,
           const struct config_control_listener *listener)
{
	for (size_t i = 0; i < listener->allow_user_count && i < ACCESS_USERS_MAX; i++)
		rule->users[rule->user_count++] = listener->allow_users[i];
	if (rule->user_count > 0)
		return;
	rule->users[rule->user_count++] = 0;
	rule->users[rule->user_count++] = geteuid();
	if (config->process.uid != (uid_t)-1)
		rule->users[rule->user_count++] = config->process.uid;
}

int
access_rule_init(struct access_rule *rule, const struct config *config,
                 const struct config_control_listener *listener, char *why, size_t why_size)
{
	*rule = (struct access_rule){.is_unix = listener->address.sa.sa_family == AF_UNIX};
	users_init(rule, config, listener);
	if (listener->token_file != NULL)
		return token_read(listener->token_file, &rule->token, why, why_size);
	rule->open = !rule->is_unix && listener->role == CONFIG_ROLE_PROBE;
	if (rule->is_unix || rule->open)
		return 0;
	snprintf(why, why_size, "a TCP listener needs a token_file");
	return -1;
}

void
access_rule_clear(struct access_rule *rule)
{
	if (rule->token != NULL)
		OPENSSL_cleanse(rule->token, strlen(rule->token));
	free(rule->token);
	*rule = (struct access_rule){0};
}

static bool
peer_allowed(const struct access_rule *rule, int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
		return false;
	for (size_t i = 0; i < rule->user_count; i++)
		if (rule->users[i] == peer.uid)
			return true;
	return false;
}

void
access_digest(const char *token, uint8_t ret[ACCESS_DIGEST_SIZE])
{
	SHA256((const unsigned char *)token, strlen(token), ret);
}

/* Digests are compared, so that neither content nor length of the token shows in the time taken. */
bool
access_token_right(const struct access_rule *rule, const char *token)
{
	uint8_t mine[ACCESS_DIGEST_SIZE], told[ACCESS_DIGEST_SIZE];
	access_digest(rule->token, mine);
	access_digest(token, told);
	return CRYPTO_memcmp(mine, told, sizeof(mine)) == 0;
}

const char *
access_bearer(const char *authorization)
{
	static const char scheme[] = "Bearer ";
	size_t length = sizeof(scheme) - 1;
	bool bears = authorization != NULL && strncasecmp(authorization, scheme, length) == 0;
	return bears ? authorization + length : NULL;
}

static bool
authorized(const struct access_rule *rule, const char *authorization)
{
	const char *token = access_bearer(authorization);
	return token != NULL && access_token_right(rule, token);
}

enum access_verdict
access_check(const struct access_rule *rule, int fd, const char *authorization)
{
	if (rule->open)
		return ACCESS_GRANTED;
	if (rule->is_unix && !peer_allowed(rule, fd))
		return ACCESS_FORBIDDEN;
	if (rule->token != NULL && !authorized(rule, authorization))
		return ACCESS_UNAUTHENTICATED;
	return rule->is_unix || rule->token != NULL ? ACCESS_GRANTED : ACCESS_FORBIDDEN;
}
