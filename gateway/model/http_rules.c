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
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c))
		return true;
	switch (c) {
	case '-':
	case '.':
	case '_':
	case '~':
	case '!':
	case '$':
	case '&':
	case '\'':
	case '(':
	case ')':
	case '*':
	case '+':
	case ';':
	case '=':
		return true;
	default:
		return false;
	}
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

/* The authority without the port that its scheme has anyway (RFC 9110 4.2.3). */
static struct text
without_default_port(struct text authority, enum target_scheme scheme)
{
	const char *port = scheme == TARGET_HTTPS ? ":443" : ":80";
	size_t length = strlen(port);

	if (authority.length > length &&
	    memcmp(authority.at + authority.length - length, port, length) == 0)
		authority.length -= length;
	return authority;
}

/* What the app gets of an absolute-form target behind its authority. A path that begins with `?`
 * still wants its slash, which is written with the head (RFC 9112 3.2.1); OPTIONS without a path
 * asks the server as a whole (3.2.4). */
static struct text
origin_form(struct text rest, uint8_t method)
{
	if (rest.length > 0)
		return rest;
	return method == RULES_METHOD_OPTIONS ? (struct text){"*", 1} : (struct text){"/", 1};
}

/* Rule 3 and 7: absolute-form is cut into authority and the origin-form the app gets. */
static enum close_reason
split_absolute(const struct head *head, struct text target, struct request_facts *facts,
               struct text *ret_authority)
{
	size_t scheme;
	const char *end = target.at + target.length, *stop;

	if (target.length > 7 && text_equals((struct text){target.at, 7}, "http://"))
		facts->scheme = TARGET_HTTP;
	else if (target.length > 8 && text_equals((struct text){target.at, 8}, "https://"))
		facts->scheme = TARGET_HTTPS;
	else
		return CLOSE_BAD_TARGET;
	scheme = facts->scheme == TARGET_HTTPS ? 8 : 7;
	target.at += scheme;
	for (stop = target.at; stop < end && *stop != '/' && *stop != '?'; stop++)
		if (*stop == '@')
			return CLOSE_TARGET_USERINFO;
	*ret_authority = (struct text){target.at, (size_t)(stop - target.at)};
	facts->target = origin_form((struct text){stop, (size_t)(end - stop)}, head->method);
	if (ret_authority->length == 0 || !http_rules_host_valid(*ret_authority))
		return CLOSE_BAD_TARGET;
	return CLOSE_NONE;
}

/* Rules 7 and 14 */
static enum close_reason
check_target_bytes(struct text target)
{
	bool in_path = true;

	for (size_t i = 0; i < target.length; i++) {
		char c = target.at[i];

		if (c < 0x21 || c > 0x7e)
			return CLOSE_BAD_TARGET;
		if (c == '#')
			return CLOSE_TARGET_FRAGMENT;
		if (c == '?')
			in_path = false;
		if (c == '%' && in_path && target.length - i >= 3 && target.at[i + 1] == '0' &&
		    target.at[i + 2] == '0')
			return CLOSE_TARGET_NUL;
	}
	return target.length > 0 ? CLOSE_NONE : CLOSE_BAD_TARGET;
}

/* Rule 2 */
static enum close_reason
check_host(const struct head *head, struct request_facts *facts)
{
	if (head->twice & HEADER_BIT(HEADER_HOST))
		return CLOSE_HOST_REPEATED;
	if (head->minor >= 1 && !head_has(head, HEADER_HOST))
		return CLOSE_HOST_MISSING;
	facts->host = head_value(head, HEADER_HOST);
	return http_rules_host_valid(facts->host) ? CLOSE_NONE : CLOSE_BAD_HOST;
}

/* Rules 3, 7, 14 */
static enum close_reason
check_target(const struct head *head, struct request_facts *facts)
{
	struct text target = {head->bytes + head->target, head->target_length};
	struct text authority = {"", 0};
	enum close_reason why = check_target_bytes(target);

	if (why != CLOSE_NONE)
		return why;
	facts->target = target;
	if (target.at[0] == '/')
		return CLOSE_NONE;
	if (target.length == 1 && target.at[0] == '*')
		return head->method == RULES_METHOD_OPTIONS ? CLOSE_NONE : CLOSE_BAD_TARGET;
	why = split_absolute(head, target, facts, &authority);
	if (why != CLOSE_NONE)
		return why;
	if (head_has(head, HEADER_HOST) &&
	    !text_same(without_default_port(facts->host, facts->scheme),
	               without_default_port(authority, facts->scheme)))
		return CLOSE_HOST_MISMATCH;
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
			return CLOSE_ENCODING_ON_HTTP10;
		if (has_length)
			return CLOSE_LENGTH_AND_ENCODING;
		if (head->twice & HEADER_BIT(HEADER_TRANSFER_ENCODING))
			return CLOSE_ENCODING_MALFORMED;
		if (!text_equals(head_value(head, HEADER_TRANSFER_ENCODING), "chunked"))
			return CLOSE_BAD_ENCODING;
		head->framing = BODY_CHUNKED;
		return CLOSE_NONE;
	}
	if (!has_length)
		return CLOSE_NONE;
	if (head->twice & HEADER_BIT(HEADER_CONTENT_LENGTH))
		return CLOSE_LENGTH_REPEATED;
	if (http_rules_length(head_value(head, HEADER_CONTENT_LENGTH), &head->content_length) < 0)
		return CLOSE_BAD_LENGTH;
	if (head->content_length > 0)
		head->framing = BODY_LENGTH;
	return CLOSE_NONE;
}

/* RFC 6455 4.1: 16 bytes in base64 */
static bool
websocket_key_valid(const struct head *head)
{
	const struct field *field = head_only(head, "sec-websocket-key");
	const char *key = field ? head->bytes + field->value : "";

	if (!field || field->value_length != 24 || key[22] != '=' || key[23] != '=')
		return false;
	for (size_t i = 0; i < 22; i++)
		if (!is_digit(key[i]) && !((key[i] | 0x20) >= 'a' && (key[i] | 0x20) <= 'z') &&
		    key[i] != '+' && key[i] != '/')
			return false;
	return true;
}

/* Rule 10: only WebSocket may leave HTTP. All other offers are ignored, as they may be (RFC 9110
 * 7.8), and so is one without the connection option, or of an HTTP/1.0 client. */
static enum close_reason
check_upgrade(const struct head *head, struct request_facts *facts)
{
	const struct field *version;

	if (head->minor == 0 || !head_lists(head, HEADER_UPGRADE, "websocket") ||
	    !head_lists(head, HEADER_CONNECTION, "upgrade"))
		return CLOSE_NONE;
	if (head->method != RULES_METHOD_GET || head->framing != BODY_NONE ||
	    !websocket_key_valid(head))
		return CLOSE_BAD_UPGRADE;
	version = head_only(head, "sec-websocket-version");
	if (!version ||
	    !text_equals((struct text){head->bytes + version->value, version->value_length}, "13"))
		return CLOSE_UPGRADE_VERSION;
	facts->websocket = true;
	return CLOSE_NONE;
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
	why = check_host(head, ret);
	if (why == CLOSE_NONE)
		why = check_target(head, ret);
	if (why != CLOSE_NONE)
		return why;
	why = check_request_framing(head);
	if (why != CLOSE_NONE)
		return why;
	if (head_nominate(head) < 0) /* rule 10 */
		return CLOSE_BAD_NOMINATION;
	if (head_has(head, HEADER_UPGRADE)) {
		why = check_upgrade(head, ret);
		if (why != CLOSE_NONE)
			return why;
	}
	if (head_has(head, HEADER_TE)) /* RFC 9110 6.5.1 */
		ret->takes_trailers = head_lists(head, HEADER_TE, "trailers");
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

/* Rules 4, 5, 6 for responses */
static enum close_reason
check_response_framing(struct head *head)
{
	bool has_length = head_has(head, HEADER_CONTENT_LENGTH);
	bool has_encoding = head_has(head, HEADER_TRANSFER_ENCODING);

	if ((has_length && has_encoding) || (head->twice & HEADER_BIT(HEADER_CONTENT_LENGTH)))
		return CLOSE_RESPONSE_LENGTH;
	if (has_encoding &&
	    (head->minor == 0 || (head->twice & HEADER_BIT(HEADER_TRANSFER_ENCODING)) ||
	     !text_equals(head_value(head, HEADER_TRANSFER_ENCODING), "chunked")))
		return CLOSE_RESPONSE_ENCODING;
	if (has_length &&
	    http_rules_length(head_value(head, HEADER_CONTENT_LENGTH), &head->content_length) < 0)
		return CLOSE_RESPONSE_LENGTH;
	return CLOSE_NONE;
}

/* A 101 that answers our upgrade: without a body of any kind (RFC 9110 8.6). */
static bool
switches_as_asked(const struct head *head)
{
	return head->minor == 1 && head_lists(head, HEADER_UPGRADE, "websocket") &&
	       head_lists(head, HEADER_CONNECTION, "upgrade") &&
	       !head_has(head, HEADER_CONTENT_LENGTH) && !head_has(head, HEADER_TRANSFER_ENCODING);
}

/* Rule 16 */
enum close_reason
http_rules_response(struct head *head, uint8_t method, bool upgrade_sent)
{
	enum close_reason why;

	if (head->major != 1 || head->minor > 1)
		return CLOSE_RESPONSE_VERSION;
	if (head->status < 100 || head->status > 599 || !reason_valid(head))
		return CLOSE_RESPONSE_STATUS;
	if (head->status == 101 && (!upgrade_sent || !switches_as_asked(head)))
		return CLOSE_RESPONSE_UPGRADE;
	why = check_response_framing(head);
	if (why != CLOSE_NONE)
		return why;
	(void)head_nominate(head); /* an app that nominates nonsense harms only itself */
	if (http_rules_bodyless(method, head->status))
		head->framing = BODY_NONE;
	else if (head_has(head, HEADER_TRANSFER_ENCODING))
		head->framing = BODY_CHUNKED;
	else if (head_has(head, HEADER_CONTENT_LENGTH))
		head->framing = head->content_length > 0 ? BODY_LENGTH : BODY_NONE;
	else
		head->framing = BODY_UNTIL_EOF;
	return CLOSE_NONE;
}
