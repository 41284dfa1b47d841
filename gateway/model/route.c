/* Bounded table of route names, and how an exchange gets its name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "model/route.h"
#include <uthash.h>

struct route {
	UT_hash_handle hh;
	size_t index;
	char *name; /* owned */
};

struct routes {
	struct route *by_name;   /* uthash head; owns the entries */
	struct route **by_index; /* max + 1 places */
	size_t count, max;
	uint64_t overflowed;
};

static struct route *
route_add(struct routes *routes, const char *name)
{
	struct route *route = xcalloc(1, sizeof(*route));
	route->name = xstrdup(name);
	route->index = routes->count;
	routes->by_index[routes->count++] = route;
	HASH_ADD_KEYPTR(hh, routes->by_name, route->name, strlen(route->name), route);
	return route;
}

struct routes *
routes_new(size_t max)
{
	struct routes *routes = xcalloc(1, sizeof(*routes));
	routes->max = max;
	routes->by_index = xcalloc(max + 1, sizeof(*routes->by_index));
	route_add(routes, ROUTE_OTHER_NAME);
	return routes;
}

void
routes_free(struct routes *routes)
{
	if (routes == NULL)
		return;
	struct route *route, *next;
	HASH_ITER(hh, routes->by_name, route, next)
	{
		HASH_DEL(routes->by_name, route);
		free(route->name);
		free(route);
	}
	free(routes->by_index);
	free(routes);
}

size_t
routes_index(struct routes *routes, const char *name)
{
	struct route *route;
	HASH_FIND_STR(routes->by_name, name, route);
	if (route != NULL)
		return route->index;
	if (routes->count > routes->max) {
		routes->overflowed++;
		return ROUTE_OTHER;
	}
	return route_add(routes, name)->index;
}

size_t
routes_count(const struct routes *routes)
{
	return routes->count;
}

const char *
routes_name(const struct routes *routes, size_t index)
{
	return routes->by_index[index < routes->count ? index : ROUTE_OTHER]->name;
}

uint64_t
routes_overflowed(const struct routes *routes)
{
	return routes->overflowed;
}

static const char *
known_method(const char *method, size_t length)
{
	static const char *const known[] = {"GET",     "HEAD",    "POST",  "PUT",  "DELETE",
	                                    "CONNECT", "OPTIONS", "TRACE", "PATCH"};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strlen(known[i]) == length && memcmp(known[i], method, length) == 0)
			return known[i];
	return "OTHER";
}

void
route_name(const char *told, const char *method, size_t method_length, const char *config_name,
           char *buf)
{
	if (told != NULL && told[0] != '\0')
		snprintf(buf, ROUTE_NAME_MAX + 1, "%s", told);
	else
		snprintf(buf, ROUTE_NAME_MAX + 1, "%s %s", known_method(method, method_length),
		         config_name != NULL ? config_name : "(no route)");
	size_t length = strlen(buf);
	if (length < ROUTE_NAME_MAX)
		return;
	/* Cut within a character: take its beginning away too. */
	while (length > 0 && ((unsigned char)buf[length - 1] & 0xc0) == 0x80)
		length--;
	if (length > 0 && ((unsigned char)buf[length - 1] & 0x80))
		length--;
	buf[length] = '\0';
}
