/* Reading the text behind an exchange record, distrusting the lengths in it. */
#include "model/record.h"

#include <string.h>

static size_t
texts_length(const struct exchange_record *record)
{
	return (size_t)record->method_length + record->path_length + record->user_agent_length +
	       record->referer_length;
}

static bool
lengths_fit(const struct exchange_record *record, size_t size)
{
	if (size < sizeof *record || record->method_length > RECORD_METHOD_MAX ||
	    record->path_length > RECORD_PATH_MAX ||
	    record->user_agent_length > RECORD_USER_AGENT_MAX ||
	    record->referer_length > RECORD_REFERER_MAX)
		return false;
	return texts_length(record) +
	           (record->flags & RECORD_HAS_TCP ? sizeof(struct record_tcp) : 0) <=
	       size - sizeof *record;
}

int
record_text(const struct exchange_record *record, size_t size, const char **ret_method,
            const char **ret_path)
{
	const char *text = (const char *)(record + 1);

	if (!lengths_fit(record, size))
		return -1;
	*ret_method = text;
	*ret_path = text + record->method_length;
	return 0;
}

int
record_head(const struct exchange_record *record, size_t size, struct record_head *ret)
{
	const char *text = (const char *)(record + 1);

	if (!lengths_fit(record, size))
		return -1;
	ret->user_agent = text + record->method_length + record->path_length;
	ret->referer = ret->user_agent + record->user_agent_length;
	return 0;
}

int
record_tcp(const struct exchange_record *record, size_t size, struct record_tcp *ret)
{
	const char *text = (const char *)(record + 1);

	if (!lengths_fit(record, size) || !(record->flags & RECORD_HAS_TCP))
		return -1;
	memcpy(ret, text + texts_length(record), sizeof *ret);
	return 0;
}
