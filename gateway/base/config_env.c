/* Puts values of the environment into the configuration's JSON, led by the table of keys. */
#include "base/config_env.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/config_errors.h"
#include "base/config_table.h"

#define SEGMENT_SIZE 128

/* Takes the next segment, up to "__" or the end, in lower case. False where none is left or it is
 * empty or too long. */
static bool
next_segment(const char **rest, char segment[SEGMENT_SIZE])
{
	const char *end = strstr(*rest, "__");
	size_t n = end != NULL ? (size_t)(end - *rest) : strlen(*rest);

	if (n == 0 || n >= SEGMENT_SIZE)
		return false;
	for (size_t i = 0; i < n; i++)
		segment[i] = (char)tolower((unsigned char)(*rest)[i]);
	segment[n] = '\0';
	*rest += end != NULL ? n + 2 : n;
	return true;
}

/* A JSON value of the type the key wants where the text allows that; else a string, which the check
 * that follows shows as found. */
static json_t *
make_value(const struct config_key *key, const char *text)
{
	char *end;
	long long number;

	if (key->kind == CONFIG_KIND_NUMBER && isdigit((unsigned char)text[0])) {
		errno = 0;
		number = strtoll(text, &end, 10);
		if (*end == '\0' && errno == 0)
			return json_integer(number);
	}
	if (key->kind == CONFIG_KIND_REAL && isdigit((unsigned char)text[0])) {
		double real = strtod(text, &end);

		if (*end == '\0' && isfinite(real))
			return json_real(real);
	}
	if (key->kind == CONFIG_KIND_BOOLEAN && strcmp(text, "true") == 0)
		return json_true();
	if (key->kind == CONFIG_KIND_BOOLEAN && strcmp(text, "false") == 0)
		return json_false();
	return json_string(text);
}

static bool
is_scalar(const struct config_key *key)
{
	switch (key->kind) {
	case CONFIG_KIND_NUMBER:
	case CONFIG_KIND_REAL:
	case CONFIG_KIND_BOOLEAN:
	case CONFIG_KIND_TEXT:
	case CONFIG_KIND_CHOICE:
	case CONFIG_KIND_PEERS:
	case CONFIG_KIND_ADDRESS:
	case CONFIG_KIND_UPSTREAM:
	case CONFIG_KIND_LATER: /* refused by name later, which says more than "unknown" */
		return true;
	default:
		return false;
	}
}

/* The object called `name` inside `parent`, made where a section is missing. Null where there is
 * none. */
static json_t *
section_of(json_t *parent, const struct config_key *key)
{
	json_t *section = json_object_get(parent, key->name);

	if (section == NULL) {
		section = json_object();
		json_object_set_new(parent, key->name, section);
	}
	return section;
}

static json_t *
member_of(json_t *map, const char *name)
{
	const char *key;
	json_t *value;

	json_object_foreach(map, key, value) if (strcasecmp(key, name) == 0) return value;
	return NULL;
}

/* Element `text` of a list; an address written as a plain text becomes an object that can be set
 * into. */
static json_t *
element_of(json_t *list, const char *text)
{
	size_t index = isdigit((unsigned char)text[0]) ? strtoul(text, NULL, 10) : SIZE_MAX;
	json_t *element = json_array_get(list, index);

	if (json_is_string(element)) {
		element = json_pack("{s:O}", "address", element);
		json_array_set_new(list, index, element);
	}
	return element;
}

/* Walks the name from the root; sets the value at its end. False where it names no scalar key. */
static bool
apply(json_t *parent, enum config_object object, const char *rest, const char *text)
{
	char segment[SEGMENT_SIZE];

	while (next_segment(&rest, segment)) {
		const struct config_key *key = config_key_find(object, segment, strlen(segment));

		if (key == NULL || !json_is_object(parent))
			return false;
		if (is_scalar(key)) {
			if (*rest != '\0')
				return false;
			json_object_set_new(parent, key->name, make_value(key, text));
			return true;
		}
		object = key->child;
		if (key->kind == CONFIG_KIND_SECTION || key->kind == CONFIG_KIND_PART) {
			parent = section_of(parent, key);
			continue;
		}
		if (!next_segment(&rest, segment))
			return false;
		parent = json_object_get(parent, key->name);
		if (key->kind == CONFIG_KIND_MAP)
			parent = member_of(parent, segment);
		else
			parent = element_of(parent, segment);
	}
	return false;
}

void
config_env_apply(json_t *root, char *const *environment, struct config_errors *errs)
{
	for (; *environment != NULL; environment++) {
		const char *equals = strchr(*environment, '=');
		size_t prefix = strlen(CONFIG_ENV_PREFIX);
		char name[512];
		size_t n = equals != NULL ? (size_t)(equals - *environment) : 0;

		if (strncmp(*environment, CONFIG_ENV_PREFIX, prefix) != 0 || n < prefix)
			continue;
		if (n >= sizeof(name)) {
			config_errors_add(errs, "environment: %.60s...: name too long",
			                  *environment);
			continue;
		}
		memcpy(name, *environment, n);
		name[n] = '\0';
		if (!apply(root, CONFIG_OBJECT_ROOT, name + prefix, equals + 1))
			config_errors_add(
			    errs, "environment: %s: no scalar key of this configuration", name);
	}
}
