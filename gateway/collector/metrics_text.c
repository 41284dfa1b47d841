/* Heads, labels, samples, buckets and exemplars of /metrics. */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "collector/metrics_text.h"

void
metrics_head(struct metrics *out, const char *metric, const char *type, const char *help)
{
	size_t length = strlen(metric);
	const char *suffix = strrchr(metric, '_');
	bool total = strcmp(type, "counter") == 0 && suffix != NULL;
	bool info = strcmp(type, "info") == 0 && suffix != NULL;

	/* OpenMetrics names the family, the older text its samples; and has no type for info. */
	if (out->open && (total || info))
		length = (size_t)(suffix - metric);
	else if (info)
		type = "gauge";
	text_printf(&out->text, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)length, metric, help,
	            (int)length, metric, type);
}

void
metrics_label(char *buf, size_t size, const char *name, const char *value)
{
	size_t length = (size_t)snprintf(buf, size, "%s=\"", name);
	for (; *value != '\0' && length + 4 < size; value++) {
		if (*value == '\\' || *value == '"' || *value == '\n')
			buf[length++] = '\\';
		buf[length++] = *value == '\n' ? 'n' : *value;
	}
	snprintf(buf + length, size - length, "\"");
}

static void
name(struct metrics *out, const char *metric, const char *labels)
{
	text_puts(&out->text, metric);
	if (labels[0] != '\0')
		text_printf(&out->text, "{%s}", labels);
	text_puts(&out->text, " ");
}

static void
seconds(struct text *out, uint64_t ns)
{
	text_printf(out, "%llu.%09llu", (unsigned long long)(ns / NS_PER_S),
	            (unsigned long long)(ns % NS_PER_S));
}

void
metrics_sample(struct metrics *out, const char *metric, const char *labels, uint64_t value)
{
	name(out, metric, labels);
	text_u64(&out->text, value);
	text_puts(&out->text, "\n");
}

void
metrics_seconds(struct metrics *out, const char *metric, const char *labels, uint64_t ns)
{
	name(out, metric, labels);
	seconds(&out->text, ns);
	text_puts(&out->text, "\n");
}

void
metrics_bucket(struct metrics *out, const char *metric, const char *labels, const char *le,
               uint64_t count, const struct exemplar *exemplar)
{
	text_printf(&out->text, "%s_bucket{%s%sle=\"%s\"} ", metric, labels,
	            labels[0] != '\0' ? "," : "", le);
	text_u64(&out->text, count);
	if (out->open && exemplar != NULL && exemplar->wall_ns != 0) {
		text_puts(&out->text, " # {trace_id=\"");
		text_hex(&out->text, exemplar->trace_id, TRACE_ID_SIZE);
		text_puts(&out->text, "\"} ");
		seconds(&out->text, exemplar->ns);
		text_puts(&out->text, " ");
		seconds(&out->text, exemplar->wall_ns);
	}
	text_puts(&out->text, "\n");
}

void
metrics_end(struct metrics *out)
{
	if (out->open)
		text_puts(&out->text, "# EOF\n");
}
