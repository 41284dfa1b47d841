/* Templates and codes. */
#include <string.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include "model/deep.h"
#include "model/trace_context.h"

bool
deep_route_valid(const char *route)
{
	const char *space = strchr(route, ' ');
	return space != NULL && space > route && space[1] == '/' && strlen(route) <= 512;
}

/* Behind the parameter that begins at `p` ('{'), and whether it takes all the rest. */
static const char *
skip_parameter(const char *p, bool *ret_rest)
{
	const char *end = strchr(p, '}');
	if (end == NULL)
		return p + strlen(p);
	*ret_rest = end - p >= 5 && memcmp(end - 5, ":path", 5) == 0;
	return end + 1;
}

/* Templates are short and parameters few: trying each length is enough. */
static bool
fits(const char *template, const char *path, size_t length)
{
	for (; *template != '\0' && *template != '{'; template ++, path++, length--)
		if (length == 0 || *path != *template)
			return false;
	if (*template == '\0')
		return length == 0;
	bool rest = false;
	template = skip_parameter(template, &rest);
	for (size_t taken = rest ? 0 : 1; taken <= length; taken++) {
		if (!rest && path[taken - 1] == '/')
			return false;
		if (fits(template, path + taken, length - taken))
			return true;
	}
	return false;
}

bool
deep_route_matches(const char *route, const char *method, size_t method_length, const char *target,
                   size_t target_length)
{
	const char *query = memchr(target, '?', target_length);
	if (query != NULL)
		target_length = (size_t)(query - target);
	return strncmp(route, method, method_length) == 0 && route[method_length] == ' ' &&
	       fits(route + method_length + 1, target, target_length);
}

void
deep_mac(const uint8_t key[DEEP_KEY_SIZE], const uint8_t trace_id[TRACE_ID_SIZE],
         const uint8_t span_id[SPAN_ID_SIZE], char ret[DEEP_MAC_DIGITS])
{
	char text[2 * TRACE_ID_SIZE + 1 + 2 * SPAN_ID_SIZE];
	unsigned char digest[EVP_MAX_MD_SIZE] = {0};
	unsigned length = 0;
	hex_format(text, trace_id, TRACE_ID_SIZE);
	text[2 * TRACE_ID_SIZE] = '-';
	hex_format(text + 2 * TRACE_ID_SIZE + 1, span_id, SPAN_ID_SIZE);
	HMAC(EVP_sha256(), key, DEEP_KEY_SIZE, (const unsigned char *)text, sizeof(text), digest,
	     &length);
	hex_format(ret, digest, DEEP_MAC_DIGITS / 2);
}
