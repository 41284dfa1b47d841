/* Contexts of upstreams, and a session kept per server. */
#include "proxy/tls_client.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "base/log.h"
#include "base/xmem.h"
#include "proxy/tls_settings.h"

/* One server as its connections know it. */
struct target {
	const char *name; /* borrowed; null = none to ask for */
	bool is_address;
	pthread_mutex_t lock;
	SSL_SESSION *session; /* under `lock`, in no connection's hands; null = none yet */
};

struct tls_client {
	SSL_CTX *ctx;
	struct target *targets;
	size_t count;
};

/* Each connection of TLS 1.3 may bring several: the newest is kept. A copy, as what a connection is
 * given is one: connections write into theirs, and may be of several threads. */
static int
on_session(SSL *ssl, SSL_SESSION *session)
{
	struct target *target = SSL_get_app_data(ssl);
	SSL_SESSION *before, *copy = SSL_SESSION_dup(session);

	if (!copy)
		return 0;
	pthread_mutex_lock(&target->lock);
	before = target->session;
	target->session = copy;
	pthread_mutex_unlock(&target->lock);
	SSL_SESSION_free(before);
	return 0; /* the reference stays the connection's */
}

static SSL_CTX *
make_context(const struct config_upstream_tls *config)
{
	static const unsigned char protocols[] = "\x08http/1.1";
	SSL_CTX *ctx = tls_settings_context(false);
	int read = 1;

	if (!ctx)
		return NULL;
	if (config->verify && config->ca_file)
		read = SSL_CTX_load_verify_file(ctx, config->ca_file);
	else if (config->verify)
		read = SSL_CTX_set_default_verify_paths(ctx);
	if (read != 1 || SSL_CTX_set_alpn_protos(ctx, protocols, sizeof protocols - 1) != 0) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_verify(ctx, config->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(ctx, on_session);
	return ctx;
}

static bool
is_address(const char *name)
{
	unsigned char bytes[16];

	return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

struct tls_client *
tls_client_open(const struct config_upstream *upstream)
{
	struct tls_client *client = xcalloc(1, sizeof *client);
	char place[128];

	ERR_clear_error();
	client->ctx = make_context(&upstream->tls);
	if (!client->ctx) {
		snprintf(place, sizeof place, "upstream %s", upstream->name);
		tls_settings_log(place, upstream->tls.ca_file ? upstream->tls.ca_file
		                                              : "the system's authorities");
		free(client);
		return NULL;
	}
	client->count = upstream->server_count;
	client->targets = xcalloc(client->count, sizeof *client->targets);
	for (size_t i = 0; i < client->count; i++) {
		struct target *target = &client->targets[i];

		target->name = upstream->servers[i].tls_name;
		target->is_address = target->name && is_address(target->name);
		pthread_mutex_init(&target->lock, NULL);
	}
	return client;
}

void
tls_client_close(struct tls_client *client)
{
	if (!client)
		return;
	for (size_t i = 0; i < client->count; i++) {
		SSL_SESSION_free(client->targets[i].session);
		pthread_mutex_destroy(&client->targets[i].lock);
	}
	free(client->targets);
	SSL_CTX_free(client->ctx);
	free(client);
}

static void
offer_session(SSL *ssl, struct target *target)
{
	SSL_SESSION *session = NULL;

	pthread_mutex_lock(&target->lock);
	if (target->session && SSL_SESSION_is_resumable(target->session))
		session = SSL_SESSION_dup(target->session);
	pthread_mutex_unlock(&target->lock);
	if (session)
		SSL_set_session(ssl, session);
	SSL_SESSION_free(session);
}

/* An address is looked for among the certificate's addresses and never asked for (RFC 6066 3). */
static int
expect_name(SSL *ssl, const struct target *target)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);

	if (!target->name)
		return 0;
	if (target->is_address)
		return X509_VERIFY_PARAM_set1_ip_asc(param, target->name) == 1 ? 0 : -1;
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (X509_VERIFY_PARAM_set1_host(param, target->name, 0) != 1)
		return -1;
	return SSL_set_tlsext_host_name(ssl, target->name) == 1 ? 0 : -1;
}

SSL *
tls_client_connection(struct tls_client *client, size_t index)
{
	struct target *target = &client->targets[index];
	SSL *ssl = SSL_new(client->ctx);

	if (!ssl)
		return NULL;
	if (expect_name(ssl, target) != 0) {
		SSL_free(ssl);
		ERR_clear_error();
		return NULL;
	}
	SSL_set_app_data(ssl, target);
	SSL_set_connect_state(ssl);
	offer_session(ssl, target);
	return ssl;
}
