/* Holds the store's file by a lock that ends with this process. SQLite has locks of its own, on
 * other bytes and for as long as a transaction: several programs may write a file in turns. */
#include "supervisor_store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/log.h"

/* Far behind SQLite's own (from 1 GiB on, 512 bytes), and behind the longest file it can have. */
#define LOCK_BYTE ((off_t)1 << 60)

int
supervisor_store_hold(const char *path, const struct supervisor_store *held,
                      struct supervisor_store *ret)
{
	/* Of the open file, not of the process: no other close() of the same file ends it. */
	struct flock lock = {
	    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE, .l_len = 1};
	struct stat st;
	int fd;

	if (held->fd != -1 && stat(path, &st) == 0 && st.st_dev == held->device &&
	    st.st_ino == held->inode) {
		*ret = *held;
		return 0;
	}
	*ret = (struct supervisor_store){.fd = -1};
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (fd == -1)
		return 0;
	if (fcntl(fd, F_OFD_SETLK, &lock) == -1 && (errno == EAGAIN || errno == EACCES)) {
		log_error("store: %s: another gateway keeps its requests there; one store each: "
		          "name another store.path",
		          path);
		close(fd);
		return -1;
	}
	if (fstat(fd, &st) == 0)
		*ret = (struct supervisor_store){fd, st.st_dev, st.st_ino};
	else
		close(fd);
	return 0;
}

void
supervisor_store_release(const struct supervisor_store *store, const struct supervisor_store *kept)
{
	if (store->fd != -1 && (kept == NULL || kept->fd != store->fd))
		close(store->fd);
}

void
supervisor_store_undo(const char *path, const struct supervisor_store *store)
{
	struct stat st;

	if (store->fd != -1 && stat(path, &st) == 0 && st.st_dev == store->device &&
	    st.st_ino == store->inode && st.st_size == 0)
		unlink(path);
}
