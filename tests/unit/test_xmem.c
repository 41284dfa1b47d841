/* xmem: zeroed memory, and failures that come exactly where a test wants them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/xmem.h"

static void
test_memory_is_zeroed(void **state)
{
	unsigned char *p = xcalloc(100, 3);

	(void)state;
	for (size_t i = 0; i < 300; i++)
		assert_int_equal(p[i], 0);
	free(p);
}

static void
test_texts_are_copies(void **state)
{
	char *copy = xstrdup("text"), *cut = xstrndup("text", 2);

	(void)state;
	assert_string_equal(copy, "text");
	assert_string_equal(cut, "te");
	cut = xrealloc(cut, 100, 1);
	assert_string_equal(cut, "te");
	free(copy);
	free(cut);
}

/* Whether the nth of `n` attempts fails, as a bit each. */
static unsigned
failures(unsigned n)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < n; i++) {
		void *p = xmem_try(10);

		bits |= (p == NULL) << i;
		free(p);
	}
	return bits;
}

static void
test_failure_once(void **state)
{
	(void)state;
	assert_int_equal(failures(8), 0);
	xmem_fail_after(3, 0);
	assert_int_equal(failures(8), 0x04);
}

static void
test_failure_stays(void **state)
{
	(void)state;
	xmem_fail_after(3, 1);
	assert_int_equal(failures(8), 0xfc);
	xmem_fail_after(0, 0);
	assert_int_equal(failures(8), 0);
}

/* n * size beyond the address space must end the process, never give a small block. */
static void
test_overflow_is_fatal(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (pid == 0) {
		volatile size_t huge = SIZE_MAX / 2;

		close(STDERR_FILENO);
		free(xrealloc(NULL, huge, 4));
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_memory_is_zeroed),  cmocka_unit_test(test_texts_are_copies),
	    cmocka_unit_test(test_failure_once),      cmocka_unit_test(test_failure_stays),
	    cmocka_unit_test(test_overflow_is_fatal),
	};

	return cmocka_run_group_tests_name("xmem", tests, NULL, NULL);
}
