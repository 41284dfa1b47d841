/* Gives a failed handshake its name. */
#ifndef TAILRACE_PROXY_TLS_REASON_H
#define TAILRACE_PROXY_TLS_REASON_H

#include <openssl/types.h>
#include "model/close_reason.h"
#include "proxy/tls_bio.h"

/* Reads OpenSSL's error queue right after SSL_do_handshake() failed. *ret_text says it to people
 * (static, or OpenSSL's own). */
enum close_reason tls_reason(const SSL *ssl, const struct tls_wire *wire, const char **ret_text);

#endif
