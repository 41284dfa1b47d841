/* The store's folder and files before rights are dropped. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"
#include "collector/store.h"

static int
make_folder(const char *path, uid_t uid, gid_t gid)
{
	char folder[4096];
	snprintf(folder, sizeof(folder), "%s", path);
	for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(folder, 0750) == 0) {
			if (uid != (uid_t)-1 && chown(folder, uid, gid) != 0)
				return -1;
		} else if (errno != EEXIST) {
			return -1;
		}
		*slash = '/';
	}
	return 0;
}

void
store_prepare(const char *path, uid_t uid, gid_t gid)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	if (make_folder(path, uid, gid) != 0)
		log_error("store: %s: its folder cannot be made: %s", path, strerror(errno));
	/* SQLite gives its other files the mode of the first: profiles show code paths, not for
	 * everyone. */
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd >= 0)
		close(fd);
	if (uid == (uid_t)-1)
		return;
	for (size_t i = 0; i < 3; i++) {
		char name[4096];
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		if (lchown(name, uid, gid) != 0 && errno != ENOENT)
			log_error("store: %s: owner not changed: %s", name, strerror(errno));
	}
}
