/* One gateway, one store: two that write the same file would count each other's requests as their
 * own. */
#ifndef TAILRACE_SUPERVISOR_STORE_H
#define TAILRACE_SUPERVISOR_STORE_H

#include <sys/types.h>

/* The store's file, held while the descriptor is open, by no process but the one that opened it. */
struct supervisor_store {
	int fd; /* -1 = none is held: there is no file to be opened, and the collector says why */
	dev_t device;
	ino_t inode;
};

/* Holds the file at `path`, which is made where it is missing (mode 0640), unless `held` is that
 * file already: then `ret` is `held`. Returns 0, also where the file cannot be opened, or -1 where
 * another gateway holds it (logged). */
int supervisor_store_hold(const char *path, const struct supervisor_store *held,
                          struct supervisor_store *ret);

/* Lets go of `store`, unless `kept` (null: none) is the same. */
void supervisor_store_release(const struct supervisor_store *store,
                              const struct supervisor_store *kept);

/* After a start that failed: removes the file at `path` if it is the held one, and empty. */
void supervisor_store_undo(const char *path, const struct supervisor_store *store);

#endif
