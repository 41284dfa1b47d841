/* Two buffers: the loop fills one while the thread writes the other. */
#include "collector/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"

#define WRITE_BYTES (64u << 10) /* handed to the kernel at once, about */
#define POLL_MS 100             /* how often a full pipe looks whether it is to end */
#define SAY_AGAIN_NS (10 * NS_PER_S)

/* What stands in the queue before each record: its names, each with its zero byte. */
struct item {
	uint32_t record_size, names_size;
};

struct buffer {
	char *bytes;
	size_t length;
};

struct access_log {
	char *path;
	enum config_access_format format;
	pthread_t thread;
	pthread_mutex_t lock; /* of what stands here up to the empty line */
	pthread_cond_t wake;
	struct buffer fill;
	bool reopen, stop;

	int fd; /* the thread's, as all below */
	struct buffer drain;
	struct text out;
	size_t lines; /* in `out` */
	uint64_t said_ns;

	_Atomic bool giving_up;
	_Atomic uint64_t written, dropped_full, dropped_file;
};

static void
add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* --- the file -------------------------------------------------------------------------- */

/* Not blocking: a pipe that nobody reads must not hold the end up. Files do not care. */
static int
open_path(const char *path)
{
	if (strcmp(path, "-") == 0)
		return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
}

static void
say(struct access_log *log, const char *what, int error)
{
	uint64_t now_ns = clock_now_ns();

	if (log->said_ns != 0 && now_ns - log->said_ns < SAY_AGAIN_NS)
		return;
	log->said_ns = now_ns;
	log_error("access log %s: %s: %s", log->path, what, strerror(error));
}

static bool
wait_writable(struct access_log *log)
{
	struct pollfd polled = {.fd = log->fd, .events = POLLOUT};

	while (!atomic_load_explicit(&log->giving_up, memory_order_relaxed))
		if (poll(&polled, 1, POLL_MS) != 0)
			return true;
	return false;
}

/* Lines that are whole in the first `done` bytes; a broken one is taken back where that can be. */
static size_t
whole_lines(struct access_log *log, size_t done)
{
	size_t lines = 0, end = 0;
	struct stat st;

	for (size_t i = 0; i < done; i++) {
		if (log->out.data[i] != '\n')
			continue;
		lines++;
		end = i + 1;
	}
	if (end < done && fstat(log->fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    st.st_size >= (off_t)(done - end) &&
	    ftruncate(log->fd, st.st_size - (off_t)(done - end)) == -1)
		say(log, "a broken line stays", errno);
	return lines;
}

static void
flush(struct access_log *log)
{
	size_t done = 0, whole = log->lines;

	while (done < log->out.length) {
		ssize_t n = write(log->fd, log->out.data + done, log->out.length - done);

		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		if (n == -1 && (errno == EINTR || (errno == EAGAIN && wait_writable(log))))
			continue;
		say(log, "lines are lost", n == 0 ? EIO : errno);
		whole = whole_lines(log, done);
		break;
	}
	add(&log->written, whole);
	add(&log->dropped_file, log->lines - whole);
	text_reset(&log->out);
	log->lines = 0;
}

static void
open_again(struct access_log *log)
{
	int fd = open_path(log->path);

	if (fd == -1) {
		log_error("access log %s: cannot be opened again, the old file stays: %s",
		          log->path, strerror(errno));
		return;
	}
	close(log->fd);
	log->fd = fd;
	log_info("access log %s: opened again", log->path);
}

/* --- lines ----------------------------------------------------------------------------- */

static const char *
next_name(const char **at)
{
	const char *name = *at;

	*at += strlen(name) + 1;
	return name[0] != '\0' ? name : NULL;
}

static void
line(struct access_log *log, const struct item *item, const char *bytes)
{
	_Alignas(8) char copy[RECORD_SIZE_MAX];
	const struct exchange_record *record = (const struct exchange_record *)copy;
	const char *at = bytes;
	struct access_names names;

	names.route = next_name(&at);
	names.upstream = next_name(&at);
	names.server = next_name(&at);
	memcpy(copy, bytes + item->names_size, item->record_size);
	if (log->format == CONFIG_ACCESS_COMBINED)
		access_line_combined(&log->out, record, item->record_size);
	else
		access_line_json(&log->out, record, item->record_size, &names);
	log->lines++;
	if (!log->out.failed)
		return;
	add(&log->dropped_file, log->lines);
	text_free(&log->out);
	log->lines = 0;
}

static void
drain(struct access_log *log)
{
	const char *at = log->drain.bytes, *end = at + log->drain.length;
	struct item item;

	while (at < end) {
		memcpy(&item, at, sizeof(item));
		line(log, &item, at + sizeof(item));
		at += sizeof(item) + item.names_size + item.record_size;
		if (log->out.length >= WRITE_BYTES)
			flush(log);
	}
	flush(log);
	log->drain.length = 0;
}

static void *
run(void *arg)
{
	struct access_log *log = arg;
	bool reopen, stop = false;

	while (!stop) {
		pthread_mutex_lock(&log->lock);
		while (log->fill.length == 0 && !log->reopen && !log->stop)
			pthread_cond_wait(&log->wake, &log->lock);
		struct buffer full = log->fill;
		log->fill = log->drain;
		log->drain = full;
		reopen = log->reopen;
		log->reopen = false;
		stop = log->stop;
		pthread_mutex_unlock(&log->lock);
		/* What was queued before the order belongs into the old file. */
		drain(log);
		if (reopen)
			open_again(log);
	}
	return NULL;
}

/* --- the loop's side ------------------------------------------------------------------- */

struct access_log *
access_log_start(const char *path, enum config_access_format format)
{
	int fd = open_path(path);
	struct access_log *log;

	if (fd == -1)
		return NULL;
	log = xcalloc(1, sizeof(*log));
	log->path = xstrdup(path);
	log->format = format;
	log->fd = fd;
	log->fill.bytes = xcalloc(1, ACCESS_LOG_QUEUE_BYTES);
	log->drain.bytes = xcalloc(1, ACCESS_LOG_QUEUE_BYTES);
	pthread_mutex_init(&log->lock, NULL);
	pthread_cond_init(&log->wake, NULL);
	tzset();
	if (pthread_create(&log->thread, NULL, run, log) != 0)
		fatal("access log: no thread");
	return log;
}

static char *
put(char *at, const void *bytes, size_t size)
{
	memcpy(at, bytes, size);
	return at + size;
}

void
access_log_put(struct access_log *log, const struct exchange_record *record, size_t size,
               const struct access_names *names)
{
	const char *texts[3];
	struct item item = {.record_size = (uint32_t)size};
	size_t need;

	if (log == NULL)
		return;
	texts[0] = names->route != NULL ? names->route : "";
	texts[1] = names->upstream != NULL ? names->upstream : "";
	texts[2] = names->server != NULL ? names->server : "";
	for (size_t i = 0; i < 3; i++)
		item.names_size += (uint32_t)strlen(texts[i]) + 1;
	need = sizeof(item) + item.names_size + size;
	pthread_mutex_lock(&log->lock);
	if (log->fill.length + need > ACCESS_LOG_QUEUE_BYTES) {
		add(&log->dropped_full, 1);
	} else {
		char *at = log->fill.bytes + log->fill.length;

		at = put(at, &item, sizeof(item));
		for (size_t i = 0; i < 3; i++)
			at = put(at, texts[i], strlen(texts[i]) + 1);
		put(at, record, size);
		if (log->fill.length == 0)
			pthread_cond_signal(&log->wake);
		log->fill.length += need;
	}
	pthread_mutex_unlock(&log->lock);
}

void
access_log_reopen(struct access_log *log)
{
	if (log == NULL)
		return;
	pthread_mutex_lock(&log->lock);
	log->reopen = true;
	pthread_cond_signal(&log->wake);
	pthread_mutex_unlock(&log->lock);
}

void
access_log_stats(const struct access_log *log, struct access_log_stats *ret)
{
	*ret = (struct access_log_stats){0};
	if (log == NULL)
		return;
	ret->written = atomic_load_explicit(&log->written, memory_order_relaxed);
	ret->dropped_full = atomic_load_explicit(&log->dropped_full, memory_order_relaxed);
	ret->dropped_file = atomic_load_explicit(&log->dropped_file, memory_order_relaxed);
}

/* Whether the thread has ended; one that hangs in the kernel is left there. */
static bool
join(struct access_log *log)
{
	struct timespec until;

	until = (struct timespec){.tv_sec = (time_t)(clock_wall_ns() / NS_PER_S) +
	                                    ACCESS_LOG_STOP_MS / 1000 + 1};
	if (pthread_timedjoin_np(log->thread, NULL, &until) == 0)
		return true;
	atomic_store(&log->giving_up, true);
	until.tv_sec += 1;
	return pthread_timedjoin_np(log->thread, NULL, &until) == 0;
}

void
access_log_stop(struct access_log *log)
{
	if (log == NULL)
		return;
	pthread_mutex_lock(&log->lock);
	log->stop = true;
	pthread_cond_signal(&log->wake);
	pthread_mutex_unlock(&log->lock);
	if (!join(log)) {
		log_error("access log %s: cannot be written, lines are lost", log->path);
		return;
	}
	close(log->fd);
	pthread_mutex_destroy(&log->lock);
	pthread_cond_destroy(&log->wake);
	text_free(&log->out);
	free(log->fill.bytes);
	free(log->drain.bytes);
	free(log->path);
	free(log);
}
