/* The query thread, its queue and the way back to the loop. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <event2/event.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "collector/history.h"
#include "collector/query.h"
#include "collector/query_answer.h"

#define SYNC_TIMEOUT_MS 2000
#define SYNC_QUEUED 200 /* items: there is more to do than what was just put */
#define SYNC_BUSY_MS 15
#define PROGRESS_STEPS 10000 /* of SQLite's machine, between two looks at the clock */

struct query {
	pthread_t thread;
	pthread_mutex_t mutex; /* guards the lists, counts and `stopping` */
	pthread_cond_t wake;
	struct query_job *waiting, *answered;
	size_t waiting_count;
	bool stopping;
	const char *path;
	struct store *store;
	int wake_fd; /* eventfd: something is answered */
	struct event *event;
	void (*done)(void *arg, struct query_job *job);
	void *arg;
	uint64_t refused;  /* loop's thread */
	sqlite3 *db;       /* query thread, from here on */
	dev_t device;      /* the file that is open, */
	ino_t inode;       /* for a damaged one may be moved away */
	uint64_t until_ns; /* end of the running statement's time */
};

void
query_job_free(struct query_job *job)
{
	if (job == NULL)
		return;
	text_free(&job->pending);
	text_free(&job->body);
	text_free(&job->history.saved);
	text_free(&job->history.unsaved);
	text_free(&job->history.names);
	text_free(&job->history.events);
	history_answer_free(job->history.compared);
	free(job);
}

static void
append(struct query_job **list, struct query_job *job)
{
	while (*list != NULL)
		list = &(*list)->next;
	job->next = NULL;
	*list = job;
}

/* --- the thread ------------------------------------------------------------------- */

static int
on_progress(void *arg)
{
	const struct query *query = arg;
	return clock_now_ns() > query->until_ns;
}

static void
close_db(struct query *query)
{
	sqlite3_close(query->db);
	query->db = NULL;
}

/* The store's file, opened again where another one has taken its place. Null without one. */
static sqlite3 *
open_db(struct query *query)
{
	struct stat now;
	if (stat(query->path, &now) != 0) {
		close_db(query);
		return NULL;
	}
	if (query->db != NULL && (now.st_ino != query->inode || now.st_dev != query->device))
		close_db(query);
	if (query->db != NULL)
		return query->db;
	if (sqlite3_open_v2(query->path, &query->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
	                    NULL) != SQLITE_OK) {
		close_db(query);
		return NULL;
	}
	sqlite3_busy_timeout(query->db, 1000);
	sqlite3_progress_handler(query->db, PROGRESS_STEPS, on_progress, query);
	query->inode = now.st_ino;
	query->device = now.st_dev;
	return query->db;
}

static void
answer(struct query *query, struct query_job *job)
{
	struct store_stats stats;
	store_stats(query->store, &stats);
	/* A store that lags is not waited for: what it has not written yet is shown later. */
	store_sync(query->store, stats.queued > SYNC_QUEUED ? SYNC_BUSY_MS : SYNC_TIMEOUT_MS);
	query->until_ns = clock_now_ns() + QUERY_TIME_MAX_MS * NS_PER_MS;
	int result = query_answer(open_db(query), job, clock_wall_ns());
	if (result == SQLITE_OK)
		return;
	text_reset(&job->body);
	if (result == SQLITE_INTERRUPT) {
		query_answer_error(job, 503, "timeout", "the query took too long");
		return;
	}
	log_warn("query: %s", query->db != NULL ? sqlite3_errmsg(query->db) : "no store");
	close_db(query);
	if (query_answer(NULL, job, clock_wall_ns()) != SQLITE_OK)
		query_answer_error(job, 503, "store", "the store cannot be read");
}

static void *
reader(void *arg)
{
	struct query *query = arg;
	uint64_t one = 1;
	pthread_mutex_lock(&query->mutex);
	while (!query->stopping) {
		struct query_job *job = query->waiting;
		if (job == NULL) {
			pthread_cond_wait(&query->wake, &query->mutex);
			continue;
		}
		query->waiting = job->next;
		query->waiting_count--;
		pthread_mutex_unlock(&query->mutex);
		answer(query, job);
		pthread_mutex_lock(&query->mutex);
		append(&query->answered, job);
		if (write(query->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			log_error("query: the loop cannot be woken: %s", strerror(errno));
	}
	pthread_mutex_unlock(&query->mutex);
	close_db(query);
	return NULL;
}

/* --- the loop's side --------------------------------------------------------------- */

static void
hand_back(const struct query *query, struct query_job *job)
{
	if (job->done != NULL)
		job->done(job->arg, job);
	else
		query->done(query->arg, job);
}

static void
on_answered(evutil_socket_t fd, short events, void *arg)
{
	struct query *query = arg;
	uint64_t count;
	(void)events;
	ssize_t got = read(fd, &count, sizeof(count));
	(void)got;
	pthread_mutex_lock(&query->mutex);
	struct query_job *job = query->answered;
	query->answered = NULL;
	pthread_mutex_unlock(&query->mutex);
	while (job != NULL) {
		struct query_job *next = job->next;
		hand_back(query, job);
		job = next;
	}
}

struct query *
query_start(struct event_base *base, const char *path, struct store *store,
            void (*answered)(void *arg, struct query_job *job), void *arg)
{
	struct query *query = xcalloc(1, sizeof(*query));
	query->path = path;
	query->store = store;
	query->done = answered;
	query->arg = arg;
	pthread_mutex_init(&query->mutex, NULL);
	pthread_cond_init(&query->wake, NULL);
	query->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (query->wake_fd < 0)
		fatal("query: no eventfd: %s", strerror(errno));
	query->event = event_new(base, query->wake_fd, EV_READ | EV_PERSIST, on_answered, query);
	if (query->event == NULL || event_add(query->event, NULL) != 0)
		fatal("query: no event");
	if (pthread_create(&query->thread, NULL, reader, query) != 0)
		fatal("query: no thread: %s", strerror(errno));
	return query;
}

bool
query_submit(struct query *query, struct query_job *job)
{
	pthread_mutex_lock(&query->mutex);
	bool room = query->waiting_count < QUERY_QUEUE_MAX;
	if (room) {
		append(&query->waiting, job);
		query->waiting_count++;
		pthread_cond_signal(&query->wake);
	}
	pthread_mutex_unlock(&query->mutex);
	query->refused += !room;
	return room;
}

uint64_t
query_refused(const struct query *query)
{
	return query->refused;
}

void
query_stop(struct query *query)
{
	pthread_mutex_lock(&query->mutex);
	query->stopping = true;
	pthread_cond_signal(&query->wake);
	pthread_mutex_unlock(&query->mutex);
	pthread_join(query->thread, NULL);
	on_answered(query->wake_fd, 0, query);
	while (query->waiting != NULL) {
		struct query_job *job = query->waiting;
		query->waiting = job->next;
		query_answer_error(job, 503, "stopping", "the gateway is stopping");
		hand_back(query, job);
	}
	event_free(query->event);
	close(query->wake_fd);
	pthread_mutex_destroy(&query->mutex);
	pthread_cond_destroy(&query->wake);
	free(query);
}
