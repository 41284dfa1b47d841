/* Normal form of paths. */
#include "model/target.h"

#include <string.h>

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
is_unreserved(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

static struct text
path_of(struct text target)
{
	const char *query = memchr(target.at, '?', target.length);

	return (struct text){target.at, query ? (size_t)(query - target.at) : target.length};
}

/* Nothing in it could be spelt otherwise. */
bool
target_is_normal(struct text target)
{
	struct text path = path_of(target);

	return memchr(path.at, '%', path.length) == NULL &&
	       memmem(path.at, path.length, "/.", 2) == NULL;
}

static size_t
decode_unreserved(struct text path, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < path.length && n < size; i++) {
		int high = path.length - i >= 3 ? hex_value(path.at[i + 1]) : -1;
		int low = path.length - i >= 3 ? hex_value(path.at[i + 2]) : -1;

		if (path.at[i] == '%' && high >= 0 && low >= 0 && is_unreserved(high * 16 + low)) {
			out[n++] = (char)(high * 16 + low);
			i += 2;
		} else {
			out[n++] = path.at[i];
		}
	}
	return n;
}

/* RFC 3986 5.2.4, in place, for paths that begin with a slash. */
static size_t
remove_dots(char *path, size_t length)
{
	size_t n = 0;

	for (size_t i = 0; i < length;) {
		size_t end = i + 1;
		size_t segment;

		while (end < length && path[end] != '/')
			end++;
		segment = end - i - 1;
		if (segment == 1 && path[i + 1] == '.') {
			if (end == length)
				path[n++] = '/';
		} else if (segment == 2 && path[i + 1] == '.' && path[i + 2] == '.') {
			while (n > 0 && path[--n] != '/')
				;
			if (end == length)
				path[n++] = '/';
		} else {
			memmove(path + n, path + i, end - i);
			n += end - i;
		}
		i = end;
	}
	return n;
}

struct text
target_normal(struct text target, char *buf, size_t size)
{
	struct text path = path_of(target);

	if (path.length == 0)
		return (struct text){"/", 1};
	if (path.at[0] != '/' || target_is_normal(path))
		return path;
	path.length = decode_unreserved(path, buf, size);
	path.at = buf;
	path.length = remove_dots(buf, path.length);
	return path.length > 0 ? path : (struct text){"/", 1};
}
