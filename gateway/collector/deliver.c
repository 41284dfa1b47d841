/* The outbox. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "collector/deliver_inside.h"
#include "collector/receivers.h"
#include "collector/store.h"
#include "collector/store_notes.h"

#define SECRET_MAX 8192
#define CA_MAX (4u << 20)

/* --- life -------------------------------------------------------------------------------- */

/* A file's content, NUL behind it. Fatal where it cannot be read. */
static char *
file_content(const char *path, size_t max, size_t *ret_size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0)
		fatal("%s: %s", path, strerror(errno));
	if (st.st_size < 0 || (size_t)st.st_size > max)
		fatal("%s: larger than %zu bytes", path, max);
	char *bytes = xcalloc(1, max + 1);
	ssize_t got, size = 0;
	while ((got = read(fd, bytes + size, max - (size_t)size)) > 0)
		size += got;
	if (got < 0)
		fatal("%s: %s", path, strerror(errno));
	close(fd);
	*ret_size = (size_t)size;
	return bytes;
}

/* A file's first line. */
static char *
secret(const char *path)
{
	size_t size;
	char *text = file_content(path, SECRET_MAX, &size);
	text[strcspn(text, "\r\n")] = '\0';
	if (text[0] == '\0')
		fatal("%s: its first line is empty", path);
	return text;
}

static void
receiver_init(struct deliver_receiver *receiver, const struct config_receiver *config)
{
	struct text url = {0};
	receiver->config = config;
	if (config->type == CONFIG_RECEIVER_LOG)
		return;
	char *base = config->url_file != NULL ? secret(config->url_file) : xstrdup(config->url);
	receivers_url(config->type, base, &url);
	free(base);
	receiver->url = url.data;
	if (config->token_file != NULL)
		receiver->token = secret(config->token_file);
	if (config->ca_file != NULL)
		receiver->ca = file_content(config->ca_file, CA_MAX, &receiver->ca_size);
}

/* Without receivers incidents are at least in the log. */
static const struct config_receiver log_receiver = {.type = CONFIG_RECEIVER_LOG};

struct deliver *
deliver_new(const struct config *config)
{
	struct deliver *deliver = xcalloc(1, sizeof(*deliver));
	deliver->config = config;
	deliver->chance = clock_now_ns() | 1;
	deliver->receiver_count = config->alerts.receiver_count;
	for (size_t i = 0; i < deliver->receiver_count; i++)
		receiver_init(&deliver->receivers[i], &config->alerts.receivers[i]);
	if (deliver->receiver_count == 0)
		receiver_init(&deliver->receivers[deliver->receiver_count++], &log_receiver);
	pthread_mutex_init(&deliver->mutex, NULL);
	return deliver;
}

static void
item_free(struct deliver_item *item)
{
	free(item->key);
	free(item->body);
	free(item);
}

void
deliver_free(struct deliver *deliver)
{
	if (deliver == NULL)
		return;
	while (deliver->items != NULL) {
		struct deliver_item *next = deliver->items->next;
		item_free(deliver->items);
		deliver->items = next;
	}
	for (size_t i = 0; i < deliver->receiver_count; i++) {
		free(deliver->receivers[i].url);
		free(deliver->receivers[i].token);
		free(deliver->receivers[i].ca);
	}
	pthread_mutex_destroy(&deliver->mutex);
	free(deliver);
}

/* --- the list (mutex held) --------------------------------------------------------------- */

/* "receiver key": what the store's outbox is keyed by. */
static char *
store_key(const struct deliver *deliver, const struct deliver_item *item)
{
	char *key = NULL;
	if (asprintf(&key, "%s %s", deliver->receivers[item->receiver].config->name, item->key) < 0)
		fatal("no memory");
	return key;
}

void
deliver_remove(struct deliver *deliver, struct deliver_item *item, bool done)
{
	struct deliver_item **at = &deliver->items;
	while (*at != item)
		at = &(*at)->next;
	*at = item->next;
	deliver->count--;
	if (done && !item->repeat) {
		struct store_note note = {.kind = STORE_NOTE_OUTBOX_DONE,
		                          .key = store_key(deliver, item)};
		store_put_note(deliver->store, &note);
	}
	item_free(item);
}

/* The oldest that is not on its way goes. */
static void
make_room(struct deliver *deliver)
{
	struct deliver_item *item = deliver->items;
	if (deliver->count < DELIVER_ITEMS_MAX)
		return;
	while (item != NULL && item->in_flight)
		item = item->next;
	if (item == NULL)
		return;
	deliver->receivers[item->receiver].stats.dropped_full++;
	deliver_remove(deliver, item, true);
}

static void
append(struct deliver *deliver, struct deliver_item *item)
{
	struct deliver_item **at = &deliver->items;
	make_room(deliver);
	while (*at != NULL)
		at = &(*at)->next;
	*at = item;
	deliver->count++;
}

/* --- adding ------------------------------------------------------------------------------ */

static bool
is_named(const struct deliver_receiver *receiver, char *const *names)
{
	if (names == NULL || receiver->config->name == NULL)
		return true;
	for (; *names != NULL; names++)
		if (strcmp(*names, receiver->config->name) == 0)
			return true;
	return false;
}

static const char *
text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text != NULL ? text : "";
}

static struct deliver_item *
item_new(size_t receiver, const json_t *payload, const char *body)
{
	struct deliver_item *item = xcalloc(1, sizeof(*item));
	json_int_t revision = json_integer_value(json_object_get(payload, "revision"));
	item->receiver = receiver;
	item->created_s = (int64_t)(clock_wall_ns() / NS_PER_S);
	item->body = xstrdup(body);
	snprintf(item->incident, sizeof(item->incident), "%s", text_of(payload, "id"));
	if (asprintf(&item->key, "%s-%s-%lld", text_of(payload, "id"), text_of(payload, "status"),
	             (long long)revision) < 0)
		fatal("no memory");
	return item;
}

static void
put_in_store(struct deliver *deliver, const struct deliver_item *item)
{
	struct store_note note = {.kind = STORE_NOTE_OUTBOX,
	                          .key = store_key(deliver, item),
	                          .number = item->created_s,
	                          .bytes = xstrdup(item->body),
	                          .size = strlen(item->body)};
	store_put_note(deliver->store, &note);
}

static void
log_incident(struct deliver_receiver *receiver, const json_t *payload)
{
	log_warn("incident %s %s: %s. %s", text_of(payload, "id"), text_of(payload, "status"),
	         text_of(payload, "title"), text_of(payload, "text"));
	receiver->stats.delivered++;
}

static void
add(struct deliver *deliver, size_t index, const json_t *payload, const char *body)
{
	struct deliver_receiver *receiver = &deliver->receivers[index];
	if (receiver->config->type == CONFIG_RECEIVER_LOG) {
		log_incident(receiver, payload);
		return;
	}
	struct deliver_item *item = item_new(index, payload, body);
	append(deliver, item);
	put_in_store(deliver, item);
}

static char *
body_of(const json_t *payload)
{
	char *body = json_dumps(payload, JSON_COMPACT);
	if (body == NULL)
		fatal("no memory for an alert");
	return body;
}

static void
wake(struct deliver *deliver)
{
	if (deliver->started)
		curl_multi_wakeup(deliver->multi);
}

void
deliver_publish(struct deliver *deliver, const json_t *payload, bool minor, char *const *receivers)
{
	char *body = body_of(payload);
	pthread_mutex_lock(&deliver->mutex);
	for (size_t i = 0; i < deliver->receiver_count; i++) {
		enum config_receiver_type type = deliver->receivers[i].config->type;
		bool chat = type == CONFIG_RECEIVER_SLACK || type == CONFIG_RECEIVER_LOG;
		if (is_named(&deliver->receivers[i], receivers) && !(minor && chat))
			add(deliver, i, payload, body);
	}
	pthread_mutex_unlock(&deliver->mutex);
	free(body);
	wake(deliver);
}

/* Whether anything of the incident still waits for that receiver: it says all a repetition says. */
static bool
waits(const struct deliver *deliver, size_t receiver, const char *incident)
{
	for (const struct deliver_item *item = deliver->items; item != NULL; item = item->next)
		if (item->receiver == receiver && strcmp(item->incident, incident) == 0)
			return true;
	return false;
}

void
deliver_repeat(struct deliver *deliver, const json_t *payload, char *const *receivers)
{
	char *body = NULL;
	pthread_mutex_lock(&deliver->mutex);
	for (size_t i = 0; i < deliver->receiver_count; i++) {
		if (deliver->receivers[i].config->type != CONFIG_RECEIVER_ALERTMANAGER ||
		    !is_named(&deliver->receivers[i], receivers) ||
		    waits(deliver, i, text_of(payload, "id")))
			continue;
		if (body == NULL)
			body = body_of(payload);
		struct deliver_item *item = item_new(i, payload, body);
		item->repeat = true;
		append(deliver, item);
	}
	pthread_mutex_unlock(&deliver->mutex);
	free(body);
	wake(deliver);
}

/* --- from the store ---------------------------------------------------------------------- */

static void
on_stored(void *arg, const struct store_note *note)
{
	struct deliver *deliver = arg;
	const char *key = strchr(note->key, ' ');
	json_t *payload = json_loadb(note->bytes, note->size, 0, NULL);
	for (size_t i = 0; key != NULL && payload != NULL && i < deliver->receiver_count; i++) {
		const struct deliver_receiver *receiver = &deliver->receivers[i];
		size_t length = (size_t)(key - note->key);
		if (receiver->url == NULL || strlen(receiver->config->name) != length ||
		    strncmp(receiver->config->name, note->key, length) != 0)
			continue;
		struct deliver_item *item = item_new(i, payload, note->bytes);
		free(item->key);
		item->key = xstrdup(key + 1);
		item->created_s = note->number;
		append(deliver, item);
		json_decref(payload);
		return;
	}
	/* The receiver is gone from the configuration. */
	json_decref(payload);
	struct store_note done = {.kind = STORE_NOTE_OUTBOX_DONE, .key = xstrdup(note->key)};
	store_put_note(deliver->store, &done);
}

void
deliver_start(struct deliver *deliver, struct store *store, const char *path)
{
	deliver->store = store;
	store_notes_load(path, STORE_NOTE_OUTBOX, on_stored, deliver);
	if (deliver->count > 0)
		log_info("alerts: %zu wait since the last run", deliver->count);
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		fatal("alerts: libcurl cannot be initialised");
	deliver->multi = curl_multi_init();
	if (deliver->multi == NULL)
		fatal("alerts: no memory");
	if (pthread_create(&deliver->thread, NULL, deliver_thread, deliver) != 0)
		fatal("alerts: no thread: %s", strerror(errno));
	deliver->started = true;
}

void
deliver_stop(struct deliver *deliver)
{
	if (!deliver->started)
		return;
	pthread_mutex_lock(&deliver->mutex);
	deliver->stopping = true;
	pthread_mutex_unlock(&deliver->mutex);
	curl_multi_wakeup(deliver->multi);
	pthread_join(deliver->thread, NULL);
	deliver->started = false;
	curl_multi_cleanup(deliver->multi);
	curl_global_cleanup();
}

void
deliver_stats(struct deliver *deliver, size_t index, struct deliver_stats *ret)
{
	pthread_mutex_lock(&deliver->mutex);
	*ret = deliver->receivers[index].stats;
	pthread_mutex_unlock(&deliver->mutex);
}

size_t
deliver_waiting(struct deliver *deliver)
{
	pthread_mutex_lock(&deliver->mutex);
	size_t count = deliver->count;
	pthread_mutex_unlock(&deliver->mutex);
	return count;
}
