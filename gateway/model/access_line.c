/* Access log lines: JSON with phases, and the combined format. */
#include "model/access_line.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "model/close_reason.h"

#define IP_SIZE INET6_ADDRSTRLEN

/* What the client sent, as far as the record holds it. */
struct parts {
	const char *method, *path;
	struct record_head head;
};

static int
parts_of(const struct exchange_record *record, size_t size, struct parts *ret)
{
	return record_text(record, size, &ret->method, &ret->path) == 0 &&
	               record_head(record, size, &ret->head) == 0
	           ? 0
	           : -1;
}

/* Returns false where the peer has no address. */
static bool
client_ip(const struct exchange_record *record, char ip[IP_SIZE])
{
	if (record->client_family != AF_INET && record->client_family != AF_INET6)
		return false;
	return inet_ntop(record->client_family, record->client_ip, ip, IP_SIZE) != NULL;
}

static const char *
protocol(const struct exchange_record *record)
{
	return record->flags & RECORD_HTTP_1_0 ? "HTTP/1.0" : "HTTP/1.1";
}

/* --- JSON ------------------------------------------------------------------------------ */

static void
key_text(struct text *out, const char *key, const char *text, size_t length)
{
	text_printf(out, ",\"%s\":", key);
	if (length > 0)
		text_json(out, text, length);
	else
		text_puts(out, "null");
}

static void
key_name(struct text *out, const char *key, const char *name)
{
	text_printf(out, ",\"%s\":", key);
	text_json_or_null(out, name);
}

static void
key_number(struct text *out, const char *key, uint64_t value)
{
	text_printf(out, ",\"%s\":", key);
	text_u64(out, value);
}

static void
key_true(struct text *out, const char *key, bool value)
{
	if (value)
		text_printf(out, ",\"%s\":true", key);
}

static void
begin(struct text *out, const struct exchange_record *record)
{
	char when[32], ip[IP_SIZE];

	clock_format(record->start_wall_ns, when, sizeof(when));
	text_printf(out, "{\"time\":\"%s\",\"trace_id\":\"", when);
	text_hex(out, record->trace_id, TRACE_ID_SIZE);
	text_puts(out, "\",\"span_id\":\"");
	text_hex(out, record->span_id, SPAN_ID_SIZE);
	text_puts(out, "\"");
	if (client_ip(record, ip)) {
		text_printf(out, ",\"client\":\"%s\"", ip);
		key_number(out, "client_port", record->client_port);
	} else {
		text_puts(out, ",\"client\":\"unix:\"");
	}
}

static void
request(struct text *out, const struct exchange_record *record, const struct parts *parts)
{
	key_text(out, "method", parts->method, record->method_length);
	key_text(out, "path", parts->path, record->path_length);
	key_true(out, "path_cut", record->flags & RECORD_PATH_CUT);
	key_name(out, "protocol", record->method_length > 0 ? protocol(record) : NULL);
	if (record->status != 0)
		key_number(out, "status", record->status);
	else
		text_puts(out, ",\"status\":null");
	key_number(out, "request_body_bytes", record->request_body_bytes);
	key_number(out, "response_body_bytes", record->response_body_bytes);
}

static void
times(struct text *out, const struct exchange_record *record)
{
	struct marks marks;
	uint64_t ns[PHASE_COUNT];

	memcpy(marks.at_ns, record->marks_ns, sizeof(marks.at_ns));
	marks_phases(&marks, ns);
	key_number(out, "total_ns", marks.at_ns[MARK_END] - marks.at_ns[MARK_START]);
	text_puts(out, ",\"phases_ns\":{");
	for (unsigned i = 0; i < PHASE_COUNT; i++)
		text_printf(out, "%s\"%s\":%llu", i > 0 ? "," : "", phase_name(i),
		            (unsigned long long)ns[i]);
	text_puts(out, "}");
}

static void
ending(struct text *out, const struct exchange_record *record, const struct access_names *names)
{
	key_name(out, "route", names->route);
	key_name(out, "upstream", names->upstream);
	key_name(out, "server", names->server);
	key_number(out, "attempts", record->attempts);
	key_true(out, "client_reused", record->flags & RECORD_CLIENT_REUSED);
	key_true(out, "server_reused", record->flags & RECORD_SERVER_REUSED);
	key_true(out, "local", record->flags & RECORD_LOCAL_REPLY);
	key_name(out, "died_in",
	         record->died_in < PHASE_COUNT ? phase_name(record->died_in) : NULL);
	key_name(out, "cause",
	         record->cause != CLOSE_NONE ? close_reason_name(record->cause) : NULL);
}

void
access_line_json(struct text *out, const struct exchange_record *record, size_t size,
                 const struct access_names *names)
{
	struct parts parts;

	if (parts_of(record, size, &parts) != 0)
		return;
	begin(out, record);
	request(out, record, &parts);
	times(out, record);
	ending(out, record, names);
	key_text(out, "user_agent", parts.head.user_agent, record->user_agent_length);
	key_true(out, "user_agent_cut", record->flags & RECORD_USER_AGENT_CUT);
	key_text(out, "referer", parts.head.referer, record->referer_length);
	key_true(out, "referer_cut", record->flags & RECORD_REFERER_CUT);
	text_puts(out, "}\n");
}

/* --- combined -------------------------------------------------------------------------- */

static void
escaped(struct text *out, const char *text, size_t length)
{
	size_t done = 0;

	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= 0x20 && c <= 0x7e && c != '"' && c != '\\')
			continue;
		text_add(out, text + done, i - done);
		text_printf(out, "\\x%02X", c);
		done = i + 1;
	}
	text_add(out, text + done, length - done);
}

static void
quoted(struct text *out, const char *text, size_t length)
{
	text_puts(out, " \"");
	if (length > 0)
		escaped(out, text, length);
	else
		text_puts(out, "-");
	text_puts(out, "\"");
}

/* When the exchange ended, as the format has it. */
static void
local_time(struct text *out, const struct exchange_record *record)
{
	uint64_t total_ns = record->marks_ns[MARK_END] - record->marks_ns[MARK_START];
	time_t seconds = (time_t)((record->start_wall_ns + total_ns) / NS_PER_S);
	static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
	                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	struct tm tm;
	long offset;

	localtime_r(&seconds, &tm);
	offset = tm.tm_gmtoff / 60;
	text_printf(out, " [%02d/%s/%04d:%02d:%02d:%02d %c%02ld%02ld]", tm.tm_mday,
	            months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec,
	            offset < 0 ? '-' : '+', labs(offset) / 60, labs(offset) % 60);
}

void
access_line_combined(struct text *out, const struct exchange_record *record, size_t size)
{
	struct parts parts;
	char ip[IP_SIZE];

	if (parts_of(record, size, &parts) != 0)
		return;
	text_puts(out, client_ip(record, ip) ? ip : "-");
	text_puts(out, " - -");
	local_time(out, record);
	if (record->method_length > 0) {
		text_puts(out, " \"");
		escaped(out, parts.method, record->method_length);
		text_puts(out, " ");
		escaped(out, parts.path, record->path_length);
		text_printf(out, " %s\"", protocol(record));
	} else {
		text_puts(out, " \"-\"");
	}
	/* Where nothing was sent there is no status: 000, which readers of the format take. */
	text_printf(out, " %03u %llu", (unsigned)record->status,
	            (unsigned long long)record->response_body_bytes);
	quoted(out, parts.head.referer, record->referer_length);
	quoted(out, parts.head.user_agent, record->user_agent_length);
	text_puts(out, "\n");
}
