/* The user's own pages for local answers (config: error_pages). Read once per process, before rights are dropped; then
 * read only, by any thread. */
#ifndef TAILRACE_PROXY_ERROR_PAGES_H
#define TAILRACE_PROXY_ERROR_PAGES_H

#include <stddef.h>
#include "base/config.h"

struct error_page {
	const char *bytes, *type; /* content and its Content-Type */
	size_t length;
};

/* Reads all files. One that cannot be read now is said and left out: the built-in answer stands. */
void error_pages_load(const struct config *config);
void error_pages_free(void);

/* The page for a status, of its own before that of its class; or null. */
const struct error_page *error_page_for(int status);

#endif
