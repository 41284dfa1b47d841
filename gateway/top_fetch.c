/* Asking in the background. */
#include "top_fetch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "client_tools.h"

#define ASK_TIMEOUT_MS 2000
#define EVERY_S 1
#define REQUESTS_SHOWN 30

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	const char *control;
	struct top_wish wish;
	struct top_news news;
	bool has_news, hurry;
	int fd;
} shared = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* --- asking ----------------------------------------------------------------- */

/* Null with the reason in `fault`. */
static json_t *
ask(const char *control, const char *path, char *fault, size_t size)
{
	struct control_answer answer = {0};
	json_t *root = NULL;

	if (control_get(control, path, &answer, fault, size) != 0)
		return NULL;
	if (answer.status == 200)
		root = json_loadb(answer.body, answer.length, 0, NULL);
	if (root == NULL)
		snprintf(fault, size, "the gateway answers %d to %s", answer.status, path);
	control_answer_free(&answer);
	return root;
}

json_t *
top_ask_flame(const char *control, json_int_t id, uint64_t window_s)
{
	uint64_t now_s = clock_wall_ns() / NS_PER_S;
	char path[160], ignored[512];

	snprintf(path, sizeof(path), "/api/v1/routes/%lld/flame?from=%llu&to=%llu", (long long)id,
	         (unsigned long long)(now_s - window_s), (unsigned long long)now_s + 1);
	return ask(control, path, ignored, sizeof(ignored));
}

void
top_ask(const char *control, const struct top_wish *wish, struct top_news *ret)
{
	char path[CLIENT_PATH_BYTES_MAX], ignored[512];

	*ret = (struct top_news){.window_s = wish->window_s, .shown = wish->shown};
	ret->minute = ask(control, "/api/v1/routes?window=60s", ret->fault, sizeof(ret->fault));
	ret->at_ns = clock_now_ns();
	if (ret->minute == NULL)
		return;
	snprintf(path, sizeof(path), "/api/v1/routes?window=%llus",
	         (unsigned long long)wish->window_s);
	ret->routes = wish->window_s == 60 ? json_incref(ret->minute)
	                                   : ask(control, path, ret->fault, sizeof(ret->fault));
	if (ret->routes == NULL)
		return;
	ret->status = ask(control, "/api/v1/status", ignored, sizeof(ignored));
	ret->noted_of = wish->shown != 0 ? wish->shown : wish->noted;
	if (wish->shown != 0) {
		snprintf(path, sizeof(path),
		         "/api/v1/requests?sort=slowest&limit=%d&route=", REQUESTS_SHOWN);
		client_append_encoded(path, sizeof(path), wish->shown_name);
		ret->flame = top_ask_flame(control, wish->shown, wish->window_s);
		ret->requests = ask(control, path, ignored, sizeof(ignored));
	} else if (wish->noted != 0) {
		ret->noted = top_ask_flame(control, wish->noted, wish->window_s);
	}
}

void
top_news_free(struct top_news *news)
{
	json_decref(news->minute);
	json_decref(news->routes);
	json_decref(news->status);
	json_decref(news->noted);
	json_decref(news->flame);
	json_decref(news->requests);
	*news = (struct top_news){0};
}

/* --- the thread ---------------------------------------------------------------- */

static void
rest(void)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += EVERY_S;
	while (!shared.hurry &&
	       pthread_cond_timedwait(&shared.wake, &shared.mutex, &until) != ETIMEDOUT)
		;
	shared.hurry = false;
}

static void *
run(void *arg)
{
	const uint64_t one = 1;

	(void)arg;
	pthread_mutex_lock(&shared.mutex);
	for (;;) {
		struct top_wish wish = shared.wish;
		struct top_news news;

		pthread_mutex_unlock(&shared.mutex);
		top_ask(shared.control, &wish, &news);
		pthread_mutex_lock(&shared.mutex);
		top_news_free(&shared.news);
		shared.news = news;
		shared.has_news = true;
		while (write(shared.fd, &one, sizeof(one)) == -1 && errno == EINTR)
			;
		rest();
	}
	return NULL;
}

int
top_fetch_begin(const char *control, const struct top_wish *wish)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	pthread_condattr_t steady;
	pthread_t thread;
	sigset_t all, before;
	int error;

	control_set_timeout(ASK_TIMEOUT_MS);
	shared.control = control;
	shared.wish = *wish;
	shared.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (shared.fd == -1)
		return -1;
	pthread_condattr_init(&steady);
	pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
	pthread_cond_init(&shared.wake, &steady);
	pthread_condattr_destroy(&steady);
	sigfillset(&all);
	for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
		sigdelset(&all, crashes[i]);         /* those are whose they happen to */
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the other thread's */
	error = pthread_create(&thread, NULL, run, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error != 0) {
		errno = error;
		return -1;
	}
	pthread_detach(thread);
	return shared.fd;
}

void
top_fetch_wish(const struct top_wish *wish, bool now)
{
	pthread_mutex_lock(&shared.mutex);
	shared.wish = *wish;
	if (now) {
		shared.hurry = true;
		pthread_cond_signal(&shared.wake);
	}
	pthread_mutex_unlock(&shared.mutex);
}

bool
top_fetch_take(struct top_news *ret)
{
	uint64_t count;
	bool found;

	while (read(shared.fd, &count, sizeof(count)) == -1 && errno == EINTR)
		;
	pthread_mutex_lock(&shared.mutex);
	found = shared.has_news;
	if (found) {
		*ret = shared.news;
		shared.news = (struct top_news){0};
		shared.has_news = false;
	}
	pthread_mutex_unlock(&shared.mutex);
	return found;
}
