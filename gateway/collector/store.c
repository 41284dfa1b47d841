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
#include "collector/store_queue.h"
#include "collector/store_rollups.h"

#define COMPLAIN_NS (60 * NS_PER_S) /* the same trouble is logged once a minute */
#define IDLE_MS 1000                /* between looks at age and size when nothing is written */
#define EVICT_STEPS 8               /* of a few hundred rows, between two transactions */

struct store {
	struct store_options options;
	pthread_t thread;
	pthread_mutex_t mutex; /* guards what follows, up to `file` */
	pthread_cond_t wake, done;
	struct store_queue queue;
	uint64_t first_ns;     /* when the oldest queued item came */
	uint64_t batch_serial; /* of the batch's first item; 0 = none is being written */
	bool stopping, hurry;
	bool committing; /* or about to, once no reader is before it */
	unsigned frozen; /* readers that want nothing to be committed */
	struct store_stats stats;
	struct store_changes changes;
	int64_t route_ids[ROUTES_MAX + 1]; /* as file.route_ids at the last commit */
	struct store_file file;            /* writer thread only, from here on */
	uint64_t complained_ns, opened_ns;
	bool damaged; /* the file of this device and inode is left alone */
	dev_t damaged_device;
	ino_t damaged_inode;
};

/* On the monotonic clock, as both conditions want it. */
static struct timespec
in_ms(uint32_t ms)
{
	uint64_t at_ns = clock_now_ns() + ms * NS_PER_MS;
	return (struct timespec){.tv_sec = (time_t)(at_ns / NS_PER_S),
	                         .tv_nsec = (long)(at_ns % NS_PER_S)};
}

/* --- the queue ------------------------------------------------------------------------- */

static void
put(struct store *store, struct store_item *item)
{
	pthread_mutex_lock(&store->mutex);
	bool full = !store_queue_put(&store->queue, item);
	store->stats.dropped_full += full;
	if (!full) {
		if (store->queue.count == 1)
			store->first_ns = clock_now_ns();
		if (store->queue.count == 1 || store->queue.count == STORE_BATCH_MAX)
			pthread_cond_signal(&store->wake);
	}
	pthread_mutex_unlock(&store->mutex);
	if (full)
		store_item_free(item);
}

void
store_put_exchange(struct store *store, const struct store_exchange *exchange)
{
	const struct text *body = &exchange->body;
	struct store_item *item = store_item_new(ITEM_EXCHANGE, body->data, body->length);
	item->exchange = *exchange;
	item->exchange.body = (struct text){.data = item->data, .length = item->length};
	put(store, item);
}

void
store_put_minute(struct store *store, const struct store_minute *minute)
{
	uint8_t encoded[HISTOGRAM_ENCODED_MAX];
	size_t length = histogram_encode(&minute->total, encoded);
	struct store_item *item = store_item_new(ITEM_MINUTE, encoded, length);
	item->minute = minute->sums;
	put(store, item);
}

static void
put_of(struct store *store, enum store_item_kind kind, const struct profile_key *key,
       uint64_t tail_ns, const struct text *text)
{
	struct store_item *item =
	    store_item_new(kind, text != NULL ? text->data : NULL, text != NULL ? text->length : 0);
	item->of.key = *key;
	item->of.tail_ns = tail_ns;
	put(store, item);
}

void
store_put_late(struct store *store, const struct profile_key *key)
{
	put_of(store, ITEM_LATE, key, 0, NULL);
}

void
store_put_drop(struct store *store, const struct profile_key *key)
{
	pthread_mutex_lock(&store->mutex);
	struct store_item *unwritten = store_queue_cancel(&store->queue, key);
	store->stats.evicted_retention += unwritten != NULL;
	pthread_mutex_unlock(&store->mutex);
	if (unwritten != NULL)
		store_item_free(unwritten);
	else
		put_of(store, ITEM_DROP, key, 0, NULL);
}

void
store_put_pin(struct store *store, const struct profile_key *key, bool pinned)
{
	pthread_mutex_lock(&store->mutex);
	store_queue_keep(&store->queue, key);
	pthread_mutex_unlock(&store->mutex);
	put_of(store, pinned ? ITEM_PIN : ITEM_UNPIN, key, 0, NULL);
}

void
store_put_rollup(struct store *store, const struct store_rollup *rollup)
{
	const struct text *body = &rollup->body;
	struct store_item *item = store_item_new(ITEM_ROLLUP, body->data, body->length);
	item->rollup = *rollup;
	item->rollup.body = (struct text){.data = item->data, .length = item->length};
	put(store, item);
}

void
store_put_stacks(struct store *store, const struct text *stacks)
{
	put(store, store_item_new(ITEM_STACKS, stacks->data, stacks->length));
}

void
store_put_detail(struct store *store, const struct profile_key *key, const struct text *detail)
{
	put_of(store, ITEM_DETAIL, key, 0, detail);
}

void
store_put_tail(struct store *store, const struct profile_key *key, uint64_t tail_ns)
{
	put_of(store, ITEM_TAIL, key, tail_ns, NULL);
}

void
store_put_note(struct store *store, struct store_note *note)
{
	struct store_item *item = store_item_new(ITEM_NOTE, NULL, 0);
	item->note = *note;
	item->bytes += note->size;
	*note = (struct store_note){0};
	put(store, item);
}

void
store_each_unwritten(struct store *store, void (*each)(void *arg, const struct store_item *item),
                     void *arg)
{
	pthread_mutex_lock(&store->mutex);
	store_queue_each(&store->queue, each, arg);
	pthread_mutex_unlock(&store->mutex);
}

bool
store_freeze(struct store *store, uint32_t timeout_ms)
{
	struct timespec at = in_ms(timeout_ms);
	int late = 0;
	pthread_mutex_lock(&store->mutex);
	while (store->committing && late == 0)
		late = pthread_cond_timedwait(&store->done, &store->mutex, &at);
	bool frozen = !store->committing;
	store->frozen += frozen;
	pthread_mutex_unlock(&store->mutex);
	return frozen;
}

void
store_thaw(struct store *store)
{
	pthread_mutex_lock(&store->mutex);
	if (--store->frozen == 0)
		pthread_cond_broadcast(&store->done);
	pthread_mutex_unlock(&store->mutex);
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
write_minute(struct store_file *file, const struct store_item *item)
{
	struct store_minute minute = {.sums = item->minute};
	if (histogram_decode((const uint8_t *)item->data, item->length, &minute.total) != 0)
		return SQLITE_INTERNAL;
	return store_file_minute(file, &minute);
}

static int
write_item(struct store_file *file, const struct store_item *item, struct store_stats *stats)
{
	bool refused = false;
	int result;
	switch (item->kind) {
	case ITEM_EXCHANGE:
		return store_file_exchange(file, &item->exchange);
	case ITEM_MINUTE:
		return write_minute(file, item);
	case ITEM_LATE:
		return store_file_late(file, &item->of.key);
	case ITEM_NOTE:
		return store_notes_write(&file->notes, file->db, &item->note);
	case ITEM_TAIL:
		return store_file_tail(file, &item->of.key, item->of.tail_ns);
	case ITEM_DROP:
		result = store_file_drop(file, &item->of.key);
		stats->evicted_retention += result == SQLITE_OK;
		return result;
	case ITEM_PIN:
	case ITEM_UNPIN:
		result = store_file_pin(file, &item->of.key, item->kind == ITEM_PIN,
		                        clock_wall_ns() / NS_PER_S, &refused);
		stats->pins_refused += refused;
		return result;
	case ITEM_ROLLUP:
		return store_rollups_put(file, &item->rollup);
	case ITEM_STACKS:
		return store_rollups_stacks(file, item->data, item->length,
		                            clock_wall_ns() / NS_PER_S);
	case ITEM_DETAIL:
		return store_file_detail(file, &item->of.key, item->data, item->length);
	}
	return SQLITE_OK;
}

static int
write_all(struct store *store, const struct store_item *items, struct store_stats *stats)
{
	int result = store_file_begin(&store->file);
	for (const struct store_item *item = items; item != NULL && result == SQLITE_OK;
	     item = item->next) {
		result = write_item(&store->file, item, stats);
		stats->exchanges_written += item->kind == ITEM_EXCHANGE;
	}
	return result;
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

/* Commits what was written, or nothing. The items are the file's then, or lost. Returns them. */
static struct store_item *
finish_batch(struct store *store, size_t count, int result, struct store_stats *stats)
{
	pthread_mutex_lock(&store->mutex);
	store->committing = true; /* further readers wait: many of them shall not hold it up */
	while (store->frozen > 0)
		pthread_cond_wait(&store->done, &store->mutex);
	pthread_mutex_unlock(&store->mutex);
	if (result == SQLITE_OK)
		result = store_file_commit(&store->file);
	if (result != SQLITE_OK && store->file.db != NULL)
		failed(store, result);
	pthread_mutex_lock(&store->mutex);
	store->committing = false;
	pthread_cond_broadcast(&store->done);
	if (result == SQLITE_OK && !store->stats.writable)
		log_info("store: %s: can be written again", store->options.path);
	store->stats.writable = result == SQLITE_OK;
	memcpy(store->route_ids, store->file.route_ids, sizeof(store->route_ids));
	if (result == SQLITE_OK)
		stats_add(&store->stats, stats);
	else
		store->stats.dropped_error += count;
	struct store_item *items = store_queue_written(&store->queue);
	uint64_t earliest = store_items_earliest_minute(items);
	if (earliest < store->changes.written_from)
		store->changes.written_from = earliest;
	pthread_mutex_unlock(&store->mutex);
	return items;
}

/* One transaction. Items that cannot be written are dropped with it. */
static void
write_batch(struct store *store, const struct store_item *items, size_t count)
{
	struct store_stats stats = {0};
	int result = file_ready(store) ? write_all(store, items, &stats) : SQLITE_CANTOPEN;
	struct store_item *written = finish_batch(store, count, result, &stats);
	while (written != NULL) {
		struct store_item *next = written->next;
		store_item_free(written);
		written = next;
	}
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
	if (store->file.minutes_aged_to > store->changes.aged_to)
		store->changes.aged_to = store->file.minutes_aged_to;
	store->file.minutes_aged_to = 0;
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
		    store->queue.count > 0 ? store->first_ns + STORE_BATCH_MS * NS_PER_MS : idle_ns;
		if (store->stopping || (store->hurry && store->queue.count > 0) ||
		    store->queue.count >= STORE_BATCH_MAX || clock_now_ns() >= due_ns)
			return;
		wait_until(store, due_ns);
	}
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
		const struct store_item *items =
		    store_queue_take(&store->queue, STORE_BATCH_MAX, &count);
		store->first_ns = clock_now_ns();
		store->batch_serial = count > 0 ? items->serial : 0;
		pthread_mutex_unlock(&store->mutex);
		if (count > 0)
			write_batch(store, items, count);
		else
			file_ready(store);
		evict(store);
		store_file_checkpoint(&store->file);
		pthread_mutex_lock(&store->mutex);
		store->batch_serial = 0;
		store->hurry = store->hurry && store->queue.count > 0;
		pthread_cond_broadcast(&store->done);
		stop = store->stopping && store->queue.count == 0;
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
	store->changes.written_from = UINT64_MAX;
	store->queue.count_max = options->queue_max;
	store->queue.bytes_max = options->queue_bytes_max;
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

/* Of what is not done with (mutex held). */
static uint64_t
oldest_serial(const struct store *store)
{
	const struct store_item *first = store->queue.first;
	return store->batch_serial > 0 ? store->batch_serial
	       : first != NULL         ? first->serial
	                               : UINT64_MAX;
}

void
store_sync(struct store *store, uint32_t timeout_ms)
{
	struct timespec at = in_ms(timeout_ms);
	pthread_mutex_lock(&store->mutex);
	uint64_t wanted = store->queue.serial;
	while (oldest_serial(store) <= wanted) {
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
	ret->queued = store->queue.count;
	pthread_mutex_unlock(&store->mutex);
}

struct store_changes
store_take_changes(struct store *store)
{
	pthread_mutex_lock(&store->mutex);
	struct store_changes changes = store->changes;
	store->changes = (struct store_changes){.written_from = UINT64_MAX};
	pthread_mutex_unlock(&store->mutex);
	return changes;
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
