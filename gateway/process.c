/* Title, limits, rights and folders of a process, and its messages to the service manager. */
#include "process.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/net.h"
#include "base/xmem.h"
#include "handover.h"

#define TURN_NS 100000  /* the shortest there is */
#define FILES_APART 512 /* descriptors of a worker that are no connection's */

struct config *
process_read_config(int fd, uint32_t serial)
{
	struct config_errors errs = {0};
	struct config *config = NULL;
	struct stat st = {0};
	void *bytes = MAP_FAILED;

	if (fstat(fd, &st) == 0 && st.st_size > 0)
		bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		log_error("configuration: %s", strerror(errno));
	else if (config_load_bytes("configuration", bytes, (size_t)st.st_size, &config, &errs) ==
	         -1)
		log_error("%s", errs.lines[0]);
	else
		config->serial = serial;
	if (bytes != MAP_FAILED)
		munmap(bytes, (size_t)st.st_size);
	config_errors_free(&errs);
	close(fd);
	return config;
}

static char *title_area, *environment_area;
static size_t title_size;

void
process_title_init(int argc, char **argv)
{
	char *end = argv[0];
	size_t count = 0, bytes = 0;
	char **copy, *at;

	for (int i = 0; i < argc; i++)
		if (argv[i] == end)
			end = argv[i] + strlen(argv[i]) + 1;
	for (; environ[count] != NULL; count++)
		bytes += strlen(environ[count]) + 1;
	copy = xcalloc(count + 1, sizeof(*copy));
	at = environment_area = xcalloc(bytes + 1, 1);
	for (size_t i = 0; i < count; i++) {
		if (environ[i] == end)
			end = environ[i] + strlen(environ[i]) + 1;
		copy[i] = at;
		at = stpcpy(at, environ[i]) + 1;
	}
	/* Never freed: getenv() hands out pointers into it for the life of the process. */
	environ = copy;
	title_area = argv[0];
	title_size = (size_t)(end - argv[0]);
}

void
process_set_title(const char *format, ...)
{
	char title[64];
	va_list args;

	va_start(args, format);
	vsnprintf(title, sizeof(title), format, args);
	va_end(args);
	prctl(PR_SET_NAME, title); /* the kernel cuts it to 15 bytes */
	if (title_size == 0)
		return;
	memset(title_area, 0, title_size);
	snprintf(title_area, title_size, "%s", title);
}

/* Descriptors a worker may need: every client, and as many server connections as may be in
 * flight. */
static rlim_t
files_needed(const struct config *config)
{
	uint64_t servers = 0;

	for (size_t i = 0; i < config->upstream_count; i++)
		servers += (uint64_t)config->upstreams[i].server_count *
		           config->upstreams[i].max_connections;
	if (servers > config->limits.connections)
		servers = config->limits.connections;
	return config->limits.connections + servers + FILES_APART;
}

/* Newer C libraries have the structure under a name of the kernel's; this is its first version. */
void
process_take_short_turns(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime_ns, deadline_ns, period_ns;
	} attr = {.size = sizeof(attr)};
	if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) != 0 ||
	    attr.policy != SCHED_OTHER)
		return;
	attr.size = sizeof(attr);
	attr.runtime_ns = TURN_NS;
	(void)!syscall(SYS_sched_setattr, 0, &attr, 0);
}

int
process_raise_limits(const struct config *config)
{
	rlim_t needed = files_needed(config);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return 0;
	if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < needed) {
		struct rlimit raised = {needed, needed};

		/* Only root may. */
		if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
			return 0;
		log_error("limits.connections = %u needs %llu open files, and the hard limit is "
		          "%llu: raise it (LimitNOFILE= of systemd, ulimit -Hn) or lower the key",
		          config->limits.connections, (unsigned long long)needed,
		          (unsigned long long)limit.rlim_max);
		return -1;
	}
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == -1)
		log_warn("the limit of open files cannot be raised: %s", strerror(errno));
	return 0;
}

void
process_make_log_folder(const struct config *config)
{
	const char *path = config->log.access.path;

	if (path != NULL && path[0] == '/' && process_make_folder(config, path, 0750) == -1)
		log_warn("%s: folder cannot be made: %s", path, strerror(errno));
}

int
process_make_folder(const struct config *config, const char *file, unsigned mode)
{
	char *path = xstrdup(file), *slash = path;
	int made = -1, saved;

	while ((slash = strchr(slash + 1, '/')) != NULL) {
		*slash = '\0';
		made = mkdir(path, strchr(slash + 1, '/') != NULL ? 0755 : mode);
		saved = errno;
		/* EROFS and EACCES come before EEXIST on some file systems: only what is missing
		 * counts. */
		if (made == -1 && access(path, F_OK) == -1) {
			free(path);
			errno = saved;
			return -1;
		}
		*slash = '/';
	}
	slash = strrchr(path, '/');
	if (made == 0 && slash != NULL) {
		*slash = '\0';
		if (chown(path, config->process.uid, config->process.gid) == -1)
			log_warn("%s: owner cannot be set: %s", path, strerror(errno));
	}
	free(path);
	return 0;
}

/* Every process opens the file of its own configuration, before it drops its rights. */
int
process_open_log(const struct config *config)
{
	const char *path = config->log.error_path;

	if (path == NULL)
		return 0;
	if (process_make_folder(config, path, 0750) == 0 &&
	    log_open(path, config->process.uid, config->process.gid) == 0)
		return 0;
	log_error("%s: the log cannot be opened: %s", path, strerror(errno));
	return -1;
}

void
process_notify(const char *text)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t n = name != NULL ? strlen(name) : 0;
	int fd;

	if (n == 0 || n >= sizeof(un.sun_path) || (name[0] != '/' && name[0] != '@'))
		return;
	memcpy(un.sun_path, name, n);
	if (name[0] == '@')
		un.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd == -1)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&un,
	           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) == -1)
		log_debug("service manager: %s", strerror(errno));
	close(fd);
}

uint64_t
process_watchdog_ns(void)
{
	const char *text = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	if (text == NULL || (pid != NULL && strtol(pid, NULL, 10) != getpid()))
		return 0;
	return strtoull(text, NULL, 10) * NS_PER_US / 2;
}

void
process_drop_rights(const struct config *config)
{
	uid_t uid = config->process.uid;
	gid_t gid = config->process.gid;

	/* Nothing we run is ever to gain rights by exec of a set-user-ID program. */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		fatal("no_new_privs: %s", strerror(errno));
	if (geteuid() == 0) {
		if (config->process.user != NULL && gid != (gid_t)-1 &&
		    initgroups(config->process.user, gid) == -1)
			fatal("groups of %s: %s", config->process.user, strerror(errno));
		if (config->process.user == NULL && gid != (gid_t)-1 && setgroups(1, &gid) == -1)
			fatal("groups: %s", strerror(errno));
	}
	if (gid != (gid_t)-1 && setresgid(gid, gid, gid) == -1)
		fatal("cannot become group %u: %s", (unsigned)gid, strerror(errno));
	if (uid != (uid_t)-1 && setresuid(uid, uid, uid) == -1)
		fatal("cannot become user %u: %s", (unsigned)uid, strerror(errno));
	if (uid != (uid_t)-1 && uid != 0 && setresuid(0, 0, 0) == 0)
		fatal("rights were dropped and are still there");
}
