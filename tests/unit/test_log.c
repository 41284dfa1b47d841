/* log: one line per event, control bytes escaped, levels kept, long texts cut and still one
 * line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log.h"

#define OUTPUT_SIZE 16384

static int saved_stderr, pipe_fds[2];

static int
capture(void **state)
{
	(void)state;
	saved_stderr = dup(STDERR_FILENO);
	if (pipe(pipe_fds) == -1)
		return -1;
	dup2(pipe_fds[1], STDERR_FILENO);
	close(pipe_fds[1]);
	log_init("tester", LOG_LEVEL_INFO);
	return 0;
}

static int
restore(void **state)
{
	(void)state;
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(pipe_fds[0]);
	return 0;
}

/* What was written so far; ends the capture. */
static const char *
output(void)
{
	static char buf[OUTPUT_SIZE];
	ssize_t n, length = 0;

	dup2(saved_stderr, STDERR_FILENO);
	while ((n = read(pipe_fds[0], buf + length, sizeof(buf) - 1 - (size_t)length)) > 0)
		length += n;
	buf[length] = '\0';
	return buf;
}

static size_t
lines_of(const char *text)
{
	size_t n = 0;

	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static void
test_line(void **state)
{
	const char *text;

	(void)state;
	errno = EXDEV;
	log_warn("%d things", 3);
	assert_int_equal(errno, EXDEV);
	text = output();
	assert_non_null(strstr(text, "Z warn tester["));
	assert_non_null(strstr(text, "]: 3 things\n"));
}

static void
test_levels(void **state)
{
	const char *text;

	(void)state;
	log_debug("unseen");
	log_init("tester", LOG_LEVEL_ERROR);
	log_info("unseen");
	log_error("seen");
	text = output();
	assert_null(strstr(text, "unseen"));
	assert_int_equal(lines_of(text), 1);
}

static void
test_control_bytes_cannot_forge(void **state)
{
	const char *text;

	(void)state;
	log_info("%s", "a\nb\x1b[2J\x7f\r\xc3\xa9");
	text = output();
	assert_int_equal(lines_of(text), 1);
	assert_non_null(strstr(text, "a\\x0ab\\x1b[2J\\x7f\\x0d\xc3\xa9\n"));
}

static void
test_long_text_is_cut(void **state)
{
	char *text = malloc(OUTPUT_SIZE);
	const char *seen;

	(void)state;
	memset(text, '\n', OUTPUT_SIZE - 1);
	text[OUTPUT_SIZE - 1] = '\0';
	log_info("%s", text);
	log_info("next");
	free(text);
	seen = output();
	assert_int_equal(lines_of(seen), 2);
	assert_non_null(strstr(seen, "]: next\n"));
	assert_true(strlen(seen) < 5000);
}

static void
test_parse(void **state)
{
	(void)state;
	assert_int_equal(log_level_parse("error"), LOG_LEVEL_ERROR);
	assert_int_equal(log_level_parse("debug"), LOG_LEVEL_DEBUG);
	assert_int_equal(log_level_parse("Debug"), -1);
	assert_int_equal(log_level_parse(""), -1);
}

static void
test_fatal_ends_with_one(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	if (pid == 0)
		fatal("the end");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 1);
	assert_non_null(strstr(output(), " error tester["));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_line, capture, restore),
	    cmocka_unit_test_setup_teardown(test_levels, capture, restore),
	    cmocka_unit_test_setup_teardown(test_control_bytes_cannot_forge, capture, restore),
	    cmocka_unit_test_setup_teardown(test_long_text_is_cut, capture, restore),
	    cmocka_unit_test(test_parse),
	    cmocka_unit_test_setup_teardown(test_fatal_ends_with_one, capture, restore),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
