/* Certificates by name, and tickets while their keys rotate, in handshakes through memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "base/log.h"
#include "base/ticket_keys.h"
#include "proxy/tls_server.h"

#define PATH_SIZE 64

/* A certificate for one name, signed by itself, in files of its own. */
struct pair {
	char certificate[PATH_SIZE], key[PATH_SIZE];
};

static FILE *
new_file(char path[PATH_SIZE])
{
	int fd;

	snprintf(path, PATH_SIZE, "/tmp/tailrace-test-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	return fdopen(fd, "w");
}

static X509 *
sign(EVP_PKEY *key, const char *name)
{
	X509 *x = X509_new();
	char names[128];
	X509_EXTENSION *extension;

	snprintf(names, sizeof names, "DNS:%s", name);
	extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
	assert_non_null(extension);
	X509_set_version(x, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -60);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_set_pubkey(x, key);
	assert_int_equal(X509_add_ext(x, extension, -1), 1);
	assert_true(X509_sign(x, key, EVP_sha256()) > 0);
	X509_EXTENSION_free(extension);
	return x;
}

static struct pair
make_pair(const char *name)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = sign(key, name);
	struct pair pair;
	FILE *file = new_file(pair.certificate);

	assert_int_equal(PEM_write_X509(file, x), 1);
	fclose(file);
	file = new_file(pair.key);
	assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
	X509_free(x);
	EVP_PKEY_free(key);
	return pair;
}

static void
drop_pair(struct pair *pair)
{
	unlink(pair->certificate);
	unlink(pair->key);
}

static struct tls_server *
serve(struct pair *pairs, size_t count, const struct ticket_keys *tickets)
{
	struct config_certificate certificates[8];
	struct config_tls config = {
	    .on = true, .certificates = certificates, .certificate_count = count};

	for (size_t i = 0; i < count; i++)
		certificates[i] = (struct config_certificate){pairs[i].certificate, pairs[i].key};
	return tls_server_open(&config, tickets, "test");
}

/* A client's newest session, as OpenSSL hands it out. */
static SSL_SESSION *newest;

static int
on_session(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	SSL_SESSION_free(newest);
	newest = session;
	return 1;
}

static SSL_CTX *
client_context(int version)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	SSL_CTX_set_min_proto_version(ctx, version);
	SSL_CTX_set_max_proto_version(ctx, version);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT);
	SSL_CTX_sess_set_new_cb(ctx, on_session);
	return ctx;
}

/* Carries what one side wrote to the other. */
static void
carry(SSL *from, SSL *to)
{
	char bytes[4096];
	int n;

	while ((n = BIO_read(SSL_get_wbio(from), bytes, sizeof bytes)) > 0)
		assert_int_equal(BIO_write(SSL_get_rbio(to), bytes, n), n);
}

/* One handshake. Returns whether `session` was gone on with; *ret_name (128 bytes) is that of the
 * certificate. */
static bool
visit(struct tls_server *server, SSL_CTX *ctx, SSL_SESSION *session, const char *asked,
      char *ret_name)
{
	SSL *client = SSL_new(ctx), *own = tls_server_connection(server);
	char byte;
	bool reused;

	SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_bio(own, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(client);
	if (asked)
		assert_int_equal(SSL_set_tlsext_host_name(client, asked), 1);
	if (session) { /* a copy: OpenSSL's client goes on with a session once */
		SSL_SESSION *copy = SSL_SESSION_dup(session);

		assert_int_equal(SSL_set_session(client, copy), 1);
		SSL_SESSION_free(copy);
	}
	for (int i = 0; i < 10; i++) {
		SSL_do_handshake(client);
		carry(client, own);
		SSL_do_handshake(own);
		carry(own, client);
	}
	assert_true(SSL_is_init_finished(client) && SSL_is_init_finished(own));
	SSL_read(client, &byte, 1);                /* takes the tickets of TLS 1.3 */
	if (SSL_version(client) == TLS1_2_VERSION) /* a renewed ticket is not told by callback */
		on_session(client, SSL_get1_session(client));
	reused = SSL_session_reused(client) == 1;
	assert_int_equal(SSL_session_reused(own), reused);
	if (ret_name) {
		X509 *x = SSL_get1_peer_certificate(client);
		GENERAL_NAMES *all = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
		const ASN1_STRING *value = sk_GENERAL_NAME_value(all, 0)->d.dNSName;

		snprintf(ret_name, 128, "%.*s", ASN1_STRING_length(value),
		         (const char *)ASN1_STRING_get0_data(value));
		GENERAL_NAMES_free(all);
		X509_free(x);
	}
	SSL_set_shutdown(client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_set_shutdown(own, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(client);
	SSL_free(own);
	return reused;
}

static SSL_SESSION *
take_session(void)
{
	SSL_SESSION *session = newest;

	assert_non_null(session);
	newest = NULL;
	return session;
}

/* A ticket lives as long as its key is kept, in every server that reads the same keys. */
static void
rotate(int version)
{
	struct ticket_keys keys = {0};
	struct pair pair = make_pair("a.example");
	struct tls_server *one, *other;
	SSL_CTX *ctx = client_context(version);
	SSL_SESSION *session;
	uint64_t now_ns = 0;

	ticket_keys_init(&keys, now_ns);
	one = serve(&pair, 1, &keys);
	other = serve(&pair, 1, &keys);
	assert_non_null(one);
	assert_non_null(other);
	assert_false(visit(one, ctx, NULL, NULL, NULL));
	session = take_session();
	assert_true(SSL_SESSION_get_timeout(session) <= TICKET_LIFETIME_S);
	assert_true(visit(other, ctx, session, NULL, NULL));
	for (int i = 1; i < TICKET_KEYS; i++) {
		ticket_keys_rotate(&keys, now_ns += TICKET_ROTATION_NS);
		assert_true(visit(one, ctx, session, NULL, NULL));
	}
	/* one of an old key is renewed: what came back is sealed with the newest */
	SSL_SESSION_free(session);
	session = take_session();
	ticket_keys_rotate(&keys, now_ns += TICKET_ROTATION_NS);
	assert_true(visit(other, ctx, session, NULL, NULL));
	for (int i = 1; i < TICKET_KEYS; i++)
		ticket_keys_rotate(&keys, now_ns += TICKET_ROTATION_NS);
	assert_false(visit(one, ctx, session, NULL, NULL));
	SSL_SESSION_free(session);
	SSL_SESSION_free(newest);
	newest = NULL;
	SSL_CTX_free(ctx);
	tls_server_close(one);
	tls_server_close(other);
	drop_pair(&pair);
}

static void
test_tickets_12(void **state)
{
	(void)state;
	rotate(TLS1_2_VERSION);
}

static void
test_tickets_13(void **state)
{
	(void)state;
	rotate(TLS1_3_VERSION);
}

/* Keys that cannot be had, or none wanted: full handshakes, and no ticket under a known key. */
static void
test_no_tickets(void **state)
{
	struct ticket_keys none = {0};
	const struct ticket_keys *const tickets[] = {&none, NULL};
	struct pair pair = make_pair("a.example");

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct tls_server *server = serve(&pair, 1, tickets[i]);
		SSL_CTX *ctx = client_context(TLS1_2_VERSION);

		assert_false(visit(server, ctx, NULL, NULL, NULL));
		assert_true(newest == NULL || !SSL_SESSION_has_ticket(newest));
		SSL_SESSION_free(newest);
		newest = NULL;
		SSL_CTX_free(ctx);
		tls_server_close(server);
	}
	drop_pair(&pair);
}

static void
test_names(void **state)
{
	static const char *const served[] = {"first.example", "*.wild.example", "one.wild.example"};
	static const char *const asked[][2] = {
	    {NULL, "first.example"},
	    {"first.example", "first.example"},
	    {"FIRST.example", "first.example"},
	    {"one.wild.example", "one.wild.example"},
	    {"two.wild.example", "*.wild.example"},
	    {"a.b.wild.example", "first.example"},
	    {"wild.example", "first.example"},
	    {"*.wild.example", "*.wild.example"},
	    {"other", "first.example"},
	};
	struct pair pairs[3];
	struct tls_server *server;
	SSL_CTX *ctx = client_context(TLS1_3_VERSION);
	char name[128];

	(void)state;
	for (size_t i = 0; i < 3; i++)
		pairs[i] = make_pair(served[i]);
	server = serve(pairs, 3, NULL);
	assert_non_null(server);
	for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
		visit(server, ctx, NULL, asked[i][0], name);
		assert_string_equal(name, asked[i][1]);
	}
	SSL_CTX_free(ctx);
	tls_server_close(server);
	for (size_t i = 0; i < 3; i++)
		drop_pair(&pairs[i]);
}

/* Shared by two, it is there until the second closes it. */
static void
test_owners(void **state)
{
	struct pair pair = make_pair("a.example");
	struct tls_server *server = serve(&pair, 1, NULL);
	SSL_CTX *ctx = client_context(TLS1_3_VERSION);

	(void)state;
	assert_ptr_equal(tls_server_share(server), server);
	tls_server_close(server);
	assert_false(visit(server, ctx, NULL, "a.example", NULL));
	tls_server_close(server);
	assert_null(tls_server_share(NULL));
	tls_server_close(NULL);
	SSL_CTX_free(ctx);
	drop_pair(&pair);
}

static void
test_files_that_do_not_fit(void **state)
{
	struct pair pairs[] = {make_pair("a.example"), make_pair("b.example")};
	struct pair mixed, missing = {"/nonexistent", "/nonexistent"};

	(void)state;
	memcpy(mixed.certificate, pairs[0].certificate, PATH_SIZE);
	memcpy(mixed.key, pairs[1].key, PATH_SIZE);
	assert_null(serve(&mixed, 1, NULL));
	assert_null(serve(&missing, 1, NULL));
	drop_pair(&pairs[0]);
	drop_pair(&pairs[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_tickets_12), cmocka_unit_test(test_tickets_13),
	    cmocka_unit_test(test_no_tickets), cmocka_unit_test(test_names),
	    cmocka_unit_test(test_owners),     cmocka_unit_test(test_files_that_do_not_fit),
	};

	log_init("test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
