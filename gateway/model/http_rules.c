/* What a safe proxy refuses beyond its parser. */
#include "model/http_rules.h"

#include <string.h>

bool
http_rules_idempotent(uint8_t method)
{
	return method == RULES_METHOD_GET || method == RULES_METHOD_HEAD ||
	       method == RULES_METHOD_PUT || method == RULES_METHOD_DELETE ||
	       method == RULES_METHOD_OPTIONS || method == RULES_METHOD_TRACE;
}

bool
http_rules_bodyless(uint8_t method, unsigned status)
{
	return method == RULES_METHOD_HEAD || status < 200 || status == 204 || status == 304;
}

int
http_rules_length(struct text value, uint64_t *ret)
{
	uint64_t n = 0;

	if (value.length == 0 || value.length > 19)
		return -1;
	for (size_t i = 0; i < value.length; i++) {
		if (value.at[i] < '0' || value.at[i] > '9')
			return -1;
		n = n * 10 + (uint64_t)(value.at[i] - '0');
	}
	if (n > INT64_MAX)
		return -1;
	*ret = n;
	return 0;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* unreserved / sub-delims of RFC 3986, without the comma that would make a list of it */
static bool
is_name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) ||
	       (c != '\0' && strchr("-._~!$&'()*+;=", c) != NULL);
}

static size_t
host_name_length(struct text host)
{
	size_t i = 0;

	if (host.length > 0 && host.at[0] == '[') {
		const char *close = memchr(host.at, ']', host.length);
		size_t end = close ? (size_t)(close - host.at) : 0;

		for (i = 1; i < end; i++)
			if (!is_hex(host.at[i]) && host.at[i] != ':' && host.at[i] != '.')
				return 0;
		return end > 1 ? end + 1 : 0;
	}
	while (i < host.length && host.at[i] != ':') {
		if (host.at[i] == '%') {
			if (host.length - i < 3 || !is_hex(host.at[i + 1]) ||
			    !is_hex(host.at[i + 2]))
				return 0;
			i += 3;
		} else if (is_name_char(host.at[i])) {
			i++;
		} else {
			return 0;
		}
	}
	return i;
}

bool
http_rules_host_valid(struct text host)
{
	size_t i;
	unsigned port = 0;

	if (host.length == 0)
		return true;
	i = host_name_length(host);
	if (i == 0)
		return false;
	if (i == host.length)
		return true;
	if (host.at[i] != ':' || host.length - i - 1 > 5)
		return false;
	for (i++; i < host.length; i++) {
		if (!is_digit(host.at[i]))
			return false;
		port = port * 10 + (unsigned)(host.at[i] - '0');
	}
	return port <= 65535;
}

/* Rule 3 and 7: absolute-form is cut into authority and the origin-form the app gets. */
static enum close_reason
split_absolute(struct text target, struct text *ret_authority, struct text *ret_target)
{
	size_t scheme = 0;
	const char *slash;
	const char *query;
	const char *end = target.at + target.length;

	if (target.length > 7 && text_equals((struct text){target.at, 7}, "http://"))
		scheme = 7;
	else if (target.length > 8 && text_equals((struct text){target.at, 8}, "https://"))
		scheme = 8;
	if (!scheme)
		return CLOSE_BAD_TARGET;
	target.at += scheme;
	target.length -= scheme;
	slash = memchr(target.at, '/', target.length);
	query = memchr(target.at, '?', target.length);
	if (query && (!slash || query < slash))
		return CLOSE_BAD_TARGET; /* no path: nothing to pass on without writing one */
	ret_authority->at = target.at;
	ret_authority->length = slash ? (size_t)(slash - target.at) : target.length;
	*ret_target = slash ? (struct text){slash, (size_t)(end - slash)} : (struct text){"/", 1};
	if (ret_authority->length == 0 || !http_rules_host_valid(*ret_authority))
		return CLOSE_BAD_TARGET; /* userinfo fails here too: `@` is no host character */
	return CLOSE_NONE;
}

static bool
target_bytes_valid(struct text target)
{
	for (size_t i = 0; i < target.length; i++)
		if (target.at[i] < 0x21 || target.at[i] > 0x7e || target.at[i] == '#')
			return false;
	return target.length > 0;
}

static bool
text_same(struct text a, struct text b)
{
	if (a.length != b.length)
		return false;
	for (size_t i = 0; i < a.length; i++) {
		char x = a.at[i] >= 'A' && a.at[i] <= 'Z' ? (char)(a.at[i] | 0x20) : a.at[i];
		char y = b.at[i] >= 'A' && b.at[i] <= 'Z' ? (char)(b.at[i] | 0x20) : b.at[i];

		if (x != y)
			return false;
	}
	return true;
}

/* Rules 2, 3, 7 */
static enum close_reason
check_target(const struct head *head, struct request_facts *facts)
{
	struct text target = {head->bytes + head->target, head->target_length};
	struct text authority = {"", 0};
	enum close_reason why;

	if (head->twice & HEADER_BIT(HEADER_HOST))
		return CLOSE_BAD_HOST;
	if (head->minor >= 1 && !head_has(head, HEADER_HOST))
		return CLOSE_BAD_HOST;
	facts->host = head_value(head, HEADER_HOST);
	if (!http_rules_host_valid(facts->host))
		return CLOSE_BAD_HOST;
	if (!target_bytes_valid(target))
		return CLOSE_BAD_TARGET;
	facts->target = target;
	if (target.at[0] == '/')
		return CLOSE_NONE;
	if (target.length == 1 && target.at[0] == '*')
		return head->method == RULES_METHOD_OPTIONS ? CLOSE_NONE : CLOSE_BAD_TARGET;
	why = split_absolute(target, &authority, &facts->target);
	if (why != CLOSE_NONE)
		return why;
	if (facts->host.length > 0 && !text_same(facts->host, authority))
		return CLOSE_BAD_HOST;
	facts->host = authority;
	return CLOSE_NONE;
}

/* Rules 4, 5, 6 */
static enum close_reason
check_request_framing(struct head *head)
{
	bool has_length = head_has(head, HEADER_CONTENT_LENGTH);

	head->framing = BODY_NONE;
	if (head_has(head, HEADER_TRANSFER_ENCODING)) {
		if (head->minor == 0)
			return CLOSE_BAD_LENGTH;
		if (has_length)
			return CLOSE_BAD_LENGTH;
		if ((head->twice & HEADER_BIT(HEADER_TRANSFER_ENCODING)) ||
		    !text_equals(head_value(head, HEADER_TRANSFER_ENCODING), "chunked"))
			return CLOSE_BAD_ENCODING;
		head->framing = BODY_CHUNKED;
		return CLOSE_NONE;
	}
	if (!has_length)
		return CLOSE_NONE;
	if ((head->twice & HEADER_BIT(HEADER_CONTENT_LENGTH)) ||
	    http_rules_length(head_value(head, HEADER_CONTENT_LENGTH), &head->content_length) < 0)
		return CLOSE_BAD_LENGTH;
	if (head->content_length > 0)
		head->framing = BODY_LENGTH;
	return CLOSE_NONE;
}

/* curl and others offer h2c on plain requests; ignoring an offer is allowed (RFC 9110 7.8). */
static bool
upgrade_ignorable(const struct head *head)
{
	struct text list = head_value(head, HEADER_UPGRADE);
	struct text protocol;
	size_t cursor = 0;

	if (head->twice & HEADER_BIT(HEADER_UPGRADE))
		return false;
	while (text_next(list, &cursor, &protocol))
		if (!text_equals(protocol, "h2c"))
			return false;
	return true;
}

enum close_reason
http_rules_request(struct head *head, struct request_facts *ret)
{
	enum close_reason why;

	memset(ret, 0, sizeof *ret);
	if (head->major != 1 || head->minor > 1) /* rule 1 */
		return CLOSE_BAD_VERSION;
	if (head->method == RULES_METHOD_CONNECT)
		return CLOSE_CONNECT_REFUSED;
	why = check_target(head, ret);
	if (why != CLOSE_NONE)
		return why;
	why = check_request_framing(head);
	if (why != CLOSE_NONE)
		return why;
	if (head_nominate(head) < 0) /* rule 10 */
		return CLOSE_BAD_NOMINATION;
	if (head_has(head, HEADER_UPGRADE) && !upgrade_ignorable(head))
		return CLOSE_UPGRADE_REFUSED;
	if (head_has(head, HEADER_EXPECT) && head->minor >= 1) { /* rule 13; 1.0: ignored */
		if ((head->twice & HEADER_BIT(HEADER_EXPECT)) ||
		    !text_equals(head_value(head, HEADER_EXPECT), "100-continue"))
			return CLOSE_BAD_EXPECT;
		ret->expects_continue = true;
	}
	return CLOSE_NONE;
}

/* RFC 9112 4: no control bytes but tabs; llhttp itself stops only at CR and LF. */
static bool
reason_valid(const struct head *head)
{
	const char *reason = head->bytes + head->reason;

	for (size_t i = 0; i < head->reason_length; i++)
		if (((unsigned char)reason[i] < ' ' && reason[i] != '\t') || reason[i] == 0x7f)
			return false;
	return true;
}

/* Rule 16 */
enum close_reason
http_rules_response(struct head *head, uint8_t method)
{
	bool has_length = head_has(head, HEADER_CONTENT_LENGTH);
	bool has_encoding = head_has(head, HEADER_TRANSFER_ENCODING);

	if (head->major != 1 || head->minor > 1 || head->status < 100 || head->status > 599 ||
	    head->status == 101 || !reason_valid(head))
		return CLOSE_BAD_RESPONSE;
	if (has_length && has_encoding)
		return CLOSE_BAD_RESPONSE;
	if (head->twice &
	    (HEADER_BIT(HEADER_CONTENT_LENGTH) | HEADER_BIT(HEADER_TRANSFER_ENCODING)))
		return CLOSE_BAD_RESPONSE;
	if (has_encoding && (head->minor == 0 ||
	                     !text_equals(head_value(head, HEADER_TRANSFER_ENCODING), "chunked")))
		return CLOSE_BAD_RESPONSE;
	if (has_length &&
	    http_rules_length(head_value(head, HEADER_CONTENT_LENGTH), &head->content_length) < 0)
		return CLOSE_BAD_RESPONSE;
	(void)head_nominate(head); /* an app that nominates nonsense harms only itself */
	if (http_rules_bodyless(method, head->status))
		head->framing = BODY_NONE;
	else if (has_encoding)
		head->framing = BODY_CHUNKED;
	else if (has_length)
		head->framing = head->content_length > 0 ? BODY_LENGTH : BODY_NONE;
	else
		head->framing = BODY_UNTIL_EOF;
	return CLOSE_NONE;
}
