/* Certificates, keys and authorities in PEM files: whether they can be used, said in one sentence.
 * Blocking. Nothing read here is kept. */
#ifndef TAILRACE_BASE_PEM_H
#define TAILRACE_BASE_PEM_H

#include <stddef.h>

#define PEM_FAULT_SIZE 256

/* The certificate's own dates and form. Returns 0, or -1 with `fault` filled. */
int pem_check_certificate(const char *path, char fault[PEM_FAULT_SIZE]);

/* Whether the key can be read without a password and is that of the certificate (which must be
 * good). */
int pem_check_key(const char *path, const char *certificate_path, char fault[PEM_FAULT_SIZE]);

/* Whether the file holds authorities. */
int pem_check_authorities(const char *path, char fault[PEM_FAULT_SIZE]);

#endif
