/* The input of collector_alone: exchanges' records, and the batches a hook posts of them. */
#include <stdio.h>
#include <string.h>
#include "collector_alone.h"
#include "model/record.h"
#include "model/text.h"

#define STACKS_TOLD 400 /* in one batch */

unsigned routes, rows, frames = 6;
char boot_id[CLOCK_BOOT_ID_SIZE];
uint64_t made, time_namespace;
static uint64_t random_state = 1;
static struct text body;

uint64_t
random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static void
head(void)
{
	text_reset(&body);
	text_printf(&body,
	            "{\"v\":1,\"process\":{\"instance\":\"c3b1a0f25e7d4c6f9a0b1c2d3e4f5061\","
	            "\"pid\":1,\"python\":\"3.11.7\",\"loop\":\"uvloop\",\"engine\":\"steps\","
	            "\"hook_version\":\"0.1.0\",\"boot_id\":\"%s\",\"time_namespace\":%llu,"
	            "\"dropped\":0}",
	            boot_id, (unsigned long long)time_namespace);
}

static void
post(const struct input_taker *taker)
{
	text_puts(&body, "}");
	taker->batch(body.data, body.length);
}

/* Whose frame `k` of a stack is: the outer ones are all routes', then the route's, then its own. */
unsigned
whose(unsigned stack, unsigned k)
{
	return k + 3 < frames ? 0 : k + 1 < frames ? stack / rows : stack;
}

/* Every route has its own innermost frames; the outer ones are all routes'. */
void
tell_stacks(const struct input_taker *taker)
{
	for (unsigned first = 0; first < routes * rows; first += STACKS_TOLD) {
		head();
		text_puts(&body, ",\"stacks\":[");
		for (unsigned i = first; i < first + STACKS_TOLD && i < routes * rows; i++) {
			text_printf(&body, "%s[%u,[", i > first ? "," : "", i);
			for (unsigned k = 0; k < frames; k++)
				text_printf(
				    &body,
				    "%s[\"app.module%u\",\"function_%u_%u\",\"module.py\",%u,1]",
				    k > 0 ? "," : "", k, k, whose(i, k), k + 1);
			text_puts(&body, "]]");
		}
		text_puts(&body, "],\"profiles\":[]");
		post(taker);
	}
}

/* One exchange that ended now: its record, and its profile's row behind body. */
static void
exchange(struct exchange_record *record)
{
	unsigned route = (unsigned)(random_next() % routes);
	uint64_t app_ns = 1000000 + random_next() % 50000000, now_ns = clock_now_ns();
	uint64_t begin_ns = now_ns - app_ns - 200000, rest_ns = app_ns;
	uint64_t id[3] = {++made, random_next(), random_next()};
	*record = (struct exchange_record){.attempts = 1,
	                                   .status = 200,
	                                   .died_in = PHASE_COUNT,
	                                   .route = RECORD_NO_INDEX,
	                                   .upstream = RECORD_NO_INDEX,
	                                   .server = RECORD_NO_INDEX,
	                                   .start_wall_ns = wall_ns() - app_ns - 200000,
	                                   .method_length = 3,
	                                   .path_length = 10};
	memcpy(record->trace_id, id, TRACE_ID_SIZE);
	memcpy(record->span_id, id + 2, SPAN_ID_SIZE);
	memcpy(record + 1, "GET/some/path", 13);
	for (unsigned i = 0; i < MARK_COUNT; i++)
		record->marks_ns[i] =
		    begin_ns + i * 5000 + (i >= MARK_READ_FIRST ? app_ns + 100000 : 0);
	uint64_t enter_ns = record->marks_ns[MARK_SENT_FIRST] + 50000;
	text_puts(&body, "[\"");
	text_hex(&body, record->trace_id, TRACE_ID_SIZE);
	text_puts(&body, "-");
	text_hex(&body, record->span_id, SPAN_ID_SIZE);
	text_printf(&body, "\",0,1,\"GET /route%u/{id}\",1000,%llu,%llu,%llu,null,\"response\",0,[",
	            route, (unsigned long long)enter_ns, (unsigned long long)(enter_ns + app_ns),
	            (unsigned long long)(enter_ns + app_ns));
	for (unsigned i = 0; i < rows; i++) {
		uint64_t ns = i + 1 < rows ? app_ns / rows : rest_ns;
		rest_ns -= ns;
		text_printf(&body, "%s[\"wait\",\"database\",%u,%llu,2,1,0,null,null]",
		            i > 0 ? "," : "", route * rows + i, (unsigned long long)ns);
	}
	text_puts(&body, "],0,[],0,[],null]");
}

/* A batch of `count`, the records before or after it. */
uint64_t
feed(const struct input_taker *taker, unsigned count, bool record_first)
{
	static _Alignas(8) char records[BATCH][sizeof(struct exchange_record) + 16];
	const size_t size = sizeof(struct exchange_record) + 13;
	head();
	text_puts(&body, ",\"profiles\":[");
	for (unsigned i = 0; i < count; i++) {
		text_puts(&body, i > 0 ? "," : "");
		exchange((struct exchange_record *)records[i]);
	}
	text_puts(&body, "]");
	uint64_t from_ns = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
	if (!record_first)
		post(taker);
	for (unsigned i = 0; i < count; i++)
		taker->record((struct exchange_record *)records[i], size);
	if (record_first)
		post(taker);
	return cpu_ns(CLOCK_THREAD_CPUTIME_ID) - from_ns;
}
