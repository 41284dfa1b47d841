/* What deliver.c (the outbox) and deliver_send.c (the thread) share: nobody else's. */
#ifndef TAILRACE_COLLECTOR_DELIVER_INSIDE_H
#define TAILRACE_COLLECTOR_DELIVER_INSIDE_H

#include <curl/curl.h>
#include <pthread.h>
#include "collector/deliver.h"
#include "model/text.h"

#define DELIVER_INCIDENT_SIZE 33

struct deliver_item {
	struct deliver_item *next;
	size_t receiver;
	char *key;                            /* owned: incident-status-revision */
	char incident[DELIVER_INCIDENT_SIZE]; /* what order is kept by */
	bool repeat;                          /* not in the store */
	bool in_flight, blamed;               /* on its way; called bad by its receiver */
	unsigned attempts;
	uint64_t due_ns;
	int64_t created_s; /* wall clock */
	char *body;        /* owned: the payload */
};

struct deliver_receiver {
	const struct config_receiver *config; /* borrowed */
	char *url;                            /* owned; null for a log */
	char *token;                          /* owned; null = none */
	char *ca;                             /* owned: PEM; null = the system's */
	size_t ca_size;
	struct deliver_stats stats;
	/* The delivery thread's, but for `busy`. */
	struct deliver_item *busy; /* on its way; null = idle */
	unsigned failures;         /* in a row */
	uint64_t due_ns;           /* not before */
	CURL *curl;                /* owned */
	struct curl_slist *headers;
	struct text posted;
	bool complained;
	char error[CURL_ERROR_SIZE];
};

struct deliver {
	const struct config *config;
	struct store *store;
	pthread_t thread;
	bool started;
	pthread_mutex_t mutex;      /* guards the list, the stats, `busy` and `stopping` */
	struct deliver_item *items; /* oldest first */
	size_t count;
	bool stopping;
	struct deliver_receiver receivers[CONFIG_RECEIVERS_MAX];
	size_t receiver_count;
	CURLM *multi;    /* the thread's; only curl_multi_wakeup() from others */
	uint64_t chance; /* of the jitter; the thread's */
};

/* Takes an item out of the list and frees it (mutex held). With `done` also out of the store. */
void deliver_remove(struct deliver *deliver, struct deliver_item *item, bool done);

/* The delivery thread. */
void *deliver_thread(void *deliver);

#endif
