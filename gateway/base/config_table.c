/* Turns config.def into the table of keys, and finds keys in it. */
#include "base/config_table.h"

#include <string.h>
#include "base/config.h"

#define MEMBER(type, member) \
	.offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)
#define ELEMENTS(type, member)                            \
	.offset = offsetof(struct type, member##s),       \
	.offset2 = offsetof(struct type, member##_count), \
	.child_size = sizeof(*((struct type *)0)->member##s)

#define OBJECT(ID, text) \
	{.object = CONFIG_OBJECT_##ID, .kind = CONFIG_KIND_OBJECT, .name = "", .help = text},
#define KEY(OBJ, KIND, key, text, ...)  \
	{.object = CONFIG_OBJECT_##OBJ, \
	 .kind = CONFIG_KIND_##KIND,    \
	 .name = key,                   \
	 .unit = "",                    \
	 .help = text,                  \
	 __VA_ARGS__},
#define SECTION(OBJ, key, CHILD, text) KEY(OBJ, SECTION, key, text, .child = CONFIG_OBJECT_##CHILD)
#define PART(OBJ, type, member, key, CHILD, text) \
	KEY(OBJ, PART, key, text, MEMBER(type, member), .child = CONFIG_OBJECT_##CHILD)
#define SECTION_NEEDING(OBJ, key, CHILD, needed, text) \
	KEY(OBJ, SECTION, key, text, .child = CONFIG_OBJECT_##CHILD, .needs = needed)
#define LIST(OBJ, type, member, key, CHILD, least, most, text)                            \
	KEY(OBJ, LIST, key, text, ELEMENTS(type, member), .child = CONFIG_OBJECT_##CHILD, \
	    .min = least, .max = most)
#define MAP(OBJ, type, member, key, CHILD, least, most, text)                            \
	KEY(OBJ, MAP, key, text, ELEMENTS(type, member), .child = CONFIG_OBJECT_##CHILD, \
	    .min = least, .max = most)
#define NUMBER(OBJ, type, member, key, value, least, most, of, text) \
	{.object = CONFIG_OBJECT_##OBJ,                              \
	 .kind = CONFIG_KIND_NUMBER,                                 \
	 .name = key,                                                \
	 .unit = of,                                                 \
	 .help = text,                                               \
	 MEMBER(type, member),                                       \
	 .fallback = value,                                          \
	 .min = least,                                               \
	 .max = most},
#define REAL(OBJ, type, member, key, value, least, most, of, text) \
	{.object = CONFIG_OBJECT_##OBJ,                            \
	 .kind = CONFIG_KIND_REAL,                                 \
	 .name = key,                                              \
	 .unit = of,                                               \
	 .help = text,                                             \
	 MEMBER(type, member),                                     \
	 .real_fallback = value,                                   \
	 .real_min = least,                                        \
	 .real_max = most},
#define BOOLEAN(OBJ, type, member, key, value, text) \
	KEY(OBJ, BOOLEAN, key, text, MEMBER(type, member), .fallback = value)
#define TEXT(OBJ, type, member, key, least, most, text) \
	KEY(OBJ, TEXT, key, text, MEMBER(type, member), .min = least, .max = most)
#define PATH(OBJ, type, member, key, text) \
	KEY(OBJ, TEXT, key, text, MEMBER(type, member), .min = 1, .max = 4095, .required = true)
#define TEXTS(OBJ, type, member, key, most, text) \
	KEY(OBJ, TEXTS, key, text, MEMBER(type, member), .min = 1, .max = most)
#define CHOICE(OBJ, type, member, key, value, list, text) \
	KEY(OBJ, CHOICE, key, text, MEMBER(type, member), .fallback = value, .choices = list)
#define CHOICE_REQUIRED(OBJ, type, member, key, list, text) \
	KEY(OBJ, CHOICE, key, text, MEMBER(type, member), .choices = list, .min = 1)
#define PEERS(OBJ, type, member, key, text) \
	KEY(OBJ, PEERS, key, text, MEMBER(type, member), .max = CONFIG_CIDRS_MAX)
#define BLOCKS(OBJ, type, member, key, text) \
	KEY(OBJ, BLOCKS, key, text, MEMBER(type, member), .max = CONFIG_CIDRS_MAX)
#define ADDRESS(OBJ, type, key, about) \
	KEY(OBJ, ADDRESS, key, about, MEMBER(type, text), .offset2 = offsetof(struct type, address))
#define UPSTREAM(OBJ, type, member, key, text) KEY(OBJ, UPSTREAM, key, text, MEMBER(type, member))
#define USERS(OBJ, type, member, key, most, text) \
	KEY(OBJ, USERS, key, text, ELEMENTS(type, member), .max = most)
#define LATER(OBJ, key) KEY(OBJ, LATER, key, "Not in this version", .min = 0)

const struct config_key config_keys[] = {
#include "base/config.def"
    {.object = CONFIG_OBJECT_COUNT},
};

const struct config_key *
config_object_keys(enum config_object object)
{
	const struct config_key *key = config_keys;

	while (key->object != object)
		key++;
	return key + 1;
}

const char *
config_object_help(enum config_object object)
{
	return config_object_keys(object)[-1].help;
}

bool
config_object_is_text(enum config_object object)
{
	return object == CONFIG_OBJECT_SERVER || object == CONFIG_OBJECT_ERROR_PAGE;
}

const struct config_key *
config_key_find(enum config_object object, const char *name, size_t length)
{
	const struct config_key *key;

	for (key = config_object_keys(object); key->object == object; key++)
		if (strncmp(key->name, name, length) == 0 && key->name[length] == '\0')
			return key;
	return NULL;
}

bool
config_key_required(const struct config_key *key)
{
	if (key->kind == CONFIG_KIND_LIST || key->kind == CONFIG_KIND_MAP ||
	    key->kind == CONFIG_KIND_CHOICE)
		return key->min > 0;
	return key->required || key->kind == CONFIG_KIND_ADDRESS;
}

int
config_choice_index(const char *choices, const char *text)
{
	size_t n = strlen(text);
	int index = 0;

	for (const char *p = choices;; p++, index++) {
		size_t length = strcspn(p, "|");

		if (length == n && memcmp(p, text, n) == 0)
			return index;
		p += length;
		if (*p == '\0')
			return -1;
	}
}
