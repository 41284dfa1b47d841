/* Addresses and sockets: what listeners, upstreams, the control plane and client commands share. */
#ifndef TAILRACE_BASE_NET_H
#define TAILRACE_BASE_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>

/* An address as config writes it: "host:port", "[v6]:port" or "unix:/path". */
struct net_address {
	socklen_t length;
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	};
};

#define NET_ADDRESS_TEXT_SIZE 128 /* enough for every net_address_format(), sun_path included */

/* A numeric address or unix path; no name lookup. Returns 0, or -1 with *reterr set (static
 * text). */
int net_address_parse(const char *text, struct net_address *ret, const char **reterr);

/* As net_address_parse(), and names are looked up (blocking: start-up only, never on a loop). */
int net_address_resolve(const char *text, struct net_address *ret, const char **reterr);

/* A server whose name has no address now: `length` 0, the port set. Returns 0, or -1 with *reterr where
 * the host is no name. */
int net_address_later(const char *text, struct net_address *ret, const char **reterr);

/* Whether the address has the name of a host, which must be looked up. */
bool net_address_is_name(const char *text);

/* All addresses of a name (blocking: never on a loop): the IPv4 ones, else the IPv6 ones, since an app
 * mostly listens on one family alone. Returns how many there are, of which the first `max` are in
 * `ret`, or -1 with *reterr (static text). */
int net_address_lookup(const char *text, struct net_address *ret, size_t max, const char **reterr);

/* "127.0.0.1:8000", "[::1]:8000", "unix:/path" ("unix:" where the peer has no name). */
void net_address_format(const struct net_address *address, char *buf, size_t size);

bool net_address_is_loopback(const struct net_address *address); /* unix sockets are */

/* Reads sockaddr of an accepted or connected peer into `ret`. */
void net_address_from(const struct sockaddr *sa, socklen_t length, struct net_address *ret);

/* A CIDR block; an IPv4-mapped IPv6 peer matches IPv4 blocks. */
struct net_cidr {
	int family; /* AF_INET, AF_INET6 */
	uint8_t bytes[16];
	unsigned bits;
};
int net_cidr_parse(const char *text,
                   struct net_cidr *ret); /* "10.0.0.0/8", "::1", -1 if malformed */
#define NET_CIDR_TEXT_SIZE 64
void net_cidr_format(const struct net_cidr *cidr, char *buf, size_t size); /* "10.0.0.0/8" */
bool net_cidr_match(const struct net_cidr *cidr, const struct net_address *address);

/* A bound, listening, non-blocking, close-on-exec socket. A unix path gets `unix_mode`; a dead
 * socket file there is replaced, a live one is an error. Returns the descriptor, or -1 with
 * errno and *reterr set (static text). */
int net_listen(const struct net_address *address, int backlog, unsigned unix_mode,
               const char **reterr);

/* One of several sockets on one TCP address (SO_REUSEPORT): the kernel shares connections out among
 * them. Else as net_listen(). */
int net_listen_shared(const struct net_address *address, int backlog, const char **reterr);

/* Whether a plain TCP socket can be bound, so that nobody else serves the address: errno and
 * *reterr tell why not. */
bool net_address_is_free(const struct net_address *address, const char **reterr);

/* Whether the socket is one of net_listen_shared(). */
bool net_is_shared(int fd);

/* From now on no new TCP connection comes to the listening socket, in whatever process holds it: its
 * SYN is dropped, so that the client tries again (after 1 s) and finds who listens then, or nobody.
 * What waits to be accepted can then be taken to the last one; a close would reset it. A filter by
 * socket(7), SO_ATTACH_FILTER, which sees the segment from its TCP header (RFC 9293, 3.1) on and which
 * accepted connections keep. Returns 0, or -1 with errno. */
int net_refuse_new(int fd);

/* Starts a non-blocking connect. Returns the descriptor with *ret_connected telling whether it is
 * done already, or -1 with errno. TCP_NODELAY is set. */
int net_connect(const struct net_address *address, bool *ret_connected);

int net_set_nonblocking(int fd); /* 0, or -1 with errno */

#endif
