/* Addresses as text and as sockaddr, and CIDR blocks of them. */
#include "base/net.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_MAX 256 /* a DNS name is at most 253 characters */

/* Splits "host:port" or "[v6]:port". Returns the port, or -1 with *reterr. */
static int
split_host_port(const char *text, char host[HOST_MAX], const char **reterr)
{
	const char *colon = strrchr(text, ':');
	const char *begin = text, *end = colon;
	unsigned long port = 0;
	const char *p;

	*reterr = "no port: host:port, [v6]:port or unix:/path is meant";
	if (colon == NULL || !isdigit((unsigned char)colon[1]))
		return -1;
	for (p = colon + 1; isdigit((unsigned char)*p) && port <= 65535; p++)
		port = port * 10 + (unsigned long)(*p - '0');
	*reterr = "the port is not a number from 0 to 65535";
	if (*p != '\0' || port > 65535)
		return -1;
	*reterr = "an IPv6 address needs brackets: [v6]:port";
	if (*begin == '[') {
		if (end[-1] != ']')
			return -1;
		begin++;
		end--;
	} else if (memchr(begin, ':', (size_t)(end - begin)) != NULL) {
		return -1;
	}
	*reterr = "the host is missing or too long";
	if (end <= begin || (size_t)(end - begin) >= HOST_MAX)
		return -1;
	memcpy(host, begin, (size_t)(end - begin));
	host[end - begin] = '\0';
	return (int)port;
}

static int
parse_unix(const char *path, struct net_address *ret, const char **reterr)
{
	size_t n = strlen(path);
	struct net_address address = {0};

	*reterr = "a unix socket's path must begin with /";
	if (path[0] != '/')
		return -1;
	*reterr = "the path is longer than the kernel's 107 bytes";
	if (n >= sizeof(address.un.sun_path))
		return -1;
	address.un.sun_family = AF_UNIX;
	memcpy(address.un.sun_path, path, n + 1);
	address.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	*ret = address;
	return 0;
}

static int
parse_numeric(const char *host, uint16_t port, struct net_address *ret)
{
	struct net_address address = {0};

	if (inet_pton(AF_INET, host, &address.in.sin_addr) == 1) {
		address.in.sin_family = AF_INET;
		address.in.sin_port = htons(port);
		address.length = sizeof(address.in);
	} else if (inet_pton(AF_INET6, host, &address.in6.sin6_addr) == 1) {
		address.in6.sin6_family = AF_INET6;
		address.in6.sin6_port = htons(port);
		address.length = sizeof(address.in6);
	} else {
		return -1;
	}
	*ret = address;
	return 0;
}

int
net_address_parse(const char *text, struct net_address *ret, const char **reterr)
{
	char host[HOST_MAX];
	int port;

	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, ret, reterr);
	port = split_host_port(text, host, reterr);
	if (port == -1)
		return -1;
	*reterr = "the host is no IPv4 or IPv6 address";
	return parse_numeric(host, (uint16_t)port, ret);
}

static void
set_port(struct net_address *address, uint16_t port)
{
	if (address->sa.sa_family == AF_INET)
		address->in.sin_port = htons(port);
	else
		address->in6.sin6_port = htons(port);
}

/* One family only, IPv4 first: an app that listens on "localhost" mostly listens on 127.0.0.1
 * alone. */
static int
lookup(const char *host, uint16_t port, struct net_address *ret, size_t max)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	int family = AF_INET6, count = 0;

	if (getaddrinfo(host, NULL, &hints, &list) != 0)
		return -1;
	for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next)
		if (ai->ai_family == AF_INET)
			family = AF_INET;
	for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next) {
		if (ai->ai_family != family)
			continue;
		if ((size_t)count++ >= max)
			continue;
		net_address_from(ai->ai_addr, ai->ai_addrlen, &ret[count - 1]);
		set_port(&ret[count - 1], port);
	}
	freeaddrinfo(list);
	return count > 0 ? count : -1;
}

bool
net_address_is_name(const char *text)
{
	struct net_address address;
	char host[HOST_MAX];
	const char *why;
	int port;

	if (strncmp(text, "unix:", 5) == 0)
		return false;
	port = split_host_port(text, host, &why);
	return port != -1 && parse_numeric(host, (uint16_t)port, &address) == -1;
}

int
net_address_lookup(const char *text, struct net_address *ret, size_t max, const char **reterr)
{
	char host[HOST_MAX];
	int port = split_host_port(text, host, reterr);

	if (port == -1)
		return -1;
	*reterr = "the name cannot be resolved";
	return lookup(host, (uint16_t)port, ret, max);
}

int
net_address_resolve(const char *text, struct net_address *ret, const char **reterr)
{
	char host[HOST_MAX];
	int port;

	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, ret, reterr);
	port = split_host_port(text, host, reterr);
	if (port == -1)
		return -1;
	if (parse_numeric(host, (uint16_t)port, ret) == 0)
		return 0;
	*reterr = "the name cannot be resolved";
	return lookup(host, (uint16_t)port, ret, 1) == -1 ? -1 : 0;
}

int
net_address_later(const char *text, struct net_address *ret, const char **reterr)
{
	static const char name_chars[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	char host[HOST_MAX];
	int port = split_host_port(text, host, reterr);

	if (port == -1)
		return -1;
	*reterr = "a host's name has letters, digits, \"-\", \"_\" and \".\"";
	if (host[strspn(host, name_chars)] != '\0')
		return -1;
	memset(ret, 0, sizeof(*ret));
	ret->in.sin_port = htons((uint16_t)port);
	return 0;
}

void
net_address_format(const struct net_address *address, char *buf, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";
	size_t offset = offsetof(struct sockaddr_un, sun_path);

	switch (address->sa.sa_family) {
	case AF_INET:
		inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof(host));
		snprintf(buf, size, "%s:%u", host, ntohs(address->in.sin_port));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &address->in6.sin6_addr, host, sizeof(host));
		snprintf(buf, size, "[%s]:%u", host, ntohs(address->in6.sin6_port));
		break;
	case AF_UNIX:
		snprintf(buf, size, "unix:%.*s",
		         address->length > offset ? (int)(address->length - offset) : 0,
		         address->un.sun_path);
		break;
	default:
		snprintf(buf, size, "?");
	}
}

void
net_address_from(const struct sockaddr *sa, socklen_t length, struct net_address *ret)
{
	*ret = (struct net_address){0};
	if (length > sizeof(ret->storage))
		length = sizeof(ret->storage);
	memcpy(&ret->storage, sa, length);
	ret->length = length;
}

/* The 4 bytes of an IPv4 address, also where it comes mapped into IPv6; null for others. */
static const uint8_t *
ipv4_bytes(const struct net_address *address)
{
	if (address->sa.sa_family == AF_INET)
		return (const uint8_t *)&address->in.sin_addr;
	if (address->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->in6.sin6_addr))
		return address->in6.sin6_addr.s6_addr + 12;
	return NULL;
}

bool
net_address_is_loopback(const struct net_address *address)
{
	const uint8_t *v4 = ipv4_bytes(address);

	if (v4 != NULL)
		return v4[0] == 127;
	if (address->sa.sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr);
	return address->sa.sa_family == AF_UNIX;
}

/* "/bits" behind an address of `most` bits. Returns 0, or -1 for anything but a number in range. */
static int
parse_bits(const char *text, unsigned most, unsigned *ret)
{
	unsigned bits = 0;

	if (text[0] == '\0' || strlen(text) > 3)
		return -1;
	for (; *text != '\0'; text++) {
		if (!isdigit((unsigned char)*text))
			return -1;
		bits = bits * 10 + (unsigned)(*text - '0');
	}
	*ret = bits;
	return bits <= most ? 0 : -1;
}

int
net_cidr_parse(const char *text, struct net_cidr *ret)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t n = slash != NULL ? (size_t)(slash - text) : strlen(text);
	struct net_cidr cidr = {0};
	unsigned most;

	if (n >= sizeof(host))
		return -1;
	memcpy(host, text, n);
	host[n] = '\0';
	if (inet_pton(AF_INET, host, cidr.bytes) == 1)
		cidr.family = AF_INET;
	else if (inet_pton(AF_INET6, host, cidr.bytes) == 1)
		cidr.family = AF_INET6;
	else
		return -1;
	most = cidr.family == AF_INET ? 32 : 128;
	cidr.bits = most;
	if (slash != NULL && parse_bits(slash + 1, most, &cidr.bits) == -1)
		return -1;
	*ret = cidr;
	return 0;
}

void
net_cidr_format(const struct net_cidr *cidr, char *buf, size_t size)
{
	char host[INET6_ADDRSTRLEN];

	if (inet_ntop(cidr->family, cidr->bytes, host, sizeof(host)) == NULL)
		host[0] = '\0';
	snprintf(buf, size, "%s/%u", host, cidr->bits);
}

static bool
bits_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a, b, whole) != 0)
		return false;
	return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

bool
net_cidr_match(const struct net_cidr *cidr, const struct net_address *address)
{
	const uint8_t *v4 = ipv4_bytes(address);

	if (cidr->family == AF_INET)
		return v4 != NULL && bits_equal(cidr->bytes, v4, cidr->bits);
	return address->sa.sa_family == AF_INET6 &&
	       bits_equal(cidr->bytes, address->in6.sin6_addr.s6_addr, cidr->bits);
}
