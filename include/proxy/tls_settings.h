/* What every TLS context here has in common: versions, ciphers, curves, modes (Mozilla's
 * intermediate profile 5.7 for what we serve). */
#ifndef TAILRACE_PROXY_TLS_SETTINGS_H
#define TAILRACE_PROXY_TLS_SETTINGS_H

#include <stdbool.h>
#include <openssl/types.h>

/* A context for serving, or for being a client. Null with the reason in OpenSSL's queue. */
SSL_CTX *tls_settings_context(bool serving);

/* Logs "place: what: reason" from OpenSSL's queue, and empties it. */
void tls_settings_log(const char *place, const char *what);

#endif
