/* Reads a configuration's text and makes JSON of it. */
#include "base/config_text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/config_errors.h"
#include "base/xmem.h"

void
config_text_blank(char *text, size_t length)
{
	bool in_string = false;

	for (size_t i = 0; i < length; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"' || text[i] == '\n')
				in_string = false;
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '/' && i + 1 < length && text[i + 1] == '/') {
			for (; i < length && text[i] != '\n'; i++)
				text[i] = ' ';
		}
	}
}

char *
config_text_read(const char *path, size_t *ret_length, struct config_errors *errs)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *text = fd == -1 ? NULL : xmem_try(CONFIG_BYTES_MAX + 1);
	size_t length = 0;
	ssize_t n = text == NULL ? -1 : 1;

	while (n > 0 && length <= CONFIG_BYTES_MAX) {
		n = read(fd, text + length, CONFIG_BYTES_MAX + 1 - length);
		if (n > 0)
			length += (size_t)n;
		else if (n == -1 && errno == EINTR)
			n = 1;
	}
	if (n == -1)
		config_errors_add(errs, "%s: cannot be read: %s", path, strerror(errno));
	else if (length > CONFIG_BYTES_MAX)
		config_errors_add(errs, "%s: longer than %u bytes", path, CONFIG_BYTES_MAX);
	if (fd != -1)
		close(fd);
	if (n == -1 || length > CONFIG_BYTES_MAX) {
		free(text);
		return NULL;
	}
	*ret_length = length;
	return text;
}

json_t *
config_text_parse(const char *file, char *text, size_t length, struct config_errors *errs)
{
	json_error_t error;
	json_t *root;

	config_text_blank(text, length);
	root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
	if (root == NULL)
		config_errors_add(errs, "%s:%d:%d: %s", file, error.line, error.column, error.text);
	return root;
}
