/* Reading the text behind an exchange record, distrusting the lengths in it. */
#include "model/record.h"

int
record_text(const struct exchange_record *record, size_t size, const char **ret_method,
            const char **ret_path)
{
	const char *text = (const char *)(record + 1);

	if (size < sizeof *record || record->method_length > RECORD_METHOD_MAX ||
	    record->path_length > RECORD_PATH_MAX)
		return -1;
	if ((size_t)record->method_length + record->path_length > size - sizeof *record)
		return -1;
	*ret_method = text;
	*ret_path = text + record->method_length;
	return 0;
}
