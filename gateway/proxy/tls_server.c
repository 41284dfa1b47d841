/* Contexts of a listener: one per set of names. Certificates for the same names and with different
 * kinds of keys (RSA and ECDSA) share one, and OpenSSL takes what the client can check. */
#include "proxy/tls_server.h"

#include <ctype.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "base/log.h"
#include "base/pem.h"
#include "base/xmem.h"
#include "proxy/tls_settings.h"

#define NAMES_MAX 1024 /* of one certificate */

struct names {
	char **list; /* owned, lower case, sorted */
	size_t count;
};

struct served {
	SSL_CTX *ctx;
	struct names names;
	int key_types[4]; /* EVP_PKEY_* that it has; 0 = free */
};

struct tls_server {
	_Atomic unsigned owners;
	const struct ticket_keys *tickets; /* null = none are given */
	struct served *served;             /* the first is for all names nobody else has */
	size_t count;
};

/* --- names -------------------------------------------------------------------------------- */

static void
names_add(struct names *names, const ASN1_STRING *value)
{
	const char *bytes = (const char *)ASN1_STRING_get0_data(value);
	size_t length = (size_t)ASN1_STRING_length(value);
	char *name;

	if (names->count == NAMES_MAX || length == 0 || memchr(bytes, '\0', length))
		return;
	name = xstrndup(bytes, length);
	for (char *p = name; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	names->list = xrealloc(names->list, names->count + 1, sizeof *names->list);
	names->list[names->count++] = name;
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Its DNS names; the common name where it has none (RFC 6125 6.4.4). */
static struct names
names_of(X509 *certificate)
{
	struct names names = {0};
	GENERAL_NAMES *all = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	X509_NAME *subject = X509_get_subject_name(certificate);
	int at;

	for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);

		if (name->type == GEN_DNS)
			names_add(&names, name->d.dNSName);
	}
	GENERAL_NAMES_free(all);
	at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (names.count == 0 && at >= 0)
		names_add(&names, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (names.count > 0)
		qsort(names.list, names.count, sizeof *names.list, by_text);
	return names;
}

static void
names_clear(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->list[i]);
	free(names->list);
	*names = (struct names){0};
}

static bool
names_equal(const struct names *a, const struct names *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (strcmp(a->list[i], b->list[i]) != 0)
			return false;
	return true;
}

static const struct served *
find_name(const struct tls_server *server, const char *name)
{
	for (size_t i = 0; i < server->count; i++)
		for (size_t j = 0; j < server->served[i].names.count; j++)
			if (strcasecmp(server->served[i].names.list[j], name) == 0)
				return &server->served[i];
	return NULL;
}

/* The exact name, else the wildcard of its parent ("*.example" stands for one label), else null. */
static const struct served *
choose(const struct tls_server *server, const char *name)
{
	const struct served *found = find_name(server, name);
	const char *dot = strchr(name, '.');
	char wildcard[256];

	if (found || !dot || strlen(dot) >= sizeof wildcard - 1 || name[0] == '*')
		return found;
	wildcard[0] = '*';
	memcpy(wildcard + 1, dot, strlen(dot) + 1);
	return find_name(server, wildcard);
}

/* --- what OpenSSL asks within a handshake -------------------------------------------------- */

static int
on_server_name(SSL *ssl, int *alert, void *arg)
{
	const struct tls_server *server = arg;
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	const struct served *chosen = name ? choose(server, name) : NULL;

	(void)alert;
	if (!chosen)
		return SSL_TLSEXT_ERR_NOACK; /* the first certificate it is */
	SSL_set_SSL_CTX(ssl, chosen->ctx);
	return SSL_TLSEXT_ERR_OK;
}

/* Who speaks only other protocols (h2) is told so (RFC 7301 3.2). */
static int
on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
        unsigned in_length, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";
	unsigned char *chosen;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, out_length, ours, sizeof ours - 1, in, in_length) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static int
use_key(const struct ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher,
        EVP_MAC_CTX *mac, int sealing)
{
	static char digest[] = "SHA256";
	uint8_t secret[sizeof key->mac];
	OSSL_PARAM params[3];
	int done;

	memcpy(secret, key->mac, sizeof secret);
	params[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, secret, sizeof secret);
	params[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
	params[2] = OSSL_PARAM_construct_end();
	done = EVP_MAC_CTX_set_params(mac, params) == 1 &&
	       EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv, sealing) == 1;
	OPENSSL_cleanse(secret, sizeof secret);
	return done ? 1 : -1;
}

/* 1: good, 2: good, but give a new one, 0: a full handshake, -1: fault. */
static int
with_keys(const struct ticket_key *keys, unsigned char *name, unsigned char *iv,
          EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int sealing)
{
	if (sealing) {
		if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1)
			return -1;
		memcpy(name, keys[0].name, sizeof keys[0].name);
		return use_key(&keys[0], iv, cipher, mac, 1);
	}
	for (int i = 0; i < TICKET_KEYS; i++) {
		if (memcmp(name, keys[i].name, sizeof keys[i].name) != 0)
			continue;
		if (use_key(&keys[i], iv, cipher, mac, 0) != 1)
			return -1;
		return i == 0 ? 1 : 2;
	}
	return 0;
}

static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
          EVP_MAC_CTX *mac, int sealing)
{
	const struct tls_server *server = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	struct ticket_key keys[TICKET_KEYS];
	int answer;

	if (ticket_keys_read(server->tickets, keys) != 0)
		return 0;
	answer = with_keys(keys, name, iv, cipher, mac, sealing);
	OPENSSL_cleanse(keys, sizeof keys);
	/* Clients use a ticket once (RFC 8446 appendix C.4): without a new one each second
	 * connection would be a full handshake. OpenSSL renews only those of its own keys. */
	return answer == 1 && !sealing && SSL_version(ssl) == TLS1_3_VERSION ? 2 : answer;
}

/* --- making a context ------------------------------------------------------------------------ */

/* Clients must show a certificate. What a session was granted under other authorities is worth
 * nothing here: they are part of its context. */
static int
demand_certificates(SSL_CTX *ctx, const char *path)
{
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);

	if (!names)
		return -1;
	SSL_CTX_set_client_CA_list(ctx, names);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return SSL_CTX_load_verify_file(ctx, path) == 1 ? 0 : -1;
}

static int
digest_authorities(const char *path, unsigned char digest[EVP_MAX_MD_SIZE])
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	BIO *bio = path ? BIO_new_file(path, "r") : NULL;
	char bytes[4096];
	int n = 0;
	bool good = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && (!path || bio);

	while (good && bio && (n = BIO_read(bio, bytes, sizeof bytes)) > 0)
		good = EVP_DigestUpdate(md, bytes, (size_t)n) == 1;
	good = good && EVP_DigestFinal_ex(md, digest, NULL) == 1;
	BIO_free(bio);
	EVP_MD_CTX_free(md);
	return good ? 0 : -1;
}

static int
set_sessions(SSL_CTX *ctx, const struct tls_server *server, const struct config_tls *config)
{
	unsigned char digest[EVP_MAX_MD_SIZE];

	SSL_CTX_set_timeout(ctx, TICKET_LIFETIME_S);
	if (server->tickets)
		SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
	else
		SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	if (!server->tickets && SSL_CTX_set_num_tickets(ctx, 0) != 1)
		return -1;
	if (digest_authorities(config->client_ca_file, digest) != 0)
		return -1;
	return SSL_CTX_set_session_id_context(ctx, digest, 32) == 1 ? 0 : -1;
}

static SSL_CTX *
make_context(struct tls_server *server, const struct config_tls *config, const char *place)
{
	SSL_CTX *ctx = tls_settings_context(true);

	if (!ctx || set_sessions(ctx, server, config) != 0) {
		tls_settings_log(place, "TLS cannot be set up");
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_app_data(ctx, server);
	SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
	SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
	SSL_CTX_set_tlsext_servername_arg(ctx, server);
	if (config->client_ca_file && demand_certificates(ctx, config->client_ca_file) != 0) {
		tls_settings_log(place, config->client_ca_file);
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

static X509 *
read_leaf(const char *path)
{
	BIO *bio = BIO_new_file(path, "r");
	X509 *leaf = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return leaf;
}

/* Room for a kind of key that is not there yet, or null. */
static int *
key_place(struct served *served, int type)
{
	for (size_t i = 0; i < sizeof served->key_types / sizeof served->key_types[0]; i++) {
		if (served->key_types[i] == type)
			return NULL;
		if (served->key_types[i] == 0)
			return &served->key_types[i];
	}
	return NULL;
}

/* Where a certificate for these names belongs: beside its like with another kind of key, else
 * apart. Takes `names`. Null where no context can be made (logged). */
static struct served *
served_for(struct tls_server *server, struct names *names, int key_type,
           const struct config_tls *config, const char *place)
{
	struct served *served;

	for (size_t i = 0; i < server->count; i++) {
		served = &server->served[i];
		if (names_equal(&served->names, names) && key_place(served, key_type)) {
			names_clear(names);
			*key_place(served, key_type) = key_type;
			return served;
		}
	}
	served = &server->served[server->count];
	served->ctx = make_context(server, config, place);
	if (!served->ctx) {
		names_clear(names);
		return NULL;
	}
	served->names = *names;
	served->key_types[0] = key_type;
	server->count++;
	return served;
}

static int
load_files(SSL_CTX *ctx, const struct config_certificate *files, const char *place)
{
	const char *at = files->certificate_file;

	if (SSL_CTX_use_certificate_chain_file(ctx, at) == 1) {
		at = files->key_file;
		if (SSL_CTX_use_PrivateKey_file(ctx, at, SSL_FILETYPE_PEM) == 1 &&
		    SSL_CTX_check_private_key(ctx) == 1)
			return 0;
	}
	tls_settings_log(place, at);
	return -1;
}

static int
add_certificate(struct tls_server *server, const struct config_certificate *files,
                const struct config_tls *config, const char *place)
{
	char fault[PEM_FAULT_SIZE];
	X509 *leaf = read_leaf(files->certificate_file);
	struct served *served;
	struct names names;
	int key_type;

	if (!leaf) {
		tls_settings_log(place, files->certificate_file);
		return -1;
	}
	if (pem_check_certificate(files->certificate_file, fault) != 0)
		log_warn("%s: %s: %s", place, files->certificate_file, fault);
	names = names_of(leaf);
	key_type = EVP_PKEY_get_base_id(X509_get0_pubkey(leaf));
	X509_free(leaf);
	served = served_for(server, &names, key_type, config, place);
	return served ? load_files(served->ctx, files, place) : -1;
}

struct tls_server *
tls_server_open(const struct config_tls *config, const struct ticket_keys *tickets,
                const char *place)
{
	struct tls_server *server = xcalloc(1, sizeof *server);

	ERR_clear_error();
	server->owners = 1;
	server->tickets = tickets;
	server->served = xcalloc(config->certificate_count, sizeof *server->served);
	for (size_t i = 0; i < config->certificate_count; i++) {
		if (add_certificate(server, &config->certificates[i], config, place) != 0) {
			tls_server_close(server);
			return NULL;
		}
	}
	return server;
}

struct tls_server *
tls_server_share(struct tls_server *server)
{
	if (server)
		atomic_fetch_add(&server->owners, 1);
	return server;
}

void
tls_server_close(struct tls_server *server)
{
	if (!server || atomic_fetch_sub(&server->owners, 1) != 1)
		return;
	for (size_t i = 0; i < server->count; i++) {
		SSL_CTX_free(server->served[i].ctx);
		names_clear(&server->served[i].names);
	}
	free(server->served);
	free(server);
}

SSL *
tls_server_connection(const struct tls_server *server)
{
	SSL *ssl = SSL_new(server->served[0].ctx);

	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}
