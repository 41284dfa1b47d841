/* OpenSSL's reasons, sorted into ours. */
#include "proxy/tls_reason.h"

#include <string.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

static enum close_reason
of_client(int reason)
{
	switch (reason) {
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
		return CLOSE_TLS_PLAIN_HTTP;
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_VERSION_TOO_HIGH:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_UNKNOWN_PROTOCOL:
	case SSL_R_INAPPROPRIATE_FALLBACK:
		return CLOSE_TLS_VERSION;
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_SHARED_GROUPS:
	case SSL_R_NO_SUITABLE_GROUPS:
	case SSL_R_NO_SUITABLE_KEY_SHARE:
	case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_NO_CIPHERS_SPECIFIED:
		return CLOSE_TLS_NOTHING_SHARED;
	case SSL_R_NO_APPLICATION_PROTOCOL:
		return CLOSE_TLS_PROTOCOL;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return CLOSE_TLS_CERTIFICATE_MISSING;
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return CLOSE_TLS_CERTIFICATE_REFUSED;
	default:
		return reason >= SSL_AD_REASON_OFFSET ? CLOSE_TLS_ALERT : CLOSE_TLS_FAILED;
	}
}

static const char *
text_of(unsigned long code, const SSL *ssl, const struct tls_wire *wire)
{
	const char *text = code ? ERR_reason_error_string(code) : NULL;

	if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
	    ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		return X509_verify_cert_error_string(SSL_get_verify_result(ssl));
	if (text)
		return text;
	if (wire->eof)
		return "closed within the handshake";
	return wire->error ? strerror(wire->error) : "unknown reason";
}

enum close_reason
tls_reason(const SSL *ssl, const struct tls_wire *wire, const char **ret_text)
{
	unsigned long code = ERR_peek_error();
	int reason = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
	bool cut = code == 0 || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING;

	*ret_text = text_of(code, ssl, wire);
	if (!SSL_is_server(ssl)) {
		if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
			return CLOSE_UPSTREAM_CERTIFICATE;
		return CLOSE_UPSTREAM_TLS_FAILED;
	}
	if (wire->is_http)
		return CLOSE_TLS_PLAIN_HTTP;
	return cut ? CLOSE_TLS_CUT : of_client(reason);
}
