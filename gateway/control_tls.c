/* TLS for client commands: a context of their own, verified always. */
#include "control_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static int
expect_name(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	unsigned char bytes[16];

	if (inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1 ? 0 : -1;
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (X509_VERIFY_PARAM_set1_host(param, host, 0) != 1)
		return -1;
	return SSL_set_tlsext_host_name(ssl, host) == 1 ? 0 : -1;
}

static SSL_CTX *
make_context(void)
{
	const char *authorities = getenv("TAILRACE_CA");
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	int read;

	if (ctx == NULL)
		return NULL;
	if (authorities != NULL && *authorities != '\0')
		read = SSL_CTX_load_verify_file(ctx, authorities);
	else
		read = SSL_CTX_set_default_verify_paths(ctx);
	if (read != 1 || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF); /* answers have a length */
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	return ctx;
}

SSL *
control_tls_new(int fd, const char *host)
{
	SSL_CTX *ctx = make_context();
	SSL *ssl = ctx != NULL ? SSL_new(ctx) : NULL;

	SSL_CTX_free(ctx); /* the connection holds its own reference */
	if (ssl == NULL || expect_name(ssl, host) != 0 || SSL_set_fd(ssl, fd) != 1) {
		SSL_free(ssl);
		return NULL;
	}
	signal(SIGPIPE, SIG_IGN); /* OpenSSL writes by write() */
	SSL_set_connect_state(ssl);
	return ssl;
}

ssize_t
control_tls_result(SSL *ssl, int n, short *ret_waits)
{
	if (n > 0)
		return n;
	switch (SSL_get_error(ssl, n)) {
	case SSL_ERROR_WANT_READ:
		*ret_waits = POLLIN;
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_WANT_WRITE:
		*ret_waits = POLLOUT;
		errno = EAGAIN;
		return -1;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		errno = EPROTO;
		return -1;
	}
}

void
control_tls_reason(const SSL *ssl, char *buf, size_t size)
{
	unsigned long code = ERR_peek_error();
	long verified = ssl != NULL ? SSL_get_verify_result(ssl) : X509_V_OK;
	const char *text = code != 0 ? ERR_reason_error_string(code) : NULL;

	if (verified != X509_V_OK)
		text = X509_verify_cert_error_string(verified);
	snprintf(buf, size, "%s", text != NULL ? text : "the connection was closed");
	ERR_clear_error();
}
