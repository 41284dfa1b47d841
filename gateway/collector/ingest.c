/* POST /v1/profiles. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/deep_orders.h"
#include "collector/hooks.h"
#include "collector/ingest.h"
#include "collector/reply.h"
#include "collector/store.h"
#include "collector/wants.h"
#include "collector/watch.h"
#include "model/profile_batch.h"
#include "model/retention.h"

#define KEEP_ROUTES_MAX 64   /* told in one answer */
#define KEEP_OVER_PERCENT 80 /* of the total time of what is kept: the hook sees the app's part */

struct keep_route {
	size_t index;
	char name[ROUTE_NAME_MAX + 1];
};

/* Who posted, and of which routes. */
struct kept {
	uint8_t instance[PROFILE_INSTANCE_SIZE];
	struct keep_route routes[KEEP_ROUTES_MAX];
	size_t count;
};

static int
refuse(struct service *service, enum service_counter counter, int status, const char *code,
       const char *message, const char *pointer, struct text *body)
{
	service->counters[counter]++;
	reply_error_text(body, code, message, pointer);
	return status;
}

enum inflated { INFLATED, INFLATE_BAD, INFLATE_LARGE, INFLATE_MEMORY };

/* At most PROFILE_BODY_MAX bytes out, however small the input: one byte more ends it. */
static enum inflated
inflate_whole(const char *bytes, size_t length, char *out, size_t *ret_length)
{
	z_stream stream = {0};
	if (inflateInit(&stream) != Z_OK)
		return INFLATE_MEMORY;
	/* zlib does not write through next_in; its type is older than const. */
	stream.next_in = (Bytef *)(uintptr_t)bytes;
	stream.avail_in = (uInt)length;
	stream.next_out = (Bytef *)out;
	stream.avail_out = PROFILE_BODY_MAX + 1;
	int result = inflate(&stream, Z_FINISH);
	*ret_length = PROFILE_BODY_MAX + 1 - stream.avail_out;
	bool rest = stream.avail_in > 0;
	bool full = stream.avail_out == 0;
	inflateEnd(&stream);
	if (full)
		return INFLATE_LARGE;
	return result == Z_STREAM_END && !rest ? INFLATED : INFLATE_BAD;
}

/* Of the batch's routes, what of them is likely to be kept: of that the hook should keep detail. */
static void
keep(const struct keep_route *routes, size_t count, const struct service *service,
     struct text *body)
{
	text_puts(body, "\"keep\":{");
	for (size_t i = 0; i < count; i++) {
		uint64_t over_ns;
		double rate;
		retention_forecast(service->retention, routes[i].index, &over_ns, &rate);
		over_ns = over_ns < INT64_MAX ? over_ns / 100 * KEEP_OVER_PERCENT : INT64_MAX;
		text_puts(body, i > 0 ? "," : "");
		text_json(body, routes[i].name, strlen(routes[i].name));
		text_printf(body, ":{\"keep_over_ns\":%llu,\"keep_rate\":%.6f}",
		            (unsigned long long)over_ns, rate);
	}
	text_puts(body, "},");
}

static int
answer(struct service *service, const struct kept *kept, uint64_t accepted, uint64_t refused,
       const char *stacks, uint64_t now_ns, struct text *body)
{
	text_printf(body,
	            "{\"accepted\":%llu,\"refused\":%llu,\"want\":", (unsigned long long)accepted,
	            (unsigned long long)refused);
	wants_write(service->wants, kept->instance, now_ns, body);
	text_puts(body, ",");
	keep(kept->routes, kept->count, service, body);
	text_printf(body, "\"settings\":{\"wait_threshold_us\":%u,\"stall_threshold_us\":%u},",
	            service->config->profile.wait_threshold_us,
	            service->config->profile.stall_threshold_us);
	text_printf(body, "\"stacks\":\"%s\",\"deep_key\":\"", stacks);
	text_hex(body, service->board->deep_key, sizeof(service->board->deep_key));
	text_puts(body, "\"}");
	return 200;
}

static bool
has_room(const struct service *service, const struct profile_batch *batch)
{
	size_t bytes = 0;
	for (size_t i = 0; i < batch->profile_count; i++)
		bytes += batch->profiles[i]->bytes;
	return correlator_has_room(service->correlator, batch->profile_count, bytes);
}

/* The routes of a batch, while it is still whole. */
static void
kept_of(struct service *service, const struct profile_batch *batch, struct kept *ret)
{
	ret->count = 0;
	memcpy(ret->instance, batch->process->instance, PROFILE_INSTANCE_SIZE);
	for (size_t i = 0; i < batch->profile_count && ret->count < KEEP_ROUTES_MAX; i++) {
		const char *told = batch->profiles[i]->route;
		size_t at = 0;
		while (told != NULL && at < ret->count && strcmp(ret->routes[at].name, told) != 0)
			at++;
		if (told == NULL || told[0] == '\0' || at < ret->count)
			continue;
		struct keep_route *route = &ret->routes[ret->count++];
		route_name(told, "", 0, NULL, route->name);
		route->index = routes_index(service->routes, route->name);
	}
}

/* Detail goes to the store by its key, whether its exchange is there already or comes yet. */
static void
take_details(struct service *service, const struct profile_batch *batch)
{
	struct text text = {0};
	for (size_t i = 0; i < batch->detail_count; i++) {
		text_reset(&text);
		detail_render(&text, batch->details[i]);
		deep_log_detail(service->deep_log, &batch->details[i]->key, batch->details[i]);
		if (!text.failed)
			store_put_detail(service->store, &batch->details[i]->key, &text);
	}
	text_free(&text);
	for (size_t i = 0; i < batch->gone_count; i++) {
		deep_log_detail(service->deep_log, &batch->gone[i], NULL);
		store_put_detail(service->store, &batch->gone[i], NULL);
	}
	service->counters[SERVICE_DETAIL_STORED] += batch->detail_count;
	service->counters[SERVICE_DETAIL_GONE] += batch->gone_count;
	service->counters[SERVICE_DETAIL_REFUSED] += batch->details_refused;
}

static int
take_batch(struct service *service, struct profile_batch *batch, uint64_t now_ns, struct text *body)
{
	uint64_t lost, accepted = batch->profile_count;
	struct kept kept;
	kept_of(service, batch, &kept);
	if (!has_room(service, batch))
		return refuse(service, SERVICE_BATCH_FULL, 503, "full",
		              "too many profiles wait for their exchanges", NULL, body);
	if (stacks_take(service->stacks, batch, &lost) == STACKS_RESEND) {
		service->counters[SERVICE_BATCH_RESEND]++;
		return answer(service, &kept, 0, 0, "resend", now_ns, body);
	}
	service->counters[SERVICE_BATCH_OK]++;
	hooks_heard(service->hooks, batch->process, batch->profile_count, now_ns);
	service->counters[SERVICE_HOOK_DROPPED] += lost;
	if (lost > 0)
		correlator_lost(service->correlator, now_ns);
	if (batch->process->version != NULL && service->watch != NULL)
		watch_told_version(service->watch, batch->process->instance,
		                   batch->process->version);
	for (size_t i = 0; i < batch->refused_count; i++)
		correlator_refused(service->correlator, &batch->refused[i]);
	for (size_t i = 0; i < batch->profile_count; i++) {
		correlator_profile(service->correlator, batch->profiles[i], now_ns);
		batch->profiles[i] = NULL;
	}
	for (size_t i = 0; i < batch->tail_count; i++)
		correlator_tail(service->correlator, &batch->tails[i].key, batch->tails[i].tail_ns);
	take_details(service, batch);
	return answer(service, &kept, accepted, batch->refused_count, "ok", now_ns, body);
}

static int
take_json(struct service *service, const char *bytes, size_t length, uint64_t now_ns,
          struct text *body)
{
	struct profile_batch *batch = NULL;
	struct read_error error;
	if (profile_batch_parse(bytes, length, &batch, &error) != 0)
		return refuse(service, SERVICE_BATCH_MALFORMED, 400, "malformed", error.message,
		              error.pointer, body);
	int status = take_batch(service, batch, now_ns, body);
	profile_batch_free(batch);
	return status;
}

static int
take_deflated(struct service *service, const char *bytes, size_t length, uint64_t now_ns,
              struct text *body)
{
	size_t inflated = 0;
	char *out = xmem_try(PROFILE_BODY_MAX + 1);
	enum inflated result =
	    out != NULL ? inflate_whole(bytes, length, out, &inflated) : INFLATE_MEMORY;
	int status;
	if (result == INFLATED)
		status = take_json(service, out, inflated, now_ns, body);
	else if (result == INFLATE_LARGE)
		status = refuse(service, SERVICE_BATCH_OVERSIZED, 413, "too_large",
		                "over 1 MiB when inflated", NULL, body);
	else if (result == INFLATE_MEMORY)
		status = refuse(service, SERVICE_BATCH_FULL, 503, "full", "no memory", NULL, body);
	else
		status = refuse(service, SERVICE_BATCH_MALFORMED, 400, "malformed",
		                "not a whole zlib stream", "", body);
	free(out);
	return status;
}

int
ingest_batch(struct service *service, const char *bytes, size_t length, bool deflated,
             uint64_t now_ns, struct text *body)
{
	if (service->stopping)
		return refuse(service, SERVICE_BATCH_FULL, 503, "stopping",
		              "the gateway is stopping", NULL, body);
	if (length > PROFILE_BODY_MAX)
		return refuse(service, SERVICE_BATCH_OVERSIZED, 413, "too_large", "over 1 MiB",
		              NULL, body);
	if (deflated)
		return take_deflated(service, bytes, length, now_ns, body);
	return take_json(service, bytes, length, now_ns, body);
}

/* "application/json", parameters allowed. */
static bool
is_json(const char *type)
{
	static const char json[] = "application/json";
	size_t length = sizeof(json) - 1;
	return type != NULL && strncasecmp(type, json, length) == 0 &&
	       (type[length] == '\0' || type[length] == ';' || type[length] == ' ');
}

/* Status 0 where the headers are good. */
static int
check_headers(struct service *service, struct evhttp_request *request, bool *ret_deflated,
              struct text *body)
{
	struct evkeyvalq *in = evhttp_request_get_input_headers(request);
	const char *encoding = evhttp_find_header(in, "Content-Encoding");
	*ret_deflated = encoding != NULL && strcasecmp(encoding, "deflate") == 0;
	if (evhttp_find_header(in, "Content-Length") == NULL)
		return refuse(service, SERVICE_BATCH_UNSUPPORTED, 411, "length_required",
		              "a Content-Length is required", NULL, body);
	if (!is_json(evhttp_find_header(in, "Content-Type")) ||
	    (encoding != NULL && !*ret_deflated && strcasecmp(encoding, "identity") != 0))
		return refuse(service, SERVICE_BATCH_UNSUPPORTED, 415, "unsupported",
		              "neither JSON nor deflated JSON", NULL, body);
	return 0;
}

void
ingest_request(struct service *service, struct evhttp_request *request)
{
	struct evbuffer *input = evhttp_request_get_input_buffer(request);
	struct text body = {0};
	bool deflated;
	int status = check_headers(service, request, &deflated, &body);
	if (status == 0) {
		size_t length = evbuffer_get_length(input);
		const char *bytes = length > 0 ? (char *)evbuffer_pullup(input, -1) : "";
		status = ingest_batch(service, bytes, length, deflated, clock_now_ns(), &body);
	}
	if (status == 503)
		evhttp_add_header(evhttp_request_get_output_headers(request), "Retry-After", "1");
	reply_json(request, status, &body);
	text_free(&body);
}
