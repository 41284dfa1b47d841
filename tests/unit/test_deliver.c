/* deliver, receivers: the outbox at its bound, what each kind is sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "collector/deliver.h"
#include "collector/receivers.h"
#include "collector/store.h"
#include "model/text.h"

static json_t *
payload(unsigned number, const char *status)
{
	return json_pack("{s:s+, s:s, s:i, s:s, s:s, s:s, s:s, s:n, s:{}}", "id", "incident", "x",
	                 "status", status, "revision", (int)number, "title", "p95 <rose> & fell",
	                 "text", "80 % of it", "route", "GET /a", "fired", "2026-05-01T14:02:00Z",
	                 "rule", "links");
}

/* Nobody listens there: everything waits. */
static void
test_the_outbox_at_its_bound(void **state)
{
	static char name[] = "ops", url[] = "http://127.0.0.1:1/";
	static struct config_receiver receiver = {
	    .name = name, .type = CONFIG_RECEIVER_WEBHOOK, .url = url, .timeout_ms = 1000};
	static struct config config;
	char path[] = "/tmp/tailrace-deliver-XXXXXX";
	struct store_options options = {.path = path,
	                                .max_bytes = 1 << 24,
	                                .queue_max = STORE_QUEUE_MAX,
	                                .queue_bytes_max = STORE_QUEUE_BYTES_MAX};
	struct deliver_stats stats;

	(void)state;
	close(mkstemp(path));
	config.alerts.receivers = &receiver;
	config.alerts.receiver_count = 1;
	struct store *store = store_start(&options);
	struct deliver *deliver = deliver_new(&config);
	deliver_start(deliver, store, path);
	for (unsigned i = 1; i <= DELIVER_ITEMS_MAX; i++) {
		json_t *one = payload(i, "firing");
		deliver_publish(deliver, one, false, NULL);
		json_decref(one);
	}
	deliver_stats(deliver, 0, &stats);
	assert_int_equal(deliver_waiting(deliver), DELIVER_ITEMS_MAX);
	assert_int_equal(stats.dropped_full, 0);
	json_t *last = payload(DELIVER_ITEMS_MAX + 1, "resolved");
	deliver_publish(deliver, last, false, NULL);
	deliver_stats(deliver, 0, &stats);
	assert_int_equal(deliver_waiting(deliver), DELIVER_ITEMS_MAX);
	assert_int_equal(stats.dropped_full, 1);
	json_decref(last);
	deliver_stop(deliver);
	deliver_free(deliver);
	store_stop(store);

	/* The next run has what was left, and not what was dropped. */
	store = store_start(&options);
	store_sync(store, 2000);
	deliver = deliver_new(&config);
	deliver_start(deliver, store, path);
	assert_int_equal(deliver_waiting(deliver), DELIVER_ITEMS_MAX);
	deliver_stop(deliver);
	deliver_free(deliver);
	/* A receiver that is gone from the configuration takes its alerts along. */
	config.alerts.receiver_count = 0;
	deliver = deliver_new(&config);
	deliver_start(deliver, store, path);
	assert_int_equal(deliver_waiting(deliver), 0);
	deliver_stop(deliver);
	deliver_free(deliver);
	store_stop(store);
	unlink(path);
}

static json_t *
sent(enum config_receiver_type type, const json_t *one)
{
	struct text body = {0};

	receivers_body(type, one, &body);
	json_t *object = json_loads(body.data, 0, NULL);
	text_free(&body);
	return object;
}

static void
test_forms(void **state)
{
	json_t *one = payload(3, "firing"), *object, *alert;
	const char *key, *text;
	char expected[160];
	json_t *value;

	(void)state;
	object = sent(CONFIG_RECEIVER_WEBHOOK, one);
	assert_true(json_equal(object, one));
	json_decref(object);
	object = sent(CONFIG_RECEIVER_SLACK, one);
	text = json_string_value(json_object_get(object, "text"));
	snprintf(expected, sizeof(expected),
	         "*p95 &lt;rose&gt; &amp; fell*\n80 %% of it\nMore: `tailrace incidents %s`",
	         json_string_value(json_object_get(one, "id")));
	assert_string_equal(text, expected);
	json_decref(object);
	json_object_set_new(one, "links", json_pack("{s:s}", "dashboard", "https://t/#/i"));
	object = sent(CONFIG_RECEIVER_SLACK, one);
	text = json_string_value(json_object_get(object, "text"));
	assert_string_equal(text, "*p95 &lt;rose&gt; &amp; fell*\n80 % of it\n"
	                          "<https://t/#/i|Look at it>");
	json_decref(object);
	object = sent(CONFIG_RECEIVER_ALERTMANAGER, one);
	alert = json_array_get(object, 0);
	json_object_foreach(json_object_get(alert, "labels"), key, value)
	    assert_null(strpbrk(json_string_value(value), "0123456789"));
	assert_null(json_object_get(alert, "endsAt"));
	json_decref(object);
	json_object_set_new(one, "status", json_string("resolved"));
	json_object_set_new(one, "ended", json_string("2026-05-01T15:02:00Z"));
	object = sent(CONFIG_RECEIVER_ALERTMANAGER, one);
	alert = json_array_get(object, 0);
	assert_string_equal(json_string_value(json_object_get(alert, "endsAt")),
	                    "2026-05-01T15:02:00Z");
	json_decref(object);
	json_decref(one);
}

static void
test_addresses(void **state)
{
	static const char *const urls[][2] = {{"http://h:9093", "http://h:9093/api/v2/alerts"},
	                                      {"http://h/am/", "http://h/am/api/v2/alerts"},
	                                      {"http://h/api/v2/alerts", "http://h/api/v2/alerts"}};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct text url = {0};

		receivers_url(CONFIG_RECEIVER_ALERTMANAGER, urls[i][0], &url);
		assert_string_equal(url.data, urls[i][1]);
		text_free(&url);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_the_outbox_at_its_bound),
	    cmocka_unit_test(test_forms),
	    cmocka_unit_test(test_addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
