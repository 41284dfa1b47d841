/* Reads time, and tells which clock it is. */
#include "base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t
read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t
clock_now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

uint64_t
clock_wall_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

uint64_t
clock_boot_ns(void)
{
	return read_clock(CLOCK_BOOTTIME);
}

void
clock_format(uint64_t wall_ns, char *buf, size_t size)
{
	time_t seconds = (time_t)(wall_ns / NS_PER_S);
	char date[24];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf, size, "%s.%09uZ", date, (unsigned)(wall_ns % NS_PER_S));
}

int
clock_identity(char boot_id[CLOCK_BOOT_ID_SIZE], uint64_t *ret_time_namespace)
{
	char text[CLOCK_BOOT_ID_SIZE];
	struct stat st;
	ssize_t n;
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd == -1)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n != CLOCK_BOOT_ID_SIZE - 1)
		return -1;
	text[n] = '\0';
	/* Kernels before 5.6 have no time namespaces: one clock for all, inode 0. */
	if (stat("/proc/self/ns/time", &st) == -1)
		st.st_ino = 0;
	memcpy(boot_id, text, sizeof(text));
	*ret_time_namespace = st.st_ino;
	return 0;
}
