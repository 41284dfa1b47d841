/* JSON of one exchange. */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/net.h"
#include "collector/render.h"
#include "model/close_reason.h"

#define START_SIZE 32

static void
member(struct text *out, const char *key)
{
	text_puts(out, ",\"");
	text_puts(out, key);
	text_puts(out, "\":");
}

static void
number(struct text *out, const char *key, uint64_t value)
{
	member(out, key);
	text_u64(out, value);
}

static void
number_or_null(struct text *out, const char *key, bool has, uint64_t value)
{
	if (has) {
		number(out, key, value);
		return;
	}
	member(out, key);
	text_puts(out, "null");
}

static void
string_or_null(struct text *out, const char *key, const char *value)
{
	member(out, key);
	text_json_or_null(out, value);
}

static void
flag(struct text *out, const char *key, bool value)
{
	member(out, key);
	text_puts(out, value ? "true" : "false");
}

static void
start_time(struct text *out, const struct exchange_record *record)
{
	char start[START_SIZE];
	clock_format(record->start_wall_ns, start, sizeof(start));
	text_printf(out, ",\"start\":\"%s\"", start);
}

static void
ids(struct text *out, const struct exchange_record *record)
{
	text_puts(out, "{\"trace_id\":\"");
	text_hex(out, record->trace_id, TRACE_ID_SIZE);
	text_puts(out, "\",\"span_id\":\"");
	text_hex(out, record->span_id, SPAN_ID_SIZE);
	text_puts(out, "\"");
}

static uint64_t
total_ns(const struct exchange_record *record)
{
	return record->marks_ns[MARK_END] - record->marks_ns[MARK_START];
}

static void
phases(struct text *out, const struct exchange_record *record)
{
	struct marks marks;
	uint64_t ns[PHASE_COUNT];
	memcpy(marks.at_ns, record->marks_ns, sizeof(marks.at_ns));
	marks_phases(&marks, ns);
	text_puts(out, ",\"phases\":[");
	for (unsigned i = 0; i < PHASE_COUNT; i++) {
		text_puts(out, i > 0 ? ",{\"name\":\"" : "{\"name\":\"");
		text_puts(out, phase_name(i));
		text_puts(out, "\"");
		number(out, "ns", ns[i]);
		text_puts(out, "}");
	}
	text_puts(out, "]");
}

static void
client_text(const struct exchange_record *record, char *buf, size_t size)
{
	struct net_address address = {0};
	if (record->client_family == AF_INET) {
		address.in.sin_family = AF_INET;
		address.in.sin_port = htons(record->client_port);
		memcpy(&address.in.sin_addr, record->client_ip, sizeof(address.in.sin_addr));
		address.length = sizeof(address.in);
	} else if (record->client_family == AF_INET6) {
		address.in6.sin6_family = AF_INET6;
		address.in6.sin6_port = htons(record->client_port);
		memcpy(&address.in6.sin6_addr, record->client_ip, sizeof(address.in6.sin6_addr));
		address.length = sizeof(address.in6);
	} else {
		snprintf(buf, size, "unix:");
		return;
	}
	net_address_format(&address, buf, size);
}

static void
connection(struct text *out, const struct config *config, const struct exchange_record *record)
{
	char client[NET_ADDRESS_TEXT_SIZE];
	const char *upstream = NULL, *server = NULL;
	client_text(record, client, sizeof(client));
	if (record->upstream < config->upstream_count) {
		const struct config_upstream *u = &config->upstreams[record->upstream];
		upstream = u->name;
		if (record->server < u->server_count)
			server = u->servers[record->server].text;
	}
	text_puts(out, ",\"connection\":{\"client\":");
	text_json_or_null(out, client);
	string_or_null(out, "server", server);
	flag(out, "client_reused", record->flags & RECORD_CLIENT_REUSED);
	flag(out, "server_reused", record->flags & RECORD_SERVER_REUSED);
	number(out, "attempts", record->attempts);
	string_or_null(out, "upstream", upstream);
	number(out, "request_body_bytes", record->request_body_bytes);
	number(out, "response_body_bytes", record->response_body_bytes);
	text_puts(out, "}");
}

static void
tcp(struct text *out, const struct exchange_record *record, size_t size)
{
	struct record_tcp tcp;
	if (record_tcp(record, size, &tcp) != 0)
		return;
	text_puts(out, ",\"tcp\":{\"retransmits\":");
	text_u64(out, tcp.retransmits);
	number(out, "rtt_ns", tcp.rtt_us * NS_PER_US);
	number(out, "min_rtt_ns", tcp.min_rtt_us * NS_PER_US);
	number(out, "busy_ns", tcp.busy_us * NS_PER_US);
	number(out, "receiver_limited_ns", tcp.receiver_limited_us * NS_PER_US);
	number(out, "buffer_limited_ns", tcp.buffer_limited_us * NS_PER_US);
	text_puts(out, "}");
}

/* What is measured beside the phases; null, or missing, where it was not. */
static void
overlays(struct text *out, const struct exchange_record *record, size_t size)
{
	int64_t lb_ns = record->upstream_lb_ns;
	text_puts(out, ",\"overlays\":{\"kernel_in_ns\":");
	if (record->flags & RECORD_HAS_KERNEL_IN)
		text_u64(out, record->kernel_in_ns);
	else
		text_puts(out, "null");
	number(out, "idle_before_ns", record->idle_before_ns);
	number(out, "backpressure_ns", record->backpressure_ns);
	number(out, "tls_handshake_ns", record->tls_handshake_ns);
	number(out, "connect_tcp_ns", record->connect_tcp_ns);
	number(out, "connect_tls_ns", record->connect_tls_ns);
	number(out, "client_body_ns", record->client_body_ns);
	number(out, "continue_wait_ns", record->continue_wait_ns);
	number(out, "loop_lag_ns", record->loop_lag_ns);
	if (record->flags & RECORD_HAS_CLIENT_ACK)
		number(out, "client_ack_ns", record->client_ack_ns);
	if (record->flags & RECORD_HAS_UPSTREAM_LB) {
		number(out, "upstream_lb_ns", lb_ns > 0 ? (uint64_t)lb_ns : 0);
		number(out, "upstream_lb_skew_ns", lb_ns < 0 ? (uint64_t)-lb_ns : 0);
	}
	tcp(out, record, size);
	text_puts(out, "}");
}

/* What came after 101; null for all other exchanges. */
static void
tunnel(struct text *out, const struct exchange_record *record)
{
	if (!(record->flags & RECORD_TUNNEL)) {
		text_puts(out, ",\"tunnel\":null");
		return;
	}
	text_puts(out, ",\"tunnel\":{\"ns\":");
	text_u64(out, record->tunnel_ns);
	number(out, "client_bytes", record->tunnel_client_bytes);
	number(out, "server_bytes", record->tunnel_server_bytes);
	string_or_null(out, "cause",
	               record->tunnel_cause != CLOSE_NONE ? close_reason_name(record->tunnel_cause)
	                                                  : NULL);
	text_puts(out, "}");
}

/* The frames of an exchange's stacks, in the order in which they are first named. */
struct frames {
	struct text list;
	uint32_t serial, count;
};

static struct frames
frames_new(void)
{
	static uint32_t serial;
	if (++serial == 0) /* a stack that was never seen says 0 */
		serial = 1;
	return (struct frames){.serial = serial};
}

static void
frames_add(struct frames *frames, struct stack *stack)
{
	struct stack *parent = stack->id.parent;
	if (stack->seen == frames->serial)
		return;
	if (parent != NULL)
		frames_add(frames, parent); /* not deeper than PROFILE_FRAMES_MAX */
	stack->seen = frames->serial;
	stack->number = frames->count++;
	text_printf(&frames->list, "%s[%lld,", stack->number > 0 ? "," : "",
	            parent != NULL ? (long long)parent->number : -1ll);
	text_add(&frames->list, stack->text, stack->length);
	text_puts(&frames->list, "]");
}

static void
stack(struct text *out, struct frames *frames, struct stack *value)
{
	if (value == NULL || value->length == 0) {
		text_puts(out, ",\"stack\":[]");
		return;
	}
	frames_add(frames, value);
	number(out, "stack", value->number);
}

static void
by_whom(struct text *out, const struct profile_row *row)
{
	if (!row->has_by_trace && row->by_route == NULL) {
		text_puts(out, ",\"by\":null");
		return;
	}
	text_puts(out, ",\"by\":{\"trace_id\":");
	if (row->has_by_trace) {
		text_puts(out, "\"");
		text_hex(out, row->by_trace, TRACE_ID_SIZE);
		text_puts(out, "\"");
	} else {
		text_puts(out, "null");
	}
	string_or_null(out, "route", row->by_route);
	text_puts(out, "}");
}

static void
rows(struct text *out, struct frames *frames, const char *key, const struct profile_rows *list)
{
	text_printf(out, ",\"%s\":[", key);
	for (size_t i = 0; i < list->count; i++) {
		const struct profile_row *row = &list->rows[i];
		text_puts(out, i > 0 ? ",{\"kind\":\"" : "{\"kind\":\"");
		text_puts(out, profile_kind_name(row->kind));
		text_puts(out, "\"");
		string_or_null(out, "cause", profile_cause_name(row->cause));
		number(out, "ns", row->ns);
		number(out, "count", row->count);
		flag(out, "exact", row->exact);
		number(out, "samples", row->samples);
		by_whom(out, row);
		stack(out, frames, row->stack);
		text_puts(out, "}");
	}
	text_puts(out, "]");
}

static void
stalls(struct text *out, struct frames *frames, const struct profile *p)
{
	text_puts(out, ",\"stalls\":[");
	for (size_t i = 0; i < p->stall_count; i++) {
		const struct profile_stall *stall = &p->stalls[i];
		text_printf(out, "%s{\"trace_id\":", i > 0 ? "," : "");
		if (stall->has_trace) {
			text_puts(out, "\"");
			text_hex(out, stall->trace_id, TRACE_ID_SIZE);
			text_puts(out, "\"");
		} else {
			text_puts(out, "null");
		}
		string_or_null(out, "route", stall->route);
		string_or_null(out, "kind", profile_stall_kind_name(stall->kind));
		string_or_null(out, "state", profile_stall_state_name(stall->state));
		string_or_null(out, "phase", stall->queued ? "app_queue" : "app");
		number(out, "ns", stall->ns);
		flag(out, "exact", stall->exact);
		stack(out, frames, stall->stack);
		text_puts(out, "}");
	}
	text_puts(out, "]");
}

static void
threads(struct text *out, struct frames *frames, const struct profile *p)
{
	text_puts(out, ",\"threads\":[");
	for (size_t i = 0; i < p->thread_count; i++) {
		const struct profile_thread *job = &p->threads[i];
		text_puts(out, i > 0 ? ",{\"count\":" : "{\"count\":");
		text_u64(out, job->count);
		number(out, "queue_ns", job->queue_ns);
		number(out, "run_ns", job->run_ns);
		number(out, "cpu_ns", job->cpu_ns);
		number_or_null(out, "return_ns", job->has_return, job->return_ns);
		stack(out, frames, job->stack);
		text_puts(out, "}");
	}
	text_puts(out, "]");
}

static void
process(struct text *out, const struct profile *p, const struct join *join)
{
	text_puts(out, ",\"profile\":{\"engine\":");
	text_json_or_null(out, p->process->engine);
	text_printf(out, ",\"clock\":\"%s\"", join->shared ? "shared" : "placed");
	number(out, "clock_slack_ns", join->slack_ns);
	string_or_null(out, "python", p->process->python);
	string_or_null(out, "loop", p->process->loop);
	number(out, "pid", p->process->pid);
	text_puts(out, ",\"instance\":\"");
	text_hex(out, p->process->instance, PROFILE_INSTANCE_SIZE);
	text_puts(out, "\"");
	string_or_null(out, "hook_version", p->process->hook_version);
}

/* The ASGI call, from t0. */
static uint64_t
enter_ns(const struct exchange_record *record, const struct profile *p, const struct join *join)
{
	uint64_t start_ns = record->marks_ns[MARK_START];
	if (!join->shared)
		return record->marks_ns[MARK_SENT_FIRST] - start_ns + join->app_queue_ns;
	return p->enter_ns > start_ns ? p->enter_ns - start_ns : 0;
}

static void
profile_object(struct text *out, const struct exchange_record *record, const struct profile *p,
               const struct join *join)
{
	struct frames frames = frames_new();
	process(out, p, join);
	number(out, "enter_ns", enter_ns(record, p, join));
	number(out, "app_queue_ns", join->app_queue_ns);
	number_or_null(out, "task_queue_ns", p->has_task_queue, p->task_queue_ns);
	number(out, "app_ns", join->app_ns);
	number(out, "app_out_ns", join->app_out_ns);
	number(out, "app_clipped_ns", join->clipped_ns);
	number(out, "app_stream_ns", join->app_stream_ns);
	number_or_null(out, "app_tail_ns", p->has_tail, p->tail_ns);
	number_or_null(out, "cpu_ns", p->has_cpu, p->cpu_ns);
	string_or_null(out, "ended", profile_ended_name(p->ended));
	flag(out, "truncated", p->truncated);
	number(out, "parts", p->parts);
	rows(out, &frames, "breakdown", &p->breakdown);
	number(out, "unattributed_ns", p->unattributed_ns);
	rows(out, &frames, "stream_breakdown", &p->stream);
	number(out, "stream_unattributed_ns", p->stream_unattributed_ns);
	stalls(out, &frames, p);
	threads(out, &frames, p);
	text_puts(out, ",\"frames\":[");
	text_add(out, frames.list.data != NULL ? frames.list.data : "", frames.list.length);
	out->failed |= frames.list.failed;
	text_free(&frames.list);
	text_puts(out, "],\"detail\":\"absent\",\"lanes\":[],\"deep\":null}");
}

static void
request(struct text *out, const struct exchange_record *record, size_t size, const char *route)
{
	const char *method, *path;
	string_or_null(out, "route", route);
	if (record_text(record, size, &method, &path) != 0)
		return;
	text_puts(out, ",\"method\":");
	text_json(out, method, record->method_length);
	text_puts(out, ",\"path\":");
	text_json(out, path, record->path_length);
}

void
render_exchange(struct text *out, const struct config *config, const struct exchange_record *record,
                size_t size, const char *route, const struct profile *profile,
                const struct join *join, enum profile_missing missing)
{
	ids(out, record);
	text_puts(out, ",\"others\":[]");
	request(out, record, size, route);
	number_or_null(out, "status", record->status != 0, record->status);
	start_time(out, record);
	number(out, "total_ns", total_ns(record));
	string_or_null(out, "died_in",
	               record->died_in < PHASE_COUNT ? phase_name(record->died_in) : NULL);
	string_or_null(out, "cause",
	               record->cause != CLOSE_NONE ? close_reason_name(record->cause) : NULL);
	flag(out, "provisional", record->flags & RECORD_PROVISIONAL);
	phases(out, record);
	overlays(out, record, size);
	connection(out, config, record);
	tunnel(out, record);
	if (record->flags & RECORD_HAS_FOREIGN) {
		text_puts(out, ",\"foreign_trace_id\":\"");
		text_hex(out, record->foreign_trace_id, TRACE_ID_SIZE);
		text_puts(out, "\"");
	}
	if (profile != NULL)
		profile_object(out, record, profile, join);
	else
		text_printf(out, ",\"profile\":null,\"profile_missing\":\"%s\"",
		            profile_missing_name(missing));
	text_puts(out, "}");
}

static void
summary(struct text *out, const struct exchange_record *record, const char *route, bool has_profile)
{
	ids(out, record);
	string_or_null(out, "route", route);
	number_or_null(out, "status", record->status != 0, record->status);
	number(out, "total_ns", total_ns(record));
	start_time(out, record);
	flag(out, "has_profile", has_profile);
}

void
render_summary(struct text *out, const struct exchange_record *record, const char *route,
               bool has_profile)
{
	summary(out, record, route, has_profile);
	text_puts(out, "}");
}

void
render_live(struct text *out, const struct exchange_record *record, size_t size, const char *route,
            bool has_profile, size_t path_max)
{
	const char *method, *path;
	struct marks marks;
	uint64_t ns[PHASE_COUNT];
	summary(out, record, route, has_profile);
	if (record_text(record, size, &method, &path) == 0) {
		size_t length = record->path_length;
		text_puts(out, ",\"method\":");
		text_json(out, method, record->method_length);
		text_puts(out, ",\"path\":");
		text_json(out, path, length < path_max ? length : path_max);
	}
	memcpy(marks.at_ns, record->marks_ns, sizeof(marks.at_ns));
	marks_phases(&marks, ns);
	text_puts(out, ",\"phases_ns\":{");
	for (unsigned i = 0; i < PHASE_COUNT; i++)
		text_printf(out, "%s\"%s\":%llu", i > 0 ? "," : "", phase_name(i),
		            (unsigned long long)ns[i]);
	text_puts(out, "}}");
}
