/* Mozilla's "intermediate": ciphers of TLS 1.2 with forward secrecy and authentication, the
 * client's order (all are good, and a client knows what it does fast). Its DHE suites are left out:
 * no client that still lives needs them. */
#include "proxy/tls_settings.h"

#include <string.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include "base/log.h"

static const char ciphers_12[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char ciphers_13[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char groups[] = "X25519:P-256:P-384";

/* A key with a password cannot be used: nobody is asked for it. */
static int
no_password(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return -1;
}

SSL_CTX *
tls_settings_context(bool serving)
{
	SSL_CTX *ctx = SSL_CTX_new(serving ? TLS_server_method() : TLS_client_method());

	if (!ctx)
		return NULL;
	SSL_CTX_set_security_level(ctx, serving ? 2 : 1);
	if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
	    SSL_CTX_set_max_proto_version(ctx, 0) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, ciphers_13) != 1 ||
	    (serving && SSL_CTX_set_cipher_list(ctx, ciphers_12) != 1) ||
	    (serving && SSL_CTX_set1_groups_list(ctx, groups) != 1)) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_clear_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE |
	                               SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION |
	                               SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	/* Moving: what waits in a queue is gathered anew at each try. Release: an idle connection
	 * holds no buffers. Read-ahead: a record's head and body by one system call. */
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
	                          SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ctx, 1);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	return ctx;
}

void
tls_settings_log(const char *place, const char *what)
{
	unsigned long code = ERR_peek_error();
	const char *reason = ERR_GET_LIB(code) == ERR_LIB_SYS ? strerror(ERR_GET_REASON(code))
	                                                      : ERR_reason_error_string(code);

	log_error("%s: %s: %s", place, what, reason ? reason : "unknown reason");
	ERR_clear_error();
}
