/* Allocation that cannot return null: small control objects die on exhaustion (a supervisor
 * restarts the process); request-sized memory is bounded beforehand and uses xmem_try(), whose
 * failure the caller answers. Tests inject failures. Any thread. */
#ifndef TAILRACE_BASE_XMEM_H
#define TAILRACE_BASE_XMEM_H

#include <stddef.h>
#include <stdint.h>

/* Zeroed memory, owned by the caller, freed with free(). Overflow of n * size is fatal. */
void *xcalloc(size_t n, size_t size) __attribute__((malloc, warn_unused_result));
void *xrealloc(void *p, size_t n, size_t size) __attribute__((warn_unused_result));
char *xstrdup(const char *s) __attribute__((malloc, warn_unused_result));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, warn_unused_result));

/* As malloc(): null when memory is short, or when a test asked for it. */
void *xmem_try(size_t size) __attribute__((malloc, warn_unused_result));

/* Tests only: the `nth` xmem_try() from now returns null, and every one after it where `sticky`.
 * 0 turns injection off. */
void xmem_fail_after(uint64_t nth, int sticky);

#endif
