/* Choosing requests for deep profiles. */
#include "proxy/deep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "model/deep.h"
#include "proxy/client.h"
#include "proxy/exchange.h"

#define TOKEN_MAX 4096 /* bytes */
#define MINUTE_NS (60 * NS_PER_S)

struct deep_policy {
	const struct config *config;
	struct board *board;
	char *token; /* owned; null = none */
	size_t token_length;
};

static int
read_token(struct deep_policy *policy, const char *path)
{
	char buf[TOKEN_MAX + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd >= 0 ? read(fd, buf, sizeof buf) : -1;
	int saved = errno;

	if (fd >= 0)
		close(fd);
	while (length > 0 && strchr(" \t\r\n", buf[length - 1]) != NULL)
		length--;
	if (length <= 0 || length > TOKEN_MAX) {
		log_error("profile.deep.token_file: %s: %s", path,
		          length < 0 ? strerror(saved) : "holds no token of 1 to 4096 bytes");
		return -1;
	}
	policy->token = xstrndup(buf, (size_t)length);
	policy->token_length = (size_t)length;
	OPENSSL_cleanse(buf, sizeof buf);
	return 0;
}

struct deep_policy *
deep_policy_new(const struct config *config, struct board *board)
{
	struct deep_policy *policy = xcalloc(1, sizeof *policy);

	policy->config = config;
	policy->board = board;
	if (config->profile.deep.token_file == NULL ||
	    read_token(policy, config->profile.deep.token_file) == 0)
		return policy;
	free(policy);
	return NULL;
}

void
deep_policy_free(struct deep_policy *policy)
{
	if (policy == NULL)
		return;
	free(policy->token);
	free(policy);
}

/* Room in this minute: a bucket of as many as may be at once, filled evenly (GCRA). */
static bool
within_limit(const struct deep_policy *policy, uint64_t now_ns)
{
	_Atomic uint64_t *due = &policy->board->deep_due_ns;
	uint64_t each_ns = MINUTE_NS / policy->config->profile.deep.max_per_minute;
	uint64_t old = atomic_load_explicit(due, memory_order_relaxed), next;

	do {
		next = (old > now_ns ? old : now_ns) + each_ns;
		if (next > now_ns + MINUTE_NS)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(due, &old, next, memory_order_relaxed,
	                                                memory_order_relaxed));
	return true;
}

static bool
has_token(const struct deep_policy *policy, const struct head *head)
{
	struct text value;

	if (policy->token == NULL || !head_has(head, HEADER_X_TAILRACE_DEEP) ||
	    (head->twice & HEADER_BIT(HEADER_X_TAILRACE_DEEP)))
		return false;
	value = head_value(head, HEADER_X_TAILRACE_DEEP);
	return value.length == policy->token_length &&
	       CRYPTO_memcmp(value.at, policy->token, value.length) == 0;
}

static bool
is_drawn(const struct deep_policy *policy, struct loop *loop)
{
	double rate = policy->config->profile.deep.rate;
	uint8_t bytes[4];
	uint32_t number;

	if (rate <= 0)
		return false;
	id_pool_take(&loop->ids, bytes, sizeof bytes);
	memcpy(&number, bytes, sizeof number);
	return number < rate * 4294967296.0;
}

static struct board_deep_order *
order_of(const struct deep_policy *policy, const struct exchange *exchange)
{
	struct text method = http1_method_text(exchange->request.head.method);
	struct text target = exchange->facts.target;

	for (size_t i = 0; i < BOARD_DEEP_ORDERS; i++) {
		struct board_deep_order *order = &policy->board->deep_orders[i];

		if (atomic_load_explicit(&order->left, memory_order_acquire) > 0 &&
		    atomic_load_explicit(&order->until_ns, memory_order_relaxed) >
		        exchange->loop->now_ns &&
		    deep_route_matches(order->route, method.at, method.length, target.at,
		                       target.length))
			return order;
	}
	return NULL;
}

/* Takes one of the order's requests. False where another thread took the last. */
static bool
take(struct board_deep_order *order)
{
	int64_t left = atomic_load_explicit(&order->left, memory_order_relaxed);

	while (left > 0)
		if (atomic_compare_exchange_weak_explicit(
		        &order->left, &left, left - 1, memory_order_relaxed, memory_order_relaxed))
			return true;
	return false;
}

static bool
choose(const struct deep_policy *policy, struct exchange *exchange)
{
	uint64_t now_ns = exchange->loop->now_ns;
	struct board_deep_order *order = NULL;

	if (atomic_load_explicit(&policy->board->deep_open, memory_order_relaxed) > 0)
		order = order_of(policy, exchange);
	if (order != NULL)
		return within_limit(policy, now_ns) && take(order);
	return (has_token(policy, &exchange->request.head) || is_drawn(policy, exchange->loop)) &&
	       within_limit(policy, now_ns);
}

bool
deep_asked(const struct deep_policy *policy, struct exchange *exchange)
{
	if (policy == NULL)
		return false;
	if (exchange->attempts <= 1 && choose(policy, exchange))
		exchange->flags |= RECORD_DEEP;
	return exchange->flags & RECORD_DEEP;
}

char *
deep_put(const struct deep_policy *policy, const struct exchange *exchange, char *p)
{
	memcpy(p, ";deep;", 6);
	deep_mac(policy->board->deep_key, exchange->trace_id, exchange->span_id, p + 6);
	return p + 6 + DEEP_MAC_DIGITS;
}
