/* The query threads, their queues and the way back to the loop. */
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
#include "collector/route_windows.h"

#define FREEZE_MS 20         /* for a commit that runs */
#define NEW_ROUTE_MS 500     /* for a new route's ID, which the store gives */
#define BUSY_MS 1000         /* for a lock of the file: while it is made, or mended */
#define PROGRESS_STEPS 10000 /* of SQLite's machine, between two looks at the clock */

enum lane_kind {
	LANE_QUICK,
	LANE_SLOW, /* what decodes many windows */
	LANES
};

struct lane {
	struct query *query;
	pthread_t thread;
	pthread_cond_t wake;
	struct query_job *waiting; /* like the count guarded by the query's mutex */
	size_t waiting_count;
	sqlite3 *db;                   /* the thread's own, from here on */
	dev_t device;                  /* the file that is open, */
	ino_t inode;                   /* for a damaged one may be moved away */
	uint64_t until_ns;             /* end of the running statement's time */
	struct route_windows *windows; /* owned */
};

struct query {
	pthread_mutex_t mutex; /* guards the lists, counts and `stopping` */
	struct lane lanes[LANES];
	struct query_job *answered;
	bool stopping;
	const char *path;
	struct store *store;
	int wake_fd; /* eventfd: something is answered */
	struct event *event;
	void (*done)(void *arg, struct query_job *job);
	void *arg;
	uint64_t refused; /* loop's thread */
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
	unwritten_free(&job->unwritten);
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

/* --- a thread ---------------------------------------------------------------------- */

static int
on_progress(void *arg)
{
	const struct lane *lane = arg;
	return clock_now_ns() > lane->until_ns;
}

static void
close_db(struct lane *lane)
{
	sqlite3_close(lane->db);
	lane->db = NULL;
	route_windows_clear(lane->windows); /* another file gives routes other IDs */
}

/* The store's file, opened again where another one has taken its place. Null without one. */
static sqlite3 *
open_db(struct lane *lane)
{
	struct stat now;
	const char *path = lane->query->path;
	if (stat(path, &now) != 0) {
		close_db(lane);
		return NULL;
	}
	if (lane->db != NULL && (now.st_ino != lane->inode || now.st_dev != lane->device))
		close_db(lane);
	if (lane->db != NULL)
		return lane->db;
	if (sqlite3_open_v2(path, &lane->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) !=
	    SQLITE_OK) {
		close_db(lane);
		return NULL;
	}
	sqlite3_busy_timeout(lane->db, BUSY_MS);
	sqlite3_progress_handler(lane->db, PROGRESS_STEPS, on_progress, lane);
	lane->inode = now.st_ino;
	lane->device = now.st_dev;
	return lane->db;
}

/* Begins the transaction in which the job is answered, and takes what it will not see. Returns
 * SQLITE_OK or SQLite's error. */
static int
look(struct lane *lane, sqlite3 *db, struct query_job *job)
{
	struct store *store = lane->query->store;
	int result = SQLITE_OK;
	bool frozen = store_freeze(store, FREEZE_MS);
	unwritten_take(&job->unwritten, store, job);
	if (job->kind == QUERY_ROUTES) {
		struct store_changes changes = store_take_changes(store);
		route_windows_changed(lane->windows, &changes);
		job->windows = lane->windows;
	}
	/* A transaction is begun by its first read. */
	if (db != NULL)
		result = sqlite3_exec(db, "BEGIN; SELECT 1 FROM sqlite_schema", NULL, NULL, NULL);
	if (frozen)
		store_thaw(store);
	else /* they may be committed by now, and would count twice */
		job->unwritten.minute_count = 0;
	return result;
}

static void
look_away(sqlite3 *db)
{
	if (db != NULL && !sqlite3_get_autocommit(db))
		sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
}

static int
look_and_answer(struct lane *lane, struct query_job *job)
{
	sqlite3 *db = open_db(lane);
	int result = look(lane, db, job);
	if (result == SQLITE_OK && unwritten_has_new_route(&job->unwritten)) {
		look_away(db);
		unwritten_free(&job->unwritten);
		store_sync(lane->query->store, NEW_ROUTE_MS);
		result = look(lane, db, job);
	}
	if (result == SQLITE_OK)
		result = query_answer(db, job, clock_wall_ns());
	if (result != SQLITE_OK && result != SQLITE_INTERRUPT)
		log_warn("query: %s", db != NULL ? sqlite3_errmsg(db) : "no store");
	look_away(db);
	return result;
}

static void
answer(struct lane *lane, struct query_job *job)
{
	lane->until_ns = clock_now_ns() + QUERY_TIME_MAX_MS * NS_PER_MS;
	int result = look_and_answer(lane, job);
	if (result == SQLITE_OK)
		return;
	text_reset(&job->body);
	if (result == SQLITE_INTERRUPT) {
		query_answer_error(job, 503, "timeout", "the query took too long");
		return;
	}
	close_db(lane);
	if (query_answer(NULL, job, clock_wall_ns()) != SQLITE_OK)
		query_answer_error(job, 503, "store", "the store cannot be read");
}

static void *
reader(void *arg)
{
	struct lane *lane = arg;
	struct query *query = lane->query;
	uint64_t one = 1;
	pthread_mutex_lock(&query->mutex);
	while (!query->stopping) {
		struct query_job *job = lane->waiting;
		if (job == NULL) {
			pthread_cond_wait(&lane->wake, &query->mutex);
			continue;
		}
		lane->waiting = job->next;
		lane->waiting_count--;
		pthread_mutex_unlock(&query->mutex);
		answer(lane, job);
		pthread_mutex_lock(&query->mutex);
		append(&query->answered, job);
		if (write(query->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			log_error("query: the loop cannot be woken: %s", strerror(errno));
	}
	pthread_mutex_unlock(&query->mutex);
	close_db(lane);
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
	query->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (query->wake_fd < 0)
		fatal("query: no eventfd: %s", strerror(errno));
	query->event = event_new(base, query->wake_fd, EV_READ | EV_PERSIST, on_answered, query);
	if (query->event == NULL || event_add(query->event, NULL) != 0)
		fatal("query: no event");
	for (size_t i = 0; i < LANES; i++) {
		struct lane *lane = &query->lanes[i];
		lane->query = query;
		lane->windows = route_windows_new();
		pthread_cond_init(&lane->wake, NULL);
		if (pthread_create(&lane->thread, NULL, reader, lane) != 0)
			fatal("query: no thread: %s", strerror(errno));
	}
	return query;
}

static enum lane_kind
lane_of(const struct query_job *job)
{
	return job->kind == QUERY_SERIES || job->kind == QUERY_FLAME || job->kind == QUERY_COMPARE
	           ? LANE_SLOW
	           : LANE_QUICK;
}

bool
query_submit(struct query *query, struct query_job *job)
{
	struct lane *lane = &query->lanes[lane_of(job)];
	pthread_mutex_lock(&query->mutex);
	bool room = lane->waiting_count < QUERY_QUEUE_MAX;
	if (room) {
		append(&lane->waiting, job);
		lane->waiting_count++;
		pthread_cond_signal(&lane->wake);
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

static void
turn_away(struct query *query, struct lane *lane)
{
	while (lane->waiting != NULL) {
		struct query_job *job = lane->waiting;
		lane->waiting = job->next;
		query_answer_error(job, 503, "stopping", "the gateway is stopping");
		hand_back(query, job);
	}
	pthread_cond_destroy(&lane->wake);
	route_windows_free(lane->windows);
}

void
query_stop(struct query *query)
{
	pthread_mutex_lock(&query->mutex);
	query->stopping = true;
	for (size_t i = 0; i < LANES; i++)
		pthread_cond_signal(&query->lanes[i].wake);
	pthread_mutex_unlock(&query->mutex);
	for (size_t i = 0; i < LANES; i++)
		pthread_join(query->lanes[i].thread, NULL);
	on_answered(query->wake_fd, 0, query);
	for (size_t i = 0; i < LANES; i++)
		turn_away(query, &query->lanes[i]);
	event_free(query->event);
	close(query->wake_fd);
	pthread_mutex_destroy(&query->mutex);
	free(query);
}
