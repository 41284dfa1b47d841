/* One slot per status and per class. */
#include "proxy/error_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/xmem.h"

#define STATUS_MIN 400
#define STATUSES 200

static struct error_page *pages[STATUSES + 2]; /* by status; then 4xx, 5xx */

static const char *
type_of(const char *file)
{
	size_t n = strlen(file);

	if (n > 5 && strcmp(file + n - 5, ".json") == 0)
		return "application/json";
	if (n > 4 && strcmp(file + n - 4, ".txt") == 0)
		return "text/plain; charset=utf-8";
	return "text/html; charset=utf-8";
}

/* The file's bytes, at most CONFIG_ERROR_PAGE_BYTES_MAX; null with errno. */
static char *
read_all(const char *file, size_t *ret_length)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC), error = 0;
	char *bytes = fd == -1 ? NULL : xcalloc(CONFIG_ERROR_PAGE_BYTES_MAX + 1, 1);
	size_t length = 0;
	ssize_t n = 1;

	while (bytes && n > 0 && length <= CONFIG_ERROR_PAGE_BYTES_MAX) {
		n = read(fd, bytes + length, CONFIG_ERROR_PAGE_BYTES_MAX + 1 - length);
		length += n > 0 ? (size_t)n : 0;
	}
	error = !bytes || n < 0 ? errno : length > CONFIG_ERROR_PAGE_BYTES_MAX ? EFBIG : 0;
	if (fd != -1)
		close(fd);
	if (error) {
		free(bytes);
		errno = error;
		return NULL;
	}
	*ret_length = length;
	return bytes;
}

static size_t
slot_of(const char *name)
{
	return name[1] == 'x' ? (size_t)(STATUSES + name[0] - '4')
	                      : strtoul(name, NULL, 10) - STATUS_MIN;
}

void
error_pages_load(const struct config *config)
{
	for (size_t i = 0; i < config->error_page_count; i++) {
		const struct config_error_page *from = &config->error_pages[i];
		size_t length, slot = slot_of(from->name);
		char *bytes = read_all(from->file, &length);

		if (!bytes) {
			log_warn("error page %s: %s; the built-in answer is given", from->file,
			         strerror(errno));
			continue;
		}
		if (pages[slot])
			free((void *)(uintptr_t)pages[slot]->bytes);
		free(pages[slot]);
		pages[slot] = xcalloc(1, sizeof **pages);
		*pages[slot] = (struct error_page){bytes, type_of(from->file), length};
	}
}

void
error_pages_free(void)
{
	for (size_t i = 0; i < STATUSES + 2; i++) {
		if (pages[i])
			free((void *)(uintptr_t)pages[i]->bytes);
		free(pages[i]);
		pages[i] = NULL;
	}
}

const struct error_page *
error_page_for(int status)
{
	if (status < STATUS_MIN || status >= STATUS_MIN + STATUSES)
		return NULL;
	if (pages[status - STATUS_MIN])
		return pages[status - STATUS_MIN];
	return pages[STATUSES + (status >= 500)];
}
