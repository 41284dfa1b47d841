/* The store's writer thread and the queue before it. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "collector/store.h"
#include "collector/store_file.h"
#include "collector/store_rollups.h"

#define COMPLAIN_NS (60 * NS_PER_S) /* the same trouble is logged once a minute */
#define IDLE_MS 1000                /* between looks at age and size when nothing is written */
#define EVICT_STEPS 8               /* of a few hundred rows, between two transactions */

enum item_kind {
	ITEM_EXCHANGE,
	ITEM_MINUTE,
	ITEM_LATE,
	ITEM_TAIL,
	ITEM_DROP,
	ITEM_PIN,
	ITEM_UNPIN,
	ITEM_ROLLUP,
	ITEM_STACKS,
	ITEM_NOTE,
	ITEM_DETAIL,
};

struct item {
	struct item *next;
	enum item_kind kind;
	struct profile_key key;
	uint64_t tail_ns;
	struct store_exchange exchange; /* ITEM_EXCHANGE */
	struct store_minute *minute;    /* ITEM_MINUTE; owned */
	struct store_rollup rollup;     /* ITEM_ROLLUP; ITEM_STACKS, ITEM_DETAIL: its body alone */
	struct store_note note;         /* ITEM_NOTE */
};

struct store {
	struct store_options options;
	pthread_t thread;
	pthread_mutex_t mutex; /* guards what follows, up to `file` */
	pthread_cond_t wake, done;
	struct item *queue, *queue_tail;
	size_t queued, queued_bytes;
	uint64_t first_ns;              /* when the oldest queued item came */
	uint64_t put_count, done_count; /* items ever put; items committed or dropped */
	bool stopping, hurry;
	struct store_stats stats;
	int64_t route_ids[ROUTES_MAX + 1]; /* as file.route_ids at the last commit */
	struct store_file file;            /* writer thread only, from here on */
	uint64_t complained_ns, opened_ns;
	bool damaged; /* the file of this device and inode is left alone */
	dev_t damaged_device;
	ino_t damaged_inode;
};

/* --- the queue ------------------------------------------------------------------------- */

static void
item_free(struct item *item)
{
	text_free(&item->exchange.body);
	text_free(&item->rollup.body);
	free(item->minute);
	store_note_clear(&item->note);
	free(item);
}

static size_t
item_bytes(const struct item *item)
{
	return sizeof(*item) + item->exchange.body.size + item->rollup.body.size + item->note.size +
	       (item->minute != NULL ? sizeof(*item->minute) : 0);
}

static struct item *
item_new(enum item_kind kind)
{
	struct item *item = xcalloc(1, sizeof(*item));
	item->kind = kind;
	return item;
}

static void
put(struct store *store, struct item *item)
{
	size_t bytes = item_bytes(item);
	pthread_mutex_lock(&store->mutex);
	bool note = item->kind == ITEM_NOTE;
	bool full =
	    store->queued >= store->options.queue_max + (note ? STORE_QUEUE_NOTES_EXTRA : 0) ||
	    store->queued_bytes + bytes > store->options.queue_bytes_max * (note ? 2 : 1);
	if (full) {
		store->stats.dropped_full++;
	} else {
		if (store->queue == NULL) {
			store->queue = item;
			store->first_ns = clock_now_ns();
		} else {
			store->queue_tail->next = item;
		}
		store->queue_tail = item;
		store->queued++;
		store->queued_bytes += bytes;
		store->put_count++;
		if (store->queued == 1 || store->queued == STORE_BATCH_MAX)
			pthread_cond_signal(&store->wake);
	}
	pthread_mutex_unlock(&store->mutex);
	if (full)
		item_free(item);
}

void
store_put_exchange(struct store *store, struct store_exchange *exchange)
{
	struct item *item = item_new(ITEM_EXCHANGE);
	item->exchange = *exchange;
	exchange->body = (struct text){0};
	put(store, item);
}

void
store_put_minute(struct store *store, const struct store_minute *minute)
{
	struct item *item = item_new(ITEM_MINUTE);
	item->minute = xcalloc(1, sizeof(*minute));
	*item->minute = *minute;
	put(store, item);
}

static void
put_key(struct store *store, enum item_kind kind, const struct profile_key *key)
{
	struct item *item = item_new(kind);
	item->key = *key;
	put(store, item);
}

void
store_put_late(struct store *store, const struct profile_key *key)
{
	put_key(store, ITEM_LATE, key);
}

void
store_put_drop(struct store *store, const struct profile_key *key)
{
	put_key(store, ITEM_DROP, key);
}

void
store_put_pin(struct store *store, const struct profile_key *key, bool pinned)
{
	put_key(store, pinned ? ITEM_PIN : ITEM_UNPIN, key);
}

void
store_put_rollup(struct store *store, struct store_rollup *rollup)
{
	struct item *item = item_new(ITEM_ROLLUP);
	item->rollup = *rollup;
	rollup->body = (struct text){0};
	put(store, item);
}

static void
put_text(struct store *store, enum item_kind kind, const struct profile_key *key, struct text *text)
{
	struct item *item = item_new(kind);
	if (key != NULL)
		item->key = *key;
	if (text != NULL) {
		item->rollup.body = *text;
		*text = (struct text){0};
	}
	put(store, item);
}

void
store_put_stacks(struct store *store, struct text *stacks)
{
	put_text(store, ITEM_STACKS, NULL, stacks);
}

void
store_put_detail(struct store *store, const struct profile_key *key, struct text *detail)
{
	put_text(store, ITEM_DETAIL, key, detail);
}

void
store_put_tail(struct store *store, const struct profile_key *key, uint64_t tail_ns)
{
	struct item *item = item_new(ITEM_TAIL);
	item->key = *key;
	item->tail_ns = tail_ns;
	put(store, item);
}

void
store_put_note(struct store *store, struct store_note *note)
{
	struct item *item = item_new(ITEM_NOTE);
	item->note = *note;
	*note = (struct store_note){0};
	put(store, item);
}

/* --- writing --------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void
complain(struct store *store, const char *format, ...)
{
	char text[512];
	uint64_t now_ns = clock_now_ns();
	if (store->complained_ns != 0 && now_ns - store->complained_ns < COMPLAIN_NS)
		return;
	store->complained_ns = now_ns;
	va_list list;
	va_start(list, format);
	vsnprintf(text, sizeof(text), format, list);
	va_end(list);
	log_error("store: %s: %s; what cannot be written is dropped and counted",
	          store->options.path, text);
}

/* A file that is no database (any more) is kept as it is; only another in its place is opened. */
static void
leave_alone(struct store *store, const char *why)
{
	struct stat st = {0};
	bool known = stat(store->options.path, &st) == 0;
	if (store->file.db != NULL) /* closing writes nothing, either */
		sqlite3_db_config(store->file.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	store_file_close(&store->file);
	store->damaged = known;
	store->damaged_device = st.st_dev;
	store->damaged_inode = st.st_ino;
	log_error(
	    "store: %s is damaged (%s): it is left alone, and nothing is kept until it is moved "
	    "away",
	    store->options.path, why);
	pthread_mutex_lock(&store->mutex);
	store->stats.damaged++;
	pthread_mutex_unlock(&store->mutex);
}

static bool
is_left_alone(struct store *store)
{
	struct stat st;
	if (!store->damaged)
		return false;
	store->damaged = stat(store->options.path, &st) == 0 &&
	                 st.st_dev == store->damaged_device && st.st_ino == store->damaged_inode;
	return store->damaged;
}

static bool
file_ready(struct store *store)
{
	char why[256];
	uint64_t now_ns = clock_now_ns();
	if (store->file.db != NULL)
		return true;
	if (store->opened_ns != 0 && now_ns - store->opened_ns < STORE_RETRY_MS * NS_PER_MS)
		return false;
	store->opened_ns = now_ns;
	if (is_left_alone(store))
		return false;
	enum store_opened opened =
	    store_file_open(&store->file, store->options.path, why, sizeof(why));
	if (opened == STORE_DAMAGED)
		leave_alone(store, why);
	else if (opened != STORE_OPENED)
		complain(store, "not opened: %s", why);
	return opened == STORE_OPENED;
}

static int
write_item(struct store_file *file, const struct item *item, struct store_stats *stats)
{
	bool refused = false;
	int result;
	switch (item->kind) {
	case ITEM_EXCHANGE:
		return store_file_exchange(file, &item->exchange);
	case ITEM_MINUTE:
		return store_file_minute(file, item->minute);
	case ITEM_LATE:
		return store_file_late(file, &item->key);
	case ITEM_NOTE:
		return store_notes_write(&file->notes, file->db, &item->note);
	case ITEM_TAIL:
		return store_file_tail(file, &item->key, item->tail_ns);
	case ITEM_DROP:
		result = store_file_drop(file, &item->key);
		stats->evicted_retention += result == SQLITE_OK;
		return result;
	case ITEM_PIN:
	case ITEM_UNPIN:
		result = store_file_pin(file, &item->key, item->kind == ITEM_PIN,
		                        clock_wall_ns() / NS_PER_S, &refused);
		stats->pins_refused += refused;
		return result;
	case ITEM_ROLLUP:
		return store_rollups_put(file, &item->rollup);
	case ITEM_STACKS:
		return store_rollups_stacks(file, &item->rollup.body, clock_wall_ns() / NS_PER_S);
	case ITEM_DETAIL:
		return store_file_detail(file, &item->key, &item->rollup.body);
	}
	return SQLITE_OK;
}

static int
write_all(struct store *store, const struct item *items, struct store_stats *stats)
{
	int result = store_file_begin(&store->file);
	for (const struct item *item = items; item != NULL && result == SQLITE_OK;
	     item = item->next) {
		result = write_item(&store->file, item, stats);
		stats->exchanges_written += item->kind == ITEM_EXCHANGE;
	}
	return result == SQLITE_OK ? store_file_commit(&store->file) : result;
}

static void
failed(struct store *store, int result)
{
	char why[256];
	snprintf(why, sizeof(why), "%s", sqlite3_errmsg(store->file.db));
	store_file_rollback(&store->file);
	int primary = result & 0xff;
	if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
		leave_alone(store, why);
	else
		complain(store, "not written: %s", why);
}

/* Adds what the writer counted. */
static void
stats_add(struct store_stats *into, const struct store_stats *from)
{
	into->exchanges_written += from->exchanges_written;
	into->evicted_bytes += from->evicted_bytes;
	into->evicted_age += from->evicted_age;
	into->evicted_retention += from->evicted_retention;
	into->evicted_rollups += from->evicted_rollups;
	into->aged_early += from->aged_early;
	into->pins_refused += from->pins_refused;
	into->rollups_damaged += from->rollups_damaged;
}

/* One transaction. Items that cannot be written are dropped with it. */
static void
write_batch(struct store *store, struct item *items, size_t count)
{
	struct store_stats stats = {0};
	bool good = file_ready(store);
	if (good) {
		int result = write_all(store, items, &stats);
		good = result == SQLITE_OK;
		if (!good)
			failed(store, result);
	}
	pthread_mutex_lock(&store->mutex);
	store->stats.writable = good;
	memcpy(store->route_ids, store->file.route_ids, sizeof(store->route_ids));
	if (good)
		stats_add(&store->stats, &stats);
	else
		store->stats.dropped_error += count;
	pthread_mutex_unlock(&store->mutex);
}

void
store_set_limits(struct store *store, uint64_t max_bytes, uint32_t max_age_hours)
{
	pthread_mutex_lock(&store->mutex);
	store->options.max_bytes = max_bytes;
	store->options.max_age_hours = max_age_hours;
	pthread_mutex_unlock(&store->mutex);
}

static void
evict(struct store *store)
{
	struct store_stats stats = {0};
	uint64_t max_bytes, age_ns, now_ns = clock_wall_ns();
	pthread_mutex_lock(&store->mutex);
	max_bytes = store->options.max_bytes;
	age_ns = store->options.max_age_hours * 3600 * NS_PER_S;
	pthread_mutex_unlock(&store->mutex);
	uint64_t before_ns = age_ns > 0 && age_ns < now_ns ? now_ns - age_ns : 0;
	bool more = true, coarser = true;
	int result = SQLITE_OK;
	for (int i = 0; i < EVICT_STEPS && more && store->file.db != NULL; i++) {
		result = store_file_evict(&store->file, max_bytes, before_ns, &stats, &more);
		if (result != SQLITE_OK)
			break;
	}
	if (result == SQLITE_OK && store->file.db != NULL)
		result = store_rollups_age(&store->file, now_ns / NS_PER_S, before_ns / NS_PER_S,
		                           &stats, &coarser);
	if (result != SQLITE_OK)
		failed(store, result);
	uint64_t bytes = store->file.db != NULL ? store_file_bytes(&store->file) : 0;
	pthread_mutex_lock(&store->mutex);
	stats_add(&store->stats, &stats);
	store->stats.file_bytes = bytes;
	store->stats.rollup_bytes = store->file.rollup_bytes;
	pthread_mutex_unlock(&store->mutex);
}

/* --- the thread -------------------------------------------------------------------------- */

static void
wait_until(struct store *store, uint64_t at_ns)
{
	struct timespec at = {.tv_sec = (time_t)(at_ns / NS_PER_S),
	                      .tv_nsec = (long)(at_ns % NS_PER_S)};
	pthread_cond_timedwait(&store->wake, &store->mutex, &at);
}

/* Waits for a batch's time (mutex held). Returns at IDLE_MS without items too. */
static void
wait_for_items(struct store *store)
{
	uint64_t idle_ns = clock_now_ns() + IDLE_MS * NS_PER_MS;
	for (;;) {
		uint64_t due_ns =
		    store->queue != NULL ? store->first_ns + STORE_BATCH_MS * NS_PER_MS : idle_ns;
		if (store->stopping || (store->hurry && store->queue != NULL) ||
		    store->queued >= STORE_BATCH_MAX || clock_now_ns() >= due_ns)
			return;
		wait_until(store, due_ns);
	}
}

/* Takes at most a batch off the queue (mutex held). */
static struct item *
take(struct store *store, size_t *ret_count)
{
	struct item *first = store->queue, *last = NULL;
	size_t count = 0;
	for (struct item *item = first; item != NULL && count < STORE_BATCH_MAX;
	     item = item->next) {
		store->queued_bytes -= item_bytes(item);
		last = item;
		count++;
	}
	if (last != NULL) {
		store->queue = last->next;
		last->next = NULL;
	}
	store->queued -= count;
	store->first_ns = clock_now_ns();
	*ret_count = count;
	return first;
}

static void *
writer(void *arg)
{
	struct store *store = arg;
	bool stop = false;
	file_ready(store);
	pthread_mutex_lock(&store->mutex);
	store->stats.writable = store->file.db != NULL;
	while (!stop) {
		size_t count;
		wait_for_items(store);
		struct item *items = take(store, &count);
		pthread_mutex_unlock(&store->mutex);
		if (count > 0)
			write_batch(store, items, count);
		else
			file_ready(store);
		evict(store);
		while (items != NULL) {
			struct item *next = items->next;
			item_free(items);
			items = next;
		}
		pthread_mutex_lock(&store->mutex);
		store->done_count += count;
		store->hurry = store->hurry && store->queue != NULL;
		pthread_cond_broadcast(&store->done);
		stop = store->stopping && store->queue == NULL;
	}
	pthread_mutex_unlock(&store->mutex);
	store_file_close(&store->file);
	return NULL;
}

struct store *
store_start(const struct store_options *options)
{
	struct store *store = xcalloc(1, sizeof(*store));
	pthread_condattr_t monotonic;
	store->options = *options;
	pthread_mutex_init(&store->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&store->wake, &monotonic);
	pthread_cond_init(&store->done, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&store->thread, NULL, writer, store) != 0)
		fatal("store: no thread: %s", strerror(errno));
	return store;
}

void
store_stop(struct store *store)
{
	pthread_mutex_lock(&store->mutex);
	store->stopping = true;
	pthread_cond_signal(&store->wake);
	pthread_mutex_unlock(&store->mutex);
	pthread_join(store->thread, NULL);
	pthread_mutex_destroy(&store->mutex);
	pthread_cond_destroy(&store->wake);
	pthread_cond_destroy(&store->done);
	free(store);
}

void
store_sync(struct store *store, uint32_t timeout_ms)
{
	uint64_t until_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
	struct timespec at = {.tv_sec = (time_t)(until_ns / NS_PER_S),
	                      .tv_nsec = (long)(until_ns % NS_PER_S)};
	pthread_mutex_lock(&store->mutex);
	uint64_t wanted = store->put_count;
	while (store->done_count < wanted) {
		store->hurry = true;
		pthread_cond_signal(&store->wake);
		if (pthread_cond_timedwait(&store->done, &store->mutex, &at) == ETIMEDOUT)
			break;
	}
	pthread_mutex_unlock(&store->mutex);
}

void
store_stats(struct store *store, struct store_stats *ret)
{
	pthread_mutex_lock(&store->mutex);
	*ret = store->stats;
	ret->queued = store->queued;
	pthread_mutex_unlock(&store->mutex);
}

int64_t
store_route_id(struct store *store, size_t index)
{
	pthread_mutex_lock(&store->mutex);
	int64_t id = index <= ROUTES_MAX ? store->route_ids[index] : 0;
	pthread_mutex_unlock(&store->mutex);
	return id;
}

size_t
store_route_index(struct store *store, int64_t id)
{
	size_t found = SIZE_MAX;
	pthread_mutex_lock(&store->mutex);
	for (size_t i = 0; i <= ROUTES_MAX && found == SIZE_MAX; i++)
		if (store->route_ids[i] == id)
			found = i;
	pthread_mutex_unlock(&store->mutex);
	return found;
}
