/* The delivery thread: one request at a time to each receiver, by libcurl. */
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/xmem.h"
#include "collector/deliver_inside.h"
#include "collector/receivers.h"

#define IDLE_MS 60000
#define STATUS_TIMEOUT 408
#define STATUS_TOO_EARLY 425
#define STATUS_TOO_MANY 429

/* --- choosing (mutex held) --------------------------------------------------------------- */

/* An earlier revision of the same incident must have arrived before. */
static bool
is_first(const struct deliver *deliver, const struct deliver_item *item)
{
	const struct deliver_item *earlier = deliver->items;
	for (; earlier != item; earlier = earlier->next)
		if (earlier->receiver == item->receiver &&
		    strcmp(earlier->incident, item->incident) == 0)
			return false;
	return true;
}

static bool
is_too_old(const struct deliver_item *item)
{
	int64_t age_s = (int64_t)(clock_wall_ns() / NS_PER_S) - item->created_s;
	return age_s >
	       (item->attempts > 0 && item->blamed ? DELIVER_BAD_AGE_MAX_S : DELIVER_AGE_MAX_S);
}

static void
drop_old(struct deliver *deliver)
{
	struct deliver_item *next;
	for (struct deliver_item *item = deliver->items; item != NULL; item = next) {
		next = item->next;
		if (item->in_flight || !is_too_old(item))
			continue;
		deliver->receivers[item->receiver].stats.dropped_age++;
		log_error("alerts: %s: %s is given up",
		          deliver->receivers[item->receiver].config->name, item->key);
		deliver_remove(deliver, item, true);
	}
}

/* What an idle receiver is to be sent now; null = nothing. *next_ns becomes when to look again. */
static struct deliver_item *
next_item(struct deliver *deliver, size_t index, uint64_t now_ns, uint64_t *next_ns)
{
	const struct deliver_receiver *receiver = &deliver->receivers[index];
	for (struct deliver_item *item = deliver->items; item != NULL; item = item->next) {
		uint64_t due_ns = item->due_ns > receiver->due_ns ? item->due_ns : receiver->due_ns;
		if (item->receiver != index || !is_first(deliver, item))
			continue;
		if (due_ns <= now_ns)
			return item;
		if (due_ns < *next_ns)
			*next_ns = due_ns;
	}
	return NULL;
}

/* --- one request ------------------------------------------------------------------------- */

static size_t
ignore_body(char *data, size_t size, size_t count, void *arg)
{
	(void)data;
	(void)arg;
	return size * count;
}

static void
add_header(struct deliver_receiver *receiver, const char *name, const char *value)
{
	struct text line = {0};
	text_printf(&line, "%s: %s", name, value);
	struct curl_slist *grown = curl_slist_append(receiver->headers, line.data);
	if (grown != NULL)
		receiver->headers = grown;
	text_free(&line);
}

static void
set_headers(struct deliver_receiver *receiver, const struct deliver_item *item)
{
	curl_slist_free_all(receiver->headers);
	receiver->headers = NULL;
	add_header(receiver, "Content-Type", "application/json");
	if (receiver->config->type == CONFIG_RECEIVER_WEBHOOK)
		add_header(receiver, "Idempotency-Key", item->key);
	if (receiver->token != NULL) {
		struct text bearer = {0};
		text_printf(&bearer, "Bearer %s", receiver->token);
		add_header(receiver, "Authorization", bearer.data);
		text_free(&bearer);
	}
	/* Small bodies: no round trip to ask whether they may come. */
	struct curl_slist *grown = curl_slist_append(receiver->headers, "Expect:");
	if (grown != NULL)
		receiver->headers = grown;
}

static void
set_options(struct deliver_receiver *receiver)
{
	CURL *curl = receiver->curl;
	curl_easy_setopt(curl, CURLOPT_URL, receiver->url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)receiver->config->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "tailrace/" TAILRACE_VERSION);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, ignore_body);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, receiver->error);
	curl_easy_setopt(curl, CURLOPT_PRIVATE, receiver);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, receiver->headers);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, receiver->posted.data);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)receiver->posted.length);
	if (receiver->ca != NULL) {
		struct curl_blob ca = {receiver->ca, receiver->ca_size, CURL_BLOB_NOCOPY};
		curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &ca);
	}
}

/* Returns false where it cannot even be begun. */
static bool
start(struct deliver *deliver, struct deliver_receiver *receiver, const struct deliver_item *item)
{
	json_t *payload = json_loads(item->body, 0, NULL);
	text_reset(&receiver->posted);
	receivers_body(receiver->config->type, payload, &receiver->posted);
	json_decref(payload);
	if (receiver->curl == NULL)
		receiver->curl = curl_easy_init();
	if (receiver->curl == NULL || receiver->posted.failed)
		return false;
	receiver->error[0] = '\0';
	set_headers(receiver, item);
	set_options(receiver);
	return curl_multi_add_handle(deliver->multi, receiver->curl) == CURLM_OK;
}

/* --- and its end ------------------------------------------------------------------------- */

/* Doubles with each failure, half to one and a half of that. */
static uint64_t
backoff_ns(struct deliver *deliver, unsigned failures)
{
	uint64_t ms = DELIVER_BACKOFF_FIRST_MS;
	for (unsigned i = 1; i < failures && ms < DELIVER_BACKOFF_MAX_MS; i++)
		ms *= 2;
	if (ms > DELIVER_BACKOFF_MAX_MS)
		ms = DELIVER_BACKOFF_MAX_MS;
	deliver->chance ^= deliver->chance << 13;
	deliver->chance ^= deliver->chance >> 7;
	deliver->chance ^= deliver->chance << 17;
	return (ms / 2 + deliver->chance % (ms + 1)) * NS_PER_MS;
}

static bool
blames_item(long status)
{
	return status >= 400 && status < 500 && status != STATUS_TIMEOUT &&
	       status != STATUS_TOO_EARLY && status != STATUS_TOO_MANY;
}

static void
complain(struct deliver_receiver *receiver, long status)
{
	if (receiver->complained)
		return;
	receiver->complained = true;
	if (status > 0)
		log_warn("alerts: %s answers %ld; it is tried again", receiver->config->name,
		         status);
	else
		log_warn("alerts: %s is not reached: %s; it is tried again", receiver->config->name,
		         receiver->error);
}

static void
failed(struct deliver *deliver, struct deliver_receiver *receiver, struct deliver_item *item,
       long status, long retry_after_s)
{
	uint64_t now_ns = clock_now_ns(), wait_ns;
	receiver->stats.failed++;
	item->attempts++;
	complain(receiver, status);
	if (item->repeat) {
		/* The next one is made in a minute. */
		receiver->failures++;
		receiver->due_ns = now_ns + backoff_ns(deliver, receiver->failures);
		deliver_remove(deliver, item, false);
	} else if (blames_item(status)) {
		item->blamed = true;
		item->due_ns = now_ns + backoff_ns(deliver, item->attempts);
	} else {
		receiver->failures++;
		wait_ns = backoff_ns(deliver, receiver->failures);
		if (retry_after_s > 0 && (uint64_t)retry_after_s <= 3600 &&
		    (uint64_t)retry_after_s * NS_PER_S > wait_ns)
			wait_ns = (uint64_t)retry_after_s * NS_PER_S;
		receiver->due_ns = now_ns + wait_ns;
	}
}

static void
ended(struct deliver *deliver, struct deliver_receiver *receiver, CURLcode result)
{
	long status = 0;
	curl_off_t retry_after_s = 0;
	curl_easy_getinfo(receiver->curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(receiver->curl, CURLINFO_RETRY_AFTER, &retry_after_s);
	if (receiver->error[0] == '\0' && result != CURLE_OK)
		strncpy(receiver->error, curl_easy_strerror(result), sizeof(receiver->error) - 1);
	pthread_mutex_lock(&deliver->mutex);
	struct deliver_item *item = receiver->busy;
	receiver->busy = NULL;
	item->in_flight = false;
	if (result == CURLE_OK && status >= 200 && status < 300) {
		receiver->stats.delivered++;
		receiver->failures = 0;
		receiver->due_ns = 0;
		if (receiver->complained)
			log_info("alerts: %s is reached again", receiver->config->name);
		receiver->complained = false;
		deliver_remove(deliver, item, true);
	} else {
		failed(deliver, receiver, item, result == CURLE_OK ? status : 0,
		       (long)retry_after_s);
	}
	pthread_mutex_unlock(&deliver->mutex);
}

/* --- the thread -------------------------------------------------------------------------- */

/* Gives idle receivers what is due. Returns when to look again. */
static uint64_t
start_due(struct deliver *deliver)
{
	uint64_t now_ns = clock_now_ns(), next_ns = now_ns + IDLE_MS * NS_PER_MS;
	pthread_mutex_lock(&deliver->mutex);
	drop_old(deliver);
	for (size_t i = 0; i < deliver->receiver_count; i++) {
		struct deliver_receiver *receiver = &deliver->receivers[i];
		if (receiver->busy != NULL || receiver->url == NULL)
			continue;
		struct deliver_item *item = next_item(deliver, i, now_ns, &next_ns);
		if (item == NULL)
			continue;
		if (!start(deliver, receiver, item)) {
			failed(deliver, receiver, item, 0, 0);
			continue;
		}
		item->in_flight = true;
		receiver->busy = item;
	}
	pthread_mutex_unlock(&deliver->mutex);
	return next_ns;
}

/* Returns whether any ended: then more may be due. */
static bool
take_ended(struct deliver *deliver)
{
	CURLMsg *message;
	bool any = false;
	int left;
	while ((message = curl_multi_info_read(deliver->multi, &left)) != NULL) {
		struct deliver_receiver *receiver;
		CURLcode result = message->data.result;
		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&receiver);
		curl_multi_remove_handle(deliver->multi, receiver->curl);
		ended(deliver, receiver, result);
		any = true;
	}
	return any;
}

static bool
any_busy(struct deliver *deliver)
{
	bool busy = false;
	for (size_t i = 0; i < deliver->receiver_count; i++)
		busy = busy || deliver->receivers[i].busy != NULL;
	return busy;
}

static void
clean_up(struct deliver *deliver)
{
	for (size_t i = 0; i < deliver->receiver_count; i++) {
		struct deliver_receiver *receiver = &deliver->receivers[i];
		if (receiver->busy != NULL)
			curl_multi_remove_handle(deliver->multi, receiver->curl);
		receiver->busy = NULL;
		curl_easy_cleanup(receiver->curl);
		curl_slist_free_all(receiver->headers);
		text_free(&receiver->posted);
	}
}

static bool
is_stopping(struct deliver *deliver)
{
	pthread_mutex_lock(&deliver->mutex);
	bool stopping = deliver->stopping;
	pthread_mutex_unlock(&deliver->mutex);
	return stopping;
}

/* What is due is still begun after the end was asked for, and gets DELIVER_STOP_MS to arrive. */
void *
deliver_thread(void *arg)
{
	struct deliver *deliver = arg;
	uint64_t stop_ns = UINT64_MAX;
	for (;;) {
		int running;
		uint64_t next_ns = start_due(deliver), now_ns;
		curl_multi_perform(deliver->multi, &running);
		bool more = take_ended(deliver);
		now_ns = clock_now_ns();
		if (stop_ns == UINT64_MAX && is_stopping(deliver))
			stop_ns = now_ns + DELIVER_STOP_MS * NS_PER_MS;
		if (more && now_ns < stop_ns)
			continue;
		if (stop_ns != UINT64_MAX && (now_ns >= stop_ns || !any_busy(deliver)))
			break;
		if (next_ns > stop_ns)
			next_ns = stop_ns;
		curl_multi_poll(deliver->multi, NULL, 0,
		                next_ns > now_ns ? (int)((next_ns - now_ns) / NS_PER_MS) + 1 : 1,
		                NULL);
	}
	clean_up(deliver);
	return NULL;
}
