/* Prometheus text format: heads, labels, samples. */
#include <stdio.h>
#include <string.h>
#include "collector/metrics_text.h"

void
metrics_head(struct text *out, const char *metric, const char *type, const char *help)
{
	text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", metric, help, metric, type);
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

void
metrics_sample(struct text *out, const char *metric, const char *labels, uint64_t value)
{
	text_puts(out, metric);
	if (labels[0] != '\0')
		text_printf(out, "{%s}", labels);
	text_puts(out, " ");
	text_u64(out, value);
	text_puts(out, "\n");
}
