/* POST /api/v1/deep puts an order on the board, GET tells what is open and what came of it. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/deep_orders.h"
#include "collector/reply.h"
#include "model/deep.h"

#define START_SIZE 32

struct asked {
	struct profile_key key;
	char route[BOARD_DEEP_ROUTE_MAX + 1]; /* "" = the exchange is not here yet */
	uint64_t start_wall_ns, total_ns;
	uint16_t status;
	bool no_profile, gone, has_deep;
	uint8_t state; /* enum detail_deep_state, with has_deep */
};

struct deep_log {
	struct asked asked[DEEP_RECENT_MAX];
	size_t next, count;
};

struct deep_log *
deep_log_new(void)
{
	return xcalloc(1, sizeof(struct deep_log));
}

void
deep_log_free(struct deep_log *log)
{
	free(log);
}

static struct asked *
find(struct deep_log *log, const struct profile_key *key)
{
	for (size_t i = 0; i < log->count; i++)
		if (memcmp(&log->asked[i].key, key, sizeof(*key)) == 0)
			return &log->asked[i];
	return NULL;
}

static struct asked *
find_or_add(struct deep_log *log, const struct profile_key *key)
{
	struct asked *asked = find(log, key);
	if (asked != NULL)
		return asked;
	asked = &log->asked[log->next];
	log->next = (log->next + 1) % DEEP_RECENT_MAX;
	if (log->count < DEEP_RECENT_MAX)
		log->count++;
	*asked = (struct asked){.key = *key};
	return asked;
}

void
deep_log_exchange(struct deep_log *log, const struct exchange_record *record, const char *route,
                  bool has_profile)
{
	struct profile_key key;
	memcpy(key.trace_id, record->trace_id, TRACE_ID_SIZE);
	memcpy(key.span_id, record->span_id, SPAN_ID_SIZE);
	struct asked *asked = find_or_add(log, &key);
	snprintf(asked->route, sizeof(asked->route), "%s", route);
	asked->start_wall_ns = record->start_wall_ns;
	asked->total_ns = record->marks_ns[MARK_END] - record->marks_ns[MARK_START];
	asked->status = record->status;
	asked->no_profile = !has_profile;
}

void
deep_log_detail(struct deep_log *log, const struct profile_key *key, const struct detail *detail)
{
	if (detail == NULL) {
		struct asked *asked = find(log, key);
		if (asked != NULL && !asked->has_deep)
			asked->gone = true;
	} else if (detail->has_deep) {
		struct asked *asked = find_or_add(log, key);
		asked->has_deep = true;
		asked->state = detail->deep_state;
	}
}

/* --- orders ------------------------------------------------------------------------------ */

static bool
is_open(const struct board_deep_order *order, uint64_t now_ns)
{
	return atomic_load_explicit(&order->left, memory_order_acquire) > 0 &&
	       atomic_load_explicit(&order->until_ns, memory_order_relaxed) > now_ns;
}

static void
count_open(struct board *board, uint64_t now_ns)
{
	uint64_t open = 0;
	for (size_t i = 0; i < BOARD_DEEP_ORDERS; i++)
		open += is_open(&board->deep_orders[i], now_ns);
	atomic_store_explicit(&board->deep_open, open, memory_order_relaxed);
}

/* False where all places are taken. An order of the same route is replaced. */
static bool
put_order(struct board *board, const char *route, int64_t count, uint64_t now_ns)
{
	struct board_deep_order *place = NULL;
	for (size_t i = 0; i < BOARD_DEEP_ORDERS; i++) {
		struct board_deep_order *order = &board->deep_orders[i];
		bool open = is_open(order, now_ns);
		if (open && strcmp(order->route, route) == 0) {
			place = order;
			break;
		}
		if (!open && place == NULL)
			place = order;
	}
	if (place == NULL)
		return false;
	atomic_store_explicit(&place->left, 0, memory_order_release);
	snprintf(place->route, sizeof(place->route), "%s", route);
	atomic_store_explicit(&place->until_ns, now_ns + DEEP_ORDER_S * NS_PER_S,
	                      memory_order_relaxed);
	atomic_store_explicit(&place->left, count, memory_order_release);
	count_open(board, now_ns);
	return true;
}

/* --- the endpoint ------------------------------------------------------------------------- */

static void
post(struct service *service, struct evhttp_request *request)
{
	struct evbuffer *input = evhttp_request_get_input_buffer(request);
	size_t length = evbuffer_get_length(input);
	const char *bytes = length > 0 ? (const char *)evbuffer_pullup(input, -1) : "";
	json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, NULL);
	const char *route = json_string_value(json_object_get(root, "route"));
	const json_t *count = json_object_get(root, "count");
	json_int_t wanted = count != NULL ? json_integer_value(count) : 1;
	struct text body = {0};
	if (!json_is_object(root)) {
		reply_error(request, 400, "malformed", "not a JSON object", "");
	} else if (route == NULL || !deep_route_valid(route)) {
		reply_error(request, 400, "malformed", "a route such as \"GET /items/{id}\"",
		            "/route");
	} else if ((count != NULL && !json_is_integer(count)) || wanted < 1 ||
	           wanted > DEEP_COUNT_MAX) {
		reply_error(request, 400, "malformed", "a number of 1 to 1000", "/count");
	} else if (!put_order(service->board, route, wanted, clock_now_ns())) {
		reply_error(request, 503, "busy", "too many routes are asked for already", NULL);
	} else {
		text_puts(&body, "{\"route\":");
		text_json_or_null(&body, route);
		text_printf(&body,
		            ",\"count\":%lld,\"max_per_minute\":%u,\"now_ns\":", (long long)wanted,
		            service->config->profile.deep.max_per_minute);
		text_u64(&body, clock_wall_ns());
		text_puts(&body, "}");
		reply_json(request, 200, &body);
	}
	text_free(&body);
	json_decref(root);
}

static const char *
state_of(const struct asked *asked)
{
	if (asked->has_deep)
		return detail_deep_state_name(asked->state);
	return asked->no_profile ? "no_profile" : asked->gone ? "gone" : "asked";
}

static void
list_asked(struct text *out, const struct asked *asked)
{
	char start[START_SIZE];
	clock_format(asked->start_wall_ns, start, sizeof(start));
	text_puts(out, "{\"trace_id\":\"");
	text_hex(out, asked->key.trace_id, TRACE_ID_SIZE);
	text_puts(out, "\",\"span_id\":\"");
	text_hex(out, asked->key.span_id, SPAN_ID_SIZE);
	text_puts(out, "\",\"route\":");
	text_json_or_null(out, asked->route);
	text_printf(out, ",\"status\":%u,\"start\":\"%s\",\"start_ns\":", asked->status, start);
	text_u64(out, asked->start_wall_ns);
	text_puts(out, ",\"total_ns\":");
	text_u64(out, asked->total_ns);
	text_printf(out, ",\"state\":\"%s\"}", state_of(asked));
}

static void
get(struct service *service, struct evhttp_request *request)
{
	struct text body = {0};
	const struct deep_log *log = service->deep_log;
	uint64_t now_ns = clock_now_ns();
	const char *comma = "";
	count_open(service->board, now_ns);
	text_puts(&body, "{\"orders\":[");
	for (size_t i = 0; i < BOARD_DEEP_ORDERS; i++) {
		const struct board_deep_order *order = &service->board->deep_orders[i];
		if (!is_open(order, now_ns))
			continue;
		text_printf(&body, "%s{\"route\":", comma);
		text_json_or_null(&body, order->route);
		text_printf(&body, ",\"left\":%lld,\"ends_in_ns\":%llu}",
		            (long long)atomic_load_explicit(&order->left, memory_order_relaxed),
		            (unsigned long long)(atomic_load_explicit(&order->until_ns,
		                                                      memory_order_relaxed) -
		                                 now_ns));
		comma = ",";
	}
	text_puts(&body, "],\"recent\":[");
	comma = "";
	for (size_t i = 1; i <= log->count; i++) { /* newest first */
		const struct asked *asked =
		    &log->asked[(log->next + DEEP_RECENT_MAX - i) % DEEP_RECENT_MAX];
		if (asked->route[0] == '\0')
			continue;
		text_puts(&body, comma);
		list_asked(&body, asked);
		comma = ",";
	}
	text_puts(&body, "]}");
	reply_json(request, 200, &body);
	text_free(&body);
}

void
deep_request(struct service *service, struct evhttp_request *request, const char *rest)
{
	(void)rest;
	if (evhttp_request_get_command(request) == EVHTTP_REQ_POST)
		post(service, request);
	else
		get(service, request);
}
