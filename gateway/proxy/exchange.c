/* The exchange object: pool, trace, route, record. */
#include "proxy/exchange.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/xmem.h"
#include "model/request_start.h"
#include "model/target.h"
#include "proxy/client.h"
#include "proxy/overlay.h"
#include "proxy/pool.h"
#include "proxy/proxy.h"
#include "proxy/upstream.h"

#define UPSTREAM_LB_MAX_NS ((int64_t)(86400 * NS_PER_S)) /* beyond: no clock is that wrong */

static void
on_timer(struct timer *timer, uint64_t now_ns)
{
	struct exchange *exchange =
	    (struct exchange *)(void *)((char *)timer - offsetof(struct exchange, timer));
	struct marks marks = exchange->marks;

	if (exchange->queued) {
		proxy_queued_too_long(exchange);
		return;
	}
	marks_close(&marks, PHASE_END_ABORT, 0, now_ns);
	exchange_record(exchange, &marks, RECORD_PROVISIONAL);
}

void
exchange_watch_provisional(struct exchange *exchange)
{
	if (exchange->provisional_set)
		return;
	exchange->provisional_set = true;
	timer_set(&exchange->loop->wheel, &exchange->timer,
	          exchange->marks.at_ns[MARK_READ_FIRST] + PROVISIONAL_NS, exchange->loop->now_ns);
}

struct exchange *
exchange_begin(struct client *client, uint64_t start_ns)
{
	struct loop *loop = client->loop;
	struct exchange *exchange = loop->free_exchanges;

	if (exchange) {
		loop->free_exchanges = exchange->free_next;
		loop->free_exchange_count--;
	} else {
		exchange = xmem_try(sizeof *exchange);
		if (!exchange)
			return NULL;
	}
	memset(exchange, 0, offsetof(struct exchange, request));
	exchange->loop = loop;
	exchange->client = client;
	exchange->timer.fire = on_timer;
	exchange->step = STEP_READ_HEAD;
	exchange->died_in = PHASE_COUNT;
	exchange->route = exchange->group = exchange->server_index = RECORD_NO_INDEX;
	exchange->bounds = &loop->config->upstreams[0].bounds;
	exchange->replayable = true;
	exchange->marks.at_ns[MARK_START] = start_ns;
	exchange->lag_start_ns = loop_lag_at(loop, start_ns);
	exchange->idle_before_ns = client->requests ? start_ns - client->ended_ns : 0;
	if (client->requests)
		exchange->flags |= RECORD_CLIENT_REUSED;
	if (client->stream.tls)
		exchange->flags |= RECORD_CLIENT_TLS;
	exchange->tls_handshake_ns = client->requests ? 0 : client->handshake_ns;
	http1_init(&exchange->request, HTTP_REQUEST, &loop->config->limits);
	exchange->response.kept = NULL;
	client->exchange = exchange;
	client->state = CLIENT_BUSY;
	loop_count(loop, COUNTER_REQUESTS_STARTED, 1);
	loop_gauge(&loop->board->in_flight, 1);
	return exchange;
}

void
exchange_body_wait(struct exchange *exchange, uint64_t now_ns)
{
	if (exchange->body_wait_from_ns == 0 && exchange->continue_from_ns == 0)
		exchange->body_wait_from_ns = now_ns;
}

void
exchange_body_came(struct exchange *exchange, uint64_t now_ns)
{
	uint64_t waited_ns;

	exchange_continued(exchange, now_ns);
	if (exchange->body_wait_from_ns == 0)
		return;
	waited_ns = now_ns - exchange->body_wait_from_ns;
	exchange->body_wait_from_ns = 0;
	exchange->body_waited_ns += waited_ns;
	if (exchange->response_state == DIRECTION_HEAD)
		exchange->client_body_ns +=
		    waited_ns; /* `send` ends with the answer's first byte */
}

void
exchange_continued(struct exchange *exchange, uint64_t now_ns)
{
	if (exchange->continue_from_ns == 0)
		return;
	exchange->continue_wait_ns = now_ns - exchange->continue_from_ns;
	exchange->continue_from_ns = 0;
}

bool
exchange_keep_trailers(struct exchange *exchange, struct http1 *http1)
{
	struct block *block;

	if (http1->head.framing != BODY_CHUNKED || !http1->limits->trailers)
		return true;
	block = block_get(&exchange->loop->blocks, 0);
	http1_keep_trailers(http1, block);
	return block != NULL;
}

uint64_t
rate_allows_ns(uint64_t bytes, uint64_t bytes_per_s)
{
	return RATE_GRACE_NS + bytes / bytes_per_s * NS_PER_S +
	       bytes % bytes_per_s * NS_PER_S / bytes_per_s;
}

uint64_t
exchange_body_due_ns(const struct exchange *exchange)
{
	uint64_t rate = exchange->loop->config->limits.body_min_bytes_per_s, allowed_ns;

	if (rate == 0 || exchange->body_wait_from_ns == 0)
		return 0;
	allowed_ns = rate_allows_ns(exchange->request.body_bytes, rate);
	return exchange->body_wait_from_ns +
	       (allowed_ns > exchange->body_waited_ns ? allowed_ns - exchange->body_waited_ns : 0);
}

void
exchange_end(struct exchange *exchange)
{
	struct loop *loop = exchange->loop;

	exchange_body_came(exchange, exchange->marks.at_ns[MARK_END]);
	tunnel_unreserve(exchange);
	exchange_record(exchange, &exchange->marks, 0);
	timer_remove(&loop->wheel, &exchange->timer);
	loop_count(loop, COUNTER_EXCHANGES_ENDED, 1);
	loop_gauge(&loop->board->in_flight, -1);
	if (exchange->cause != CLOSE_NONE)
		loop_reason(loop, exchange->cause);
	block_put(&loop->blocks, exchange->request.kept);
	block_put(&loop->blocks, exchange->response.kept);
	exchange->client->exchange = NULL;
	if (loop->free_exchange_count >= EXCHANGE_POOL_MAX) {
		free(exchange);
		return;
	}
	exchange->free_next = loop->free_exchanges;
	loop->free_exchanges = exchange;
	loop->free_exchange_count++;
}

void
exchanges_free(struct loop *loop)
{
	while (loop->free_exchanges) {
		struct exchange *next = loop->free_exchanges->free_next;

		free(loop->free_exchanges);
		loop->free_exchanges = next;
	}
}

/* Where a trusted proxy says when it took the request. Clocks of two machines: a skew may make it
 * negative, which is kept; what cannot be a skew is no statement. */
static void
take_request_start(struct exchange *exchange)
{
	const struct head *head = &exchange->request.head;
	uint64_t own_ns = exchange->marks.at_ns[MARK_START] + exchange->loop->wall_offset_ns;
	uint64_t theirs_ns;
	struct text text;

	if (!head_has(head, HEADER_X_REQUEST_START))
		return;
	text = head_value(head, HEADER_X_REQUEST_START);
	if (request_start_parse(text.at, text.length, &theirs_ns) < 0)
		return;
	exchange->upstream_lb_ns = (int64_t)(own_ns - theirs_ns);
	if (exchange->upstream_lb_ns < UPSTREAM_LB_MAX_NS &&
	    exchange->upstream_lb_ns > -UPSTREAM_LB_MAX_NS)
		exchange->flags |= RECORD_HAS_UPSTREAM_LB;
}

void
exchange_trace(struct exchange *exchange, bool head_parsed)
{
	struct loop *loop = exchange->loop;
	const struct head *head = &exchange->request.head;
	struct trace_parent parent;
	struct text text;
	bool inbound = false;

	if (exchange->has_trace)
		return;
	exchange->has_trace = true;
	if (head_parsed && exchange->client->trusted_proxy)
		take_request_start(exchange);
	if (head_parsed && head_has(head, HEADER_TRACEPARENT) &&
	    !(head->twice & HEADER_BIT(HEADER_TRACEPARENT))) {
		text = head_value(head, HEADER_TRACEPARENT);
		inbound = trace_parent_parse(text.at, text.length, &parent) == 0;
	}
	if (inbound && exchange->client->trusted_trace) {
		memcpy(exchange->trace_id, parent.trace_id, TRACE_ID_SIZE);
		exchange->trace_flags = parent.flags & (TRACE_FLAG_SAMPLED | TRACE_FLAG_RANDOM);
		exchange->flags |= RECORD_TRUSTED_TRACE;
		text = head_value(head, HEADER_TRACESTATE);
		exchange->tracestate_ok = !(head->twice & HEADER_BIT(HEADER_TRACESTATE)) &&
		                          trace_state_valid(text.at, text.length);
		return;
	}
	id_pool_take(&loop->ids, exchange->trace_id, TRACE_ID_SIZE);
	exchange->trace_flags = TRACE_FLAG_SAMPLED | TRACE_FLAG_RANDOM;
	if (inbound) {
		memcpy(exchange->foreign_trace_id, parent.trace_id, TRACE_ID_SIZE);
		exchange->flags |= RECORD_HAS_FOREIGN;
	}
}

void
exchange_new_span(struct exchange *exchange)
{
	uint16_t earlier = exchange->attempts;

	if (earlier > 0 && earlier <= RECORD_EARLIER_MAX)
		memcpy(exchange->earlier_spans[earlier - 1], exchange->span_id, SPAN_ID_SIZE);
	exchange->attempts++;
	id_pool_take(&exchange->loop->ids, exchange->span_id, SPAN_ID_SIZE);
}

static bool
route_matches(const struct config_route *route, const struct exchange *exchange, struct text path)
{
	struct text host = exchange->facts.host;
	struct text method = http1_method_text(exchange->request.head.method);
	size_t prefix = strlen(route->path_prefix);
	const char *colon = host.length && host.at[host.length - 1] != ']'
	                        ? memrchr(host.at, ':', host.length)
	                        : NULL;

	if (colon)
		host.length = (size_t)(colon - host.at);
	if (route->host && !text_equals(host, route->host))
		return false;
	if (path.length < prefix || memcmp(path.at, route->path_prefix, prefix) != 0)
		return false;
	if (!route->methods)
		return true;
	for (char **m = route->methods; *m; m++)
		if (strlen(*m) == method.length && memcmp(*m, method.at, method.length) == 0)
			return true;
	return false;
}

/* The first route for this path. */
static int
find_route(struct exchange *exchange, struct text path)
{
	const struct config *config = exchange->loop->config;

	for (size_t i = 0; i < config->route_count; i++) {
		if (!route_matches(&config->routes[i], exchange, path))
			continue;
		exchange->route = (uint16_t)i;
		exchange->group = (uint16_t)config->routes[i].upstream;
		exchange->bounds = &config->routes[i].bounds;
		return 0;
	}
	return -1;
}

int
exchange_route(struct exchange *exchange)
{
	struct text target = exchange->facts.target;
	struct block *block;
	int found;

	if (exchange->loop->config->route_count == 0) {
		exchange->group = 0;
		return 0;
	}
	if (target_is_normal(target))
		return find_route(exchange, target_normal(target, NULL, 0));
	block = block_get(&exchange->loop->blocks, target.length);
	if (!block)
		return -1;
	found =
	    find_route(exchange, target_normal(target, block->data + block->end, target.length));
	block_put(&exchange->loop->blocks, block);
	return found;
}

uint32_t
exchange_retries(const struct exchange *exchange)
{
	const struct config *config = exchange->loop->config;
	uint32_t own = exchange->route == RECORD_NO_INDEX ? CONFIG_INHERIT
	                                                  : config->routes[exchange->route].retries;

	return own != CONFIG_INHERIT ? own : config->upstreams[exchange->group].retries;
}

uint32_t
exchange_queue_timeout_ms(const struct exchange *exchange)
{
	const struct config *config = exchange->loop->config;
	uint32_t own = exchange->route == RECORD_NO_INDEX
	                   ? CONFIG_INHERIT
	                   : config->routes[exchange->route].queue_timeout_ms;

	return own != CONFIG_INHERIT ? own : config->upstreams[exchange->group].queue_timeout_ms;
}

static void
record_peer(struct exchange_record *record, const struct net_address *peer)
{
	record->client_family = peer->sa.sa_family;
	if (peer->sa.sa_family == AF_INET) {
		record->client_port = ntohs(peer->in.sin_port);
		memcpy(record->client_ip, &peer->in.sin_addr, 4);
	} else if (peer->sa.sa_family == AF_INET6) {
		record->client_port = ntohs(peer->in6.sin6_port);
		memcpy(record->client_ip, &peer->in6.sin6_addr, 16);
	}
}

static void
record_tunnel(struct exchange_record *record, const struct exchange *exchange)
{
	const struct tunnel *tunnel = &exchange->tunnel;
	uint64_t begin_ns = exchange->marks.at_ns[MARK_REPLIED];

	if (tunnel->begin_ns == 0 || begin_ns == 0)
		return;
	record->tunnel_ns = exchange->loop->now_ns - begin_ns;
	record->tunnel_client_bytes = tunnel->sides[TUNNEL_CLIENT].bytes;
	record->tunnel_server_bytes = tunnel->sides[TUNNEL_SERVER].bytes;
	record->tunnel_cause = (uint8_t)tunnel->cause;
}

static void
record_fill(struct exchange_record *record, const struct exchange *exchange,
            const struct marks *closed)
{
	memcpy(record->trace_id, exchange->trace_id, TRACE_ID_SIZE);
	memcpy(record->span_id, exchange->span_id, SPAN_ID_SIZE);
	memcpy(record->earlier_spans, exchange->earlier_spans, sizeof record->earlier_spans);
	memcpy(record->foreign_trace_id, exchange->foreign_trace_id, TRACE_ID_SIZE);
	memcpy(record->marks_ns, closed->at_ns, sizeof record->marks_ns);
	record->start_wall_ns = closed->at_ns[MARK_START] + exchange->loop->wall_offset_ns;
	record->request_body_bytes = exchange->request.body_bytes;
	record->response_body_bytes = exchange->response_body_bytes;
	record->idle_before_ns = exchange->idle_before_ns;
	record->backpressure_ns = exchange->backpressure_ns;
	record->tls_handshake_ns = exchange->tls_handshake_ns;
	record->connect_tcp_ns = exchange->connect_tcp_ns;
	record->connect_tls_ns = exchange->connect_tls_ns;
	record->kernel_in_ns = exchange->kernel_in_ns;
	record->loop_lag_ns = exchange->lag_start_ns + exchange->lag_read_ns;
	record->upstream_lb_ns = exchange->upstream_lb_ns;
	record->config = exchange->loop->config->serial;
	record->client_body_ns = exchange->client_body_ns;
	record->continue_wait_ns = exchange->continue_wait_ns;
	record_tunnel(record, exchange);
	record->status = exchange->status;
	record->route = exchange->route;
	record->upstream = exchange->group;
	record->server = exchange->server_index;
	record->attempts = exchange->attempts;
	record->died_in = (uint8_t)exchange->died_in;
	record->cause = (uint8_t)exchange->cause;
	record_peer(record, &exchange->client->peer);
}

/* What of the request's head goes behind a record, bounded; what was cut is in `flags`. */
struct record_parts {
	struct text method, path;
	size_t size; /* of the whole record */
	uint32_t flags;
	bool more; /* the rest is set: an access log, or TCP_INFO */
	struct text user_agent, referer;
	struct record_tcp tcp; /* RECORD_HAS_TCP */
};

static void
cut(struct text *text, size_t max, uint32_t flag, uint32_t *flags)
{
	if (text->length <= max)
		return;
	text->length = max;
	*flags |= flag;
}

/* Looked up by name here, and only where an access log wants it: other requests pay nothing. */
static struct text
field_named(const struct head *head, const char *bytes, const char *name)
{
	size_t length = strlen(name);

	for (uint32_t i = 0; i < head->count; i++) {
		const struct field *field = &head->fields[i];

		if (field->name_length == length &&
		    strncasecmp(bytes + field->name, name, length) == 0)
			return (struct text){bytes + field->value, field->value_length};
	}
	return (struct text){"", 0};
}

static void
make_more(struct record_parts *parts)
{
	if (!parts->more)
		parts->user_agent = parts->referer = (struct text){"", 0};
	parts->more = true;
}

static void
record_head_parts(const struct head *head, const char *bytes, struct record_parts *ret)
{
	make_more(ret);
	ret->user_agent = field_named(head, bytes, "user-agent");
	ret->referer = field_named(head, bytes, "referer");
	cut(&ret->user_agent, RECORD_USER_AGENT_MAX, RECORD_USER_AGENT_CUT, &ret->flags);
	cut(&ret->referer, RECORD_REFERER_MAX, RECORD_REFERER_CUT, &ret->flags);
	ret->size += ret->user_agent.length + ret->referer.length;
}

/* As far as the head was parsed. */
static void
record_parts(const struct exchange *exchange, struct record_parts *ret)
{
	const struct head *head = &exchange->request.head;
	const struct block *in = exchange->client->in;
	const char *bytes;

	ret->method = ret->path = (struct text){"", 0};
	ret->flags = 0;
	ret->more = false;
	ret->size = sizeof(struct exchange_record);
	if (!in || head->target_length == 0)
		return;
	bytes = in->data + in->start;
	ret->method = http1_method_text(exchange->request.parser.method);
	ret->path = (struct text){bytes + head->target, head->target_length};
	cut(&ret->method, RECORD_METHOD_MAX, 0, &ret->flags);
	cut(&ret->path, RECORD_PATH_MAX, RECORD_PATH_CUT, &ret->flags);
	if (head->major == 1 && head->minor == 0)
		ret->flags |= RECORD_HTTP_1_0;
	ret->size += ret->method.length + ret->path.length;
	if (exchange->loop->config->log.access.path)
		record_head_parts(head, bytes, ret);
}

static char *
put_text(char *at, struct text text)
{
	memcpy(at, text.at, text.length);
	return at + text.length;
}

static void
record_write(struct exchange_record *record, const struct exchange *exchange,
             const struct marks *closed, const struct record_parts *parts, uint32_t more_flags)
{
	char *text = (char *)(record + 1);

	memset(record, 0, sizeof *record);
	record_fill(record, exchange, closed);
	record->flags = exchange->flags | more_flags | parts->flags |
	                (exchange->tunnel.begin_ns ? RECORD_TUNNEL : 0);
	record->method_length = (uint16_t)parts->method.length;
	record->path_length = (uint16_t)parts->path.length;
	text = put_text(text, parts->method);
	text = put_text(text, parts->path);
	if (!parts->more)
		return;
	record->user_agent_length = (uint16_t)parts->user_agent.length;
	record->referer_length = (uint16_t)parts->referer.length;
	text = put_text(text, parts->user_agent);
	text = put_text(text, parts->referer);
	if (parts->flags & RECORD_HAS_TCP)
		memcpy(text, &parts->tcp, sizeof parts->tcp);
}

/* Only what is final has these; returns the place of a record that waits, or null. */
static void *
record_overlays(struct exchange *exchange, const struct marks *closed, struct record_parts *parts)
{
	uint64_t end_ns = closed->at_ns[MARK_END];
	uint64_t total_ns = end_ns - closed->at_ns[MARK_START];

	if (overlay_is_slow(exchange->loop->config, total_ns) &&
	    overlay_tcp(exchange->client, &parts->tcp)) {
		make_more(parts);
		parts->flags |= RECORD_HAS_TCP;
		parts->size += sizeof parts->tcp;
	}
	return exchange->client->ack ? overlay_hold(exchange, parts->size, end_ns) : NULL;
}

void
exchange_record(struct exchange *exchange, const struct marks *closed, uint32_t more_flags)
{
	struct ring *ring = exchange->loop->ring;
	struct record_parts parts;
	void *held = NULL, *place;

	record_parts(exchange, &parts);
	if (!(more_flags & RECORD_PROVISIONAL))
		held = record_overlays(exchange, closed, &parts);
	place = held ? held : ring_reserve(ring, parts.size);
	if (!place)
		return; /* counted by the ring */
	record_write(place, exchange, closed, &parts, more_flags);
	if (!held)
		ring_commit(ring);
}
