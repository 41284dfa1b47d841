/* access_log: the queue at its bound and one past it, the file takes nothing, nobody waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "collector/access_log.h"

#define NAMES_SIZE (sizeof("route") + sizeof("upstream") + sizeof("server"))
#define ITEM_SIZE 8 /* two lengths before each record */

static const struct access_names names = {"route", "upstream", "server"};

/* A record with the longest texts. Owned. */
static struct exchange_record *
make(void)
{
	struct exchange_record *record = calloc(1, RECORD_SIZE_MAX);

	assert_non_null(record);
	record->method_length = RECORD_METHOD_MAX;
	record->path_length = RECORD_PATH_MAX;
	record->user_agent_length = RECORD_USER_AGENT_MAX;
	record->referer_length = RECORD_REFERER_MAX;
	record->died_in = PHASE_COUNT;
	memset(record + 1, 'x', RECORD_SIZE_MAX - sizeof(*record));
	return record;
}

static uint64_t
written(const struct access_log *log)
{
	struct access_log_stats stats;

	access_log_stats(log, &stats);
	return stats.written;
}

/* Nothing more goes into the pipe. */
static void
fill(int pipe_fd)
{
	char block[4096];

	memset(block, '\n', sizeof(block));
	while (write(pipe_fd, block, sizeof(block)) > 0)
		;
	while (write(pipe_fd, block, 1) > 0)
		;
}

static void
the_bound_and_one_past_it(void **state)
{
	char folder[] = "/tmp/tailrace-test-XXXXXX", path[64];
	struct exchange_record *record = make();
	size_t size = RECORD_SIZE_MAX, item = ITEM_SIZE + NAMES_SIZE + size;
	size_t fits = ACCESS_LOG_QUEUE_BYTES / item, lines = 0;
	struct access_log_stats stats;
	struct access_log *log;
	char block[65536];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/pipe", folder);
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDWR | O_NONBLOCK);
	log = access_log_start(path, CONFIG_ACCESS_JSON);
	assert_non_null(log);
	fill(fd);
	access_log_put(log, record, size, &names);
	/* The thread takes that one and hangs; what follows fills the other buffer. */
	usleep(500000);
	uint64_t start_ns = clock_now_ns();
	for (size_t i = 0; i < fits; i++)
		access_log_put(log, record, size, &names);
	access_log_stats(log, &stats);
	assert_int_equal(stats.dropped_full, 0);
	access_log_put(log, record, size, &names);
	access_log_stats(log, &stats);
	assert_int_equal(stats.dropped_full, 1);
	assert_true(clock_now_ns() - start_ns < 2 * NS_PER_S);
	/* Read again, everything that was not dropped arrives. */
	for (bool all = false, empty = false; !all || !empty;) {
		all = written(log) == 1 + fits;
		ssize_t n = read(fd, block, sizeof(block));
		empty = n <= 0;
		for (ssize_t i = 0; i < n; i++)
			lines += block[i] == '{';
		if (empty)
			usleep(1000);
	}
	access_log_stop(log);
	/* Two objects a line: itself and its phases. */
	assert_int_equal(lines, 2 * (1 + fits));
	close(fd);
	unlink(path);
	rmdir(folder);
	free(record);
}

static void
opened_again_by_its_name(void **state)
{
	char folder[] = "/tmp/tailrace-test-XXXXXX", path[64], old[64];
	struct exchange_record *record = make();
	struct access_log *log;
	struct stat before, after;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/log", folder);
	snprintf(old, sizeof(old), "%s/old", folder);
	log = access_log_start(path, CONFIG_ACCESS_COMBINED);
	access_log_put(log, record, RECORD_SIZE_MAX, &names);
	while (written(log) < 1)
		usleep(1000);
	assert_int_equal(rename(path, old), 0);
	access_log_reopen(log);
	while (stat(path, &after) == -1)
		usleep(1000);
	access_log_put(log, record, RECORD_SIZE_MAX, &names);
	access_log_put(log, record, RECORD_SIZE_MAX, &names);
	access_log_stop(log);
	assert_int_equal(stat(old, &before), 0);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_size, 2 * before.st_size);
	unlink(path);
	unlink(old);
	rmdir(folder);
	free(record);
}

static void
no_log_is_no_work(void **state)
{
	struct access_log_stats stats = {1, 1, 1};

	(void)state;
	assert_null(access_log_start("/proc/nowhere/log", CONFIG_ACCESS_JSON));
	access_log_put(NULL, NULL, 0, &names);
	access_log_reopen(NULL);
	access_log_stats(NULL, &stats);
	assert_int_equal(stats.written + stats.dropped_full + stats.dropped_file, 0);
	access_log_stop(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_bound_and_one_past_it),
	    cmocka_unit_test(opened_again_by_its_name),
	    cmocka_unit_test(no_log_is_no_work),
	};

	return cmocka_run_group_tests_name("access_log", tests, NULL, NULL);
}
