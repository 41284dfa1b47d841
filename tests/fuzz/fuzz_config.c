/* Configurations: taken, or refused with at least one error. Names are not looked up. */
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include "base/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stands before libc's: no name of a mutated address goes out. */
int
getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
            struct addrinfo **ret)
{
	(void)host;
	(void)service;
	(void)hints;
	*ret = NULL;
	return EAI_NONAME;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_errors errs = {0};
	struct config *config = NULL;

	if (config_load_bytes("fuzz", (const char *)data, size, &config, &errs) == 0) {
		if (!config || errs.count != 0)
			abort();
		config_free(config);
	} else if (errs.count == 0) {
		abort();
	}
	config_errors_free(&errs);
	return 0;
}
