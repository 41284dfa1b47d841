/* Looks at PEM files before anything depends on them. */
#include "base/pem.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

static int
failed(char *fault, const char *text)
{
	snprintf(fault, PEM_FAULT_SIZE, "%s", text);
	ERR_clear_error();
	return -1;
}

static BIO *
open_file(const char *path, char *fault)
{
	FILE *file = fopen(path, "re");
	BIO *bio;

	if (file == NULL) {
		failed(fault, strerror(errno));
		return NULL;
	}
	bio = BIO_new_fp(file, BIO_CLOSE);
	if (bio == NULL) {
		fclose(file);
		failed(fault, "out of memory");
	}
	return bio;
}

/* A key with a password is refused instead of asked for. */
static int
no_password(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	*(bool *)arg = true;
	return -1;
}

/* The first certificate of the file, owned by the caller. */
static X509 *
read_certificate(const char *path, char *fault)
{
	BIO *bio = open_file(path, fault);
	X509 *certificate;

	if (bio == NULL)
		return NULL;
	certificate = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
	BIO_free(bio);
	if (certificate == NULL)
		failed(fault, "holds no certificate in PEM");
	return certificate;
}

static int
check_dates(const X509 *certificate, char *fault)
{
	char when[64] = "?", text[PEM_FAULT_SIZE];
	const ASN1_TIME *from = X509_get0_notBefore(certificate);
	const ASN1_TIME *to = X509_get0_notAfter(certificate);
	bool early = X509_cmp_current_time(from) > 0, late = X509_cmp_current_time(to) < 0;
	BIO *bio;
	int n;

	if (!early && !late)
		return 0;
	bio = BIO_new(BIO_s_mem());
	if (bio != NULL && ASN1_TIME_print(bio, early ? from : to) == 1) {
		n = BIO_read(bio, when, sizeof(when) - 1);
		when[n > 0 ? n : 0] = '\0';
	}
	BIO_free(bio);
	snprintf(text, sizeof(text), "the certificate %s %s", early ? "holds only from" : "expired",
	         when);
	return failed(fault, text);
}

int
pem_check_certificate(const char *path, char fault[PEM_FAULT_SIZE])
{
	X509 *certificate = read_certificate(path, fault);
	int status;

	if (certificate == NULL)
		return -1;
	status = check_dates(certificate, fault);
	X509_free(certificate);
	return status;
}

static EVP_PKEY *
read_key(const char *path, char *fault)
{
	BIO *bio = open_file(path, fault);
	bool encrypted = false;
	EVP_PKEY *key;

	if (bio == NULL)
		return NULL;
	key = PEM_read_bio_PrivateKey(bio, NULL, no_password, &encrypted);
	BIO_free(bio);
	if (key == NULL)
		failed(fault, encrypted ? "the key is encrypted: nobody is there to type its "
		                          "password"
		                        : "holds no private key in PEM");
	return key;
}

int
pem_check_key(const char *path, const char *certificate_path, char fault[PEM_FAULT_SIZE])
{
	X509 *certificate = read_certificate(certificate_path, fault);
	EVP_PKEY *key;
	int status = 0;

	if (certificate == NULL)
		return -1;
	key = read_key(path, fault);
	if (key == NULL)
		status = -1;
	else if (X509_check_private_key(certificate, key) != 1)
		status = failed(fault, "the key is not that of certificate_file");
	EVP_PKEY_free(key);
	X509_free(certificate);
	return status;
}

int
pem_check_authorities(const char *path, char fault[PEM_FAULT_SIZE])
{
	X509 *first = read_certificate(path, fault);

	if (first == NULL)
		return -1;
	X509_free(first);
	return 0;
}
