/* Allocation that cannot return null, and the one that may, with injected failures for tests. */
#include "base/xmem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

static _Atomic uint64_t fail_countdown; /* 0 = off, 1 = the next one fails */
static _Atomic int fail_sticky;

void *
xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (p == NULL)
		fatal("out of memory (%zu times %zu bytes)", n, size);
	return p;
}

void *
xrealloc(void *p, size_t n, size_t size)
{
	size_t bytes;
	void *grown = NULL;

	/* Checked here: a sanitizer's reallocarray() would end the process its own way. */
	if (!__builtin_mul_overflow(n ? n : 1, size ? size : 1, &bytes))
		grown = realloc(p, bytes);
	if (grown == NULL)
		fatal("out of memory (%zu times %zu bytes)", n, size);
	return grown;
}

char *
xstrdup(const char *s)
{
	return xstrndup(s, strlen(s));
}

char *
xstrndup(const char *s, size_t n)
{
	char *copy = strndup(s, n);

	if (copy == NULL)
		fatal("out of memory (a text of %zu bytes)", n);
	return copy;
}

/* Whether this call is the one a test chose. Off in production: one relaxed load. */
static int
injected_failure(void)
{
	uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);

	while (left != 0) {
		if (left == 1 && atomic_load_explicit(&fail_sticky, memory_order_relaxed))
			return 1;
		if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1))
			return left == 1;
	}
	return 0;
}

void *
xmem_try(size_t size)
{
	return injected_failure() ? NULL : malloc(size ? size : 1);
}

void
xmem_fail_after(uint64_t nth, int sticky)
{
	atomic_store(&fail_sticky, sticky);
	atomic_store(&fail_countdown, nth);
}
