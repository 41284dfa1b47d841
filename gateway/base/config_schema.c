/* The draft-07 schema of the configuration, made from the table of keys. */
#include <stdio.h>
#include <string.h>
#include <jansson.h>
#include "base/config.h"
#include "base/config_table.h"

static json_t *object_schema(enum config_object object);

static void
set(json_t *schema, const char *name, json_t *value)
{
	if (json_object_set_new(schema, name, value) == -1)
		fatal("out of memory (schema)");
}

static json_t *
typed(const char *type)
{
	return json_pack("{s:s}", "type", type);
}

static json_t *
number_schema(const struct config_key *key)
{
	json_t *schema = typed("integer");

	set(schema, "minimum", json_integer((json_int_t)key->min));
	set(schema, "maximum", json_integer((json_int_t)key->max));
	if (key->fallback <= key->max)
		set(schema, "default", json_integer((json_int_t)key->fallback));
	return schema;
}

/* Whole ones without a point. */
static json_t *
real(double value)
{
	return value == (double)(json_int_t)value ? json_integer((json_int_t)value)
	                                          : json_real(value);
}

static json_t *
real_schema(const struct config_key *key)
{
	json_t *schema = typed("number");

	set(schema, "minimum", real(key->real_min));
	set(schema, "maximum", real(key->real_max));
	set(schema, "default", real(key->real_fallback));
	return schema;
}

static json_t *
text_schema(const struct config_key *key)
{
	json_t *schema = typed("string");

	set(schema, "minLength", json_integer((json_int_t)key->min));
	set(schema, "maxLength", json_integer((json_int_t)key->max));
	return schema;
}

/* "a|b|c" as an enum, with the chosen one as the default. */
static json_t *
choice_schema(const char *choices, size_t fallback)
{
	json_t *list = json_array(), *schema = json_object();

	for (const char *p = choices; *p != '\0';) {
		size_t n = strcspn(p, "|");

		json_array_append_new(list, json_stringn(p, n));
		p += n + (p[n] == '|');
	}
	if (fallback != SIZE_MAX)
		set(schema, "default", json_incref(json_array_get(list, fallback)));
	set(schema, "enum", list);
	return schema;
}

static json_t *
array_schema(json_t *items, uint64_t min, uint64_t max)
{
	return json_pack("{s:s, s:o, s:I, s:I}", "type", "array", "items", items, "minItems",
	                 (json_int_t)min, "maxItems", (json_int_t)max);
}

/* Elements with one key that says it all may be written as a plain text. */
static json_t *
element_schema(enum config_object object)
{
	json_t *schema = object_schema(object);

	if (config_object_is_text(object))
		schema = json_pack("{s:[o, o]}", "anyOf", typed("string"), schema);
	return schema;
}

static json_t *
list_schema(const struct config_key *key)
{
	return array_schema(element_schema(key->child), key->min, key->max);
}

static json_t *
map_schema(const struct config_key *key)
{
	return json_pack("{s:s, s:I, s:I, s:{s:s}, s:o}", "type", "object", "minProperties",
	                 (json_int_t)key->min, "maxProperties", (json_int_t)key->max,
	                 "propertyNames", "pattern", "^[A-Za-z0-9_.-]{1,64}$",
	                 "additionalProperties", element_schema(key->child));
}

static json_t *
peers_schema(const struct config_key *key)
{
	return json_pack("{s:[o, o]}", "anyOf", choice_schema("never|always", 0),
	                 array_schema(typed("string"), 0, key->max));
}

static json_t *
section_schema(const struct config_key *key)
{
	json_t *schema = object_schema(key->child);

	if (key->needs != NULL)
		set(schema, "required", json_pack("[s]", key->needs));
	return schema;
}

static json_t *
key_schema(const struct config_key *key)
{
	switch (key->kind) {
	case CONFIG_KIND_SECTION:
		return section_schema(key);
	case CONFIG_KIND_PART:
		return object_schema(key->child);
	case CONFIG_KIND_LIST:
		return list_schema(key);
	case CONFIG_KIND_MAP:
		return map_schema(key);
	case CONFIG_KIND_NUMBER:
		return number_schema(key);
	case CONFIG_KIND_REAL:
		return real_schema(key);
	case CONFIG_KIND_BOOLEAN:
		return json_pack("{s:s, s:b}", "type", "boolean", "default", (int)key->fallback);
	case CONFIG_KIND_TEXT:
		return text_schema(key);
	case CONFIG_KIND_CHOICE:
		return choice_schema(key->choices, key->min > 0 ? SIZE_MAX : (size_t)key->fallback);
	case CONFIG_KIND_PEERS:
		return peers_schema(key);
	case CONFIG_KIND_TEXTS:
	case CONFIG_KIND_BLOCKS:
	case CONFIG_KIND_USERS:
		return array_schema(typed("string"), key->min, key->max);
	default:
		return typed("string");
	}
}

static json_t *
object_schema(enum config_object object)
{
	json_t *schema = typed("object"), *properties = json_object(), *required = json_array();
	const struct config_key *key;

	set(schema, "description", json_string(config_object_help(object)));
	for (key = config_object_keys(object); key->object == object; key++) {
		json_t *value;

		if (key->kind == CONFIG_KIND_LATER)
			continue;
		value = key_schema(key);
		set(value, "description", json_string(key->help));
		set(properties, key->name, value);
		if (config_key_required(key))
			json_array_append_new(required, json_string(key->name));
	}
	set(schema, "properties", properties);
	if (json_array_size(required) > 0)
		set(schema, "required", required);
	else
		json_decref(required);
	set(schema, "additionalProperties", json_false());
	return schema;
}

void
config_print_schema(void *out)
{
	json_t *root = json_pack("{s:s, s:s}", "$schema", "http://json-schema.org/draft-07/schema#",
	                         "title", "tailrace configuration");
	json_t *body = object_schema(CONFIG_OBJECT_ROOT);

	set(json_object_get(body, "properties"), "$schema", typed("string"));
	json_object_update(root, body);
	json_decref(body);
	if (json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) == -1 ||
	    fputs("\n", out) == EOF)
		fatal("schema cannot be written");
	json_decref(root);
}
