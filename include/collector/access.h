/* Who may ask: bearer tokens and the users at the other end of Unix sockets. */
#ifndef TAILRACE_COLLECTOR_ACCESS_H
#define TAILRACE_COLLECTOR_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/config.h"

enum access_verdict {
	ACCESS_GRANTED,
	ACCESS_UNAUTHENTICATED, /* token missing or wrong: 401 */
	ACCESS_FORBIDDEN,       /* peer user not allowed: 403 */
};

#define ACCESS_USERS_MAX 64
#define ACCESS_DIGEST_SIZE 32 /* SHA-256 */
#define ACCESS_TOKEN_SHORT 16 /* bytes; a shorter one is warned of: it can be guessed */

struct access_rule {
	bool is_unix, open; /* open: anyone who can connect (TCP probes) */
	char *token;        /* owned; null = none needed */
	uid_t users[ACCESS_USERS_MAX];
	size_t user_count;
};

/* The rule of one control listener. Call before rights are dropped: reads the token file, and `own`
 * users (root, the supervisor's, process.user) are those of now. Returns 0, or -1 with `why`
 * filled. */
int access_rule_init(struct access_rule *rule, const struct config *config,
                     const struct config_control_listener *listener, char *why, size_t why_size);
void access_rule_clear(struct access_rule *rule);

/* `fd` is the connection's, `authorization` the header's value or null. */
enum access_verdict access_check(const struct access_rule *rule, int fd, const char *authorization);

/* The token in an Authorization header (or null); null where it holds none. */
const char *access_bearer(const char *authorization);

/* Of a rule with a token: whether `token` is it, in constant time. */
bool access_token_right(const struct access_rule *rule, const char *token);
void access_digest(const char *token, uint8_t ret[ACCESS_DIGEST_SIZE]);

#endif
