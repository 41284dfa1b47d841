/* Subscribers, their filters, their buffers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/api_tools.h"
#include "collector/live.h"
#include "collector/render.h"
#include "collector/reply.h"

struct subscriber {
	struct evhttp_request *request; /* ours to end, once begun */
	bool gone;                      /* its connection is */
	bool lags;
	bool has_route;
	char route[ROUTE_NAME_MAX + 1];
	char contains[ROUTE_NAME_MAX + 1]; /* lower case; "" = any */
	uint64_t min_ns;
	uint32_t per_s;     /* 0 = all */
	uint64_t second_ns; /* the second that `sent` counts in began */
	uint32_t sent;
	uint64_t dropped, skipped; /* not told yet */
	uint64_t last_ns;          /* something was sent */
	int untaken;               /* bytes that the kernel held at `taken_ns` */
	uint64_t taken_ns;         /* its reader took some since then, or had nothing to take */
};

struct live {
	struct subscriber *subscribers[LIVE_SUBSCRIBERS_MAX]; /* owned */
	size_t count;
	uint64_t *counters; /* of the service */
	bool (*admitted)(void *arg, struct evhttp_request *request);
	void *admitted_arg;
	uint64_t checked_ns;
	bool closed;
};

struct live *
live_new(uint64_t *counters)
{
	struct live *live = xcalloc(1, sizeof(*live));
	live->counters = counters;
	return live;
}

void
live_watch(struct live *live, bool (*admitted)(void *arg, struct evhttp_request *request),
           void *arg)
{
	live->admitted = admitted;
	live->admitted_arg = arg;
}

void
live_free(struct live *live)
{
	free(live);
}

size_t
live_subscribers(const struct live *live)
{
	return live->count;
}

/* --- writing ------------------------------------------------------------------------------ */

/* Null: its connection is gone. */
static struct bufferevent *
bufferevent_of(const struct subscriber *s)
{
	struct evhttp_connection *connection = evhttp_request_get_connection(s->request);
	return connection != NULL ? evhttp_connection_get_bufferevent(connection) : NULL;
}

static size_t
waiting(const struct subscriber *s)
{
	struct bufferevent *bev = bufferevent_of(s);
	return bev != NULL ? evbuffer_get_length(bufferevent_get_output(bev)) : 0;
}

static void
send_bytes(struct subscriber *s, const char *bytes, size_t length, uint64_t now_ns)
{
	struct evbuffer *buffer = evbuffer_new();
	s->last_ns = now_ns;
	if (buffer != NULL && evbuffer_add(buffer, bytes, length) == 0)
		evhttp_send_reply_chunk(s->request, buffer);
	if (buffer != NULL)
		evbuffer_free(buffer);
}

static void
send_count(struct subscriber *s, const char *event, uint64_t *count, uint64_t now_ns)
{
	char text[96];
	int length = snprintf(text, sizeof(text), "event: %s\ndata: {\"count\":%llu}\n\n", event,
	                      (unsigned long long)*count);
	*count = 0;
	send_bytes(s, text, (size_t)length, now_ns);
}

/* Whether there is room: a reader that came to the limit gets nothing until half of it is taken. */
static bool
has_room(struct subscriber *s, size_t length)
{
	size_t held = waiting(s);
	if (s->lags ? held > LIVE_BUFFER_AGAIN : held + length > LIVE_BUFFER_MAX)
		s->lags = true;
	else
		s->lags = false;
	return !s->lags;
}

/* --- what ends ----------------------------------------------------------------------------- */

static bool
fits(const struct subscriber *s, const char *route, const char *lower, uint64_t total_ns)
{
	if (s->gone || total_ns < s->min_ns)
		return false;
	if (s->has_route && strcmp(s->route, route) != 0)
		return false;
	return s->contains[0] == '\0' || strstr(lower, s->contains) != NULL;
}

static void
lower_case(const char *from, char *to, size_t size)
{
	size_t i = 0;
	for (; from[i] != '\0' && i + 1 < size; i++)
		to[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] + 32 : from[i]);
	to[i] = '\0';
}

static bool
over_rate(struct subscriber *s, uint64_t now_ns)
{
	if (s->per_s == 0)
		return false;
	if (now_ns - s->second_ns >= NS_PER_S) {
		if (s->skipped > 0 && has_room(s, 0))
			send_count(s, "skipped", &s->skipped, now_ns);
		s->second_ns = now_ns;
		s->sent = 0;
	}
	return s->sent++ >= s->per_s;
}

static void
give(struct live *live, struct subscriber *s, const struct text *event, uint64_t now_ns)
{
	if (over_rate(s, now_ns)) {
		s->skipped++;
		return;
	}
	if (!has_room(s, event->length)) {
		s->dropped++;
		live->counters[SERVICE_LIVE_DROPPED]++;
		return;
	}
	if (s->dropped > 0)
		send_count(s, "dropped", &s->dropped, now_ns);
	send_bytes(s, event->data, event->length, now_ns);
}

void
live_add(struct live *live, const struct exchange_record *record, size_t size, const char *route,
         bool has_profile)
{
	char lower[ROUTE_NAME_MAX + 1];
	struct text event = {0};
	uint64_t now_ns;
	if (live->count == 0)
		return;
	now_ns = clock_now_ns();
	lower_case(route, lower, sizeof(lower));
	for (size_t i = 0; i < live->count; i++) {
		uint64_t total_ns = record->marks_ns[MARK_END] - record->marks_ns[MARK_START];
		if (!fits(live->subscribers[i], route, lower, total_ns))
			continue;
		if (event.length == 0) { /* made once for all */
			text_puts(&event, "event: exchange\ndata: ");
			render_live(&event, record, size, route, has_profile, LIVE_PATH_MAX);
			text_puts(&event, "\n\n");
		}
		if (!event.failed)
			give(live, live->subscribers[i], &event, now_ns);
	}
	text_free(&event);
}

/* --- subscribers ---------------------------------------------------------------------------- */

static void
on_gone(struct evhttp_connection *connection, void *arg)
{
	struct subscriber *s = arg;
	(void)connection;
	s->gone = true;
}

/* evhttp leaves a request whose connection went to us: ending it frees it. */
static void
end(struct live *live, size_t at)
{
	struct subscriber *s = live->subscribers[at];
	struct evhttp_connection *connection = evhttp_request_get_connection(s->request);
	if (connection != NULL)
		evhttp_connection_set_closecb(connection, NULL, NULL);
	evhttp_send_reply_end(s->request);
	free(s);
	live->subscribers[at] = live->subscribers[--live->count];
}

/* Whether its reader has taken nothing of what waits for it for too long. */
static bool
stalls(struct subscriber *s, uint64_t now_ns)
{
	int untaken = 0;
	if (waiting(s) == 0 ||
	    ioctl(bufferevent_getfd(bufferevent_of(s)), SIOCOUTQ, &untaken) != 0 ||
	    untaken != s->untaken) {
		s->untaken = untaken;
		s->taken_ns = now_ns;
	}
	return now_ns - s->taken_ns >= LIVE_STALL_S * NS_PER_S;
}

/* Ends it for that reason, and says so to who reads. */
static void
end_for(struct live *live, size_t at, enum live_end why, uint64_t now_ns)
{
	static const char *const names[LIVE_ENDS] = {"logged_out", "reader_sent", "stalled",
	                                             "stopping"};
	static const enum service_counter counters[LIVE_ENDS] = {
	    SERVICE_LIVE_LOGGED_OUT, SERVICE_LIVE_READER_SENT, SERVICE_LIVE_STALLED};
	char text[64];
	int length =
	    snprintf(text, sizeof(text), "event: end\ndata: {\"reason\":\"%s\"}\n\n", names[why]);
	if (why != LIVE_STOPPING)
		live->counters[counters[why]]++;
	struct subscriber *s = live->subscribers[at];
	struct bufferevent *bev = bufferevent_of(s);
	const struct timeval flush = {.tv_sec = LIVE_STALL_S};
	send_bytes(s, text, (size_t)length, now_ns);
	if (bev != NULL)
		bufferevent_set_timeouts(bev, &flush, &flush);
	if (bev != NULL && why == LIVE_STALLED)
		shutdown(bufferevent_getfd(bev), SHUT_RDWR);
	end(live, at);
}

/* Those who are gone, sent something, read nothing, or may read no longer. */
static void
end_some(struct live *live, uint64_t now_ns)
{
	bool look = live->admitted != NULL && now_ns - live->checked_ns >= LIVE_CHECK_NS;
	if (look)
		live->checked_ns = now_ns;
	for (size_t i = live->count; i-- > 0;) {
		struct subscriber *s = live->subscribers[i];
		if (s->gone || evhttp_request_get_connection(s->request) == NULL)
			end(live, i);
		else if (evbuffer_get_length(bufferevent_get_input(bufferevent_of(s))) >
		         LIVE_INPUT_MAX)
			end_for(live, i, LIVE_READER_SENT, now_ns);
		else if (stalls(s, now_ns))
			end_for(live, i, LIVE_STALLED, now_ns);
		else if (look && !live->admitted(live->admitted_arg, s->request))
			end_for(live, i, LIVE_LOGGED_OUT, now_ns);
	}
}

void
live_tick(struct live *live, uint64_t now_ns)
{
	end_some(live, now_ns);
	for (size_t i = live->count; i-- > 0;) {
		struct subscriber *s = live->subscribers[i];
		/* Where none came since; else the first of the next second has told it. */
		if (s->skipped > 0 && now_ns - s->second_ns >= NS_PER_S && has_room(s, 0))
			send_count(s, "skipped", &s->skipped, now_ns);
		if (s->dropped > 0 && has_room(s, 0))
			send_count(s, "dropped", &s->dropped, now_ns);
		if (now_ns - s->last_ns >= LIVE_PING_NS && waiting(s) == 0)
			send_bytes(s, ":\n\n", 3, now_ns);
	}
}

void
live_close(struct live *live)
{
	live->closed = true;
	while (live->count > 0)
		end_for(live, live->count - 1, LIVE_STOPPING, clock_now_ns());
}

#define TEXT_OF(number) #number
#define TEXT(macro) TEXT_OF(macro)

/* Fills the filters. Returns null, or what is wrong. */
static const char *
parameters(struct evkeyvalq *query, struct subscriber *s)
{
	const char *route = evhttp_find_header(query, "route");
	const char *contains = evhttp_find_header(query, "contains");
	int64_t min_ms = api_integer(evhttp_find_header(query, "min_ms"), 0, 0, LIVE_MIN_MS_MAX);
	int64_t per_s = api_integer(evhttp_find_header(query, "per_s"), 0, 0, LIVE_PER_S_MAX);
	if (min_ms < 0)
		return "min_ms is a number of 0 to " TEXT(LIVE_MIN_MS_MAX);
	if (per_s < 0)
		return "per_s is a number of 0 (all) to " TEXT(LIVE_PER_S_MAX);
	if ((route != NULL && strlen(route) > ROUTE_NAME_MAX) ||
	    (contains != NULL && strlen(contains) > ROUTE_NAME_MAX))
		return "route is too long";
	s->min_ns = (uint64_t)min_ms * NS_PER_MS;
	s->per_s = (uint32_t)per_s;
	s->has_route = route != NULL && route[0] != '\0';
	if (s->has_route)
		snprintf(s->route, sizeof(s->route), "%s", route);
	lower_case(contains != NULL ? contains : "", s->contains, sizeof(s->contains));
	return NULL;
}

static void
begin(struct live *live, struct evhttp_request *request, struct subscriber *s)
{
	static const char hello[] = "retry: 2000\n\n";
	struct evkeyvalq *out = evhttp_request_get_output_headers(request);
	s->request = request;
	s->second_ns = s->taken_ns = clock_now_ns();
	live->subscribers[live->count++] = s;
	evhttp_connection_set_closecb(evhttp_request_get_connection(request), on_gone, s);
	evhttp_add_header(out, "Content-Type", "text/event-stream; charset=utf-8");
	evhttp_add_header(out, "Cache-Control", "no-store");
	evhttp_add_header(out, "Connection", "close"); /* nothing read meanwhile is a request */
	evhttp_add_header(out, "X-Content-Type-Options", "nosniff");
	evhttp_add_header(out, "X-Accel-Buffering", "no");
	evhttp_send_reply_start(request, 200, "OK");
	/* evhttp's own timeout is that of the socket's becoming writable, which a Unix socket does
	 * once three quarters of its buffer are read: it would cut off slow readers that read. */
	bufferevent_set_timeouts(bufferevent_of(s), NULL, NULL);
	send_bytes(s, hello, sizeof(hello) - 1, s->second_ns);
}

static void
busy(struct evhttp_request *request, const char *message)
{
	evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After", "5");
	reply_error(request, 503, "busy", message, NULL);
}

void
live_request(struct service *service, struct evhttp_request *request, const char *rest)
{
	struct live *live = service->live;
	struct evkeyvalq query;
	(void)rest;
	if (api_parameters(request, &query) != 0)
		return;
	struct subscriber *s = xcalloc(1, sizeof(*s));
	const char *wrong = parameters(&query, s);
	evhttp_clear_headers(&query);
	if (live->count == LIVE_SUBSCRIBERS_MAX)
		end_some(live, clock_now_ns()); /* who left since the last turn left room */
	if (wrong == NULL && !live->closed && live->count < LIVE_SUBSCRIBERS_MAX) {
		begin(live, request, s);
		return;
	}
	free(s);
	if (wrong != NULL) {
		reply_error(request, 400, "bad_query", wrong, NULL);
		return;
	}
	live->counters[SERVICE_LIVE_REFUSED]++;
	busy(request, live->closed ? "the gateway is stopping"
	                           : TEXT(LIVE_SUBSCRIBERS_MAX) " readers are connected");
}
