/* TLS for client commands. Authorities: the file TAILRACE_CA names, else the system's. */
#ifndef TAILRACE_CONTROL_TLS_H
#define TAILRACE_CONTROL_TLS_H

#include <stddef.h>
#include <sys/types.h>
#include <openssl/types.h>

/* Over a connected socket, for a server that must prove to be `host` (a name or an address). Owned by the
 * caller, who drives it. Null with the reason for control_tls_reason(). */
SSL *control_tls_new(int fd, const char *host);

/* What SSL_read() or SSL_write() returned, as recv() and send() say it; EAGAIN: wait for *ret_waits, which
 * poll() understands. */
ssize_t control_tls_result(SSL *ssl, int n, short *ret_waits);

/* Says what went wrong last; `ssl` may be null. */
void control_tls_reason(const SSL *ssl, char *buf, size_t size);

#endif
