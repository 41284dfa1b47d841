/* Walks the JSON by the table of keys and fills the struct; every fault is told, none ends the
 * walk. */
#include "base/config_read.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include "base/config_table.h"
#include "base/xmem.h"

/* Where values of one object go, and what is known around it. */
struct target {
	char *base;            /* the struct that the table's offsets count from */
	struct config *config; /* for names of upstreams */
	struct config_place *place;
	bool settled; /* the addresses that servers' names had stand beside them */
};

static void read_object(struct target to, enum config_object object, json_t *json);
static void read_key(struct target to, const struct config_key *key, json_t *json);

static void
write_number(char *member, size_t size, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;
	bool truth = value != 0;

	if (size == sizeof(value))
		memcpy(member, &value, sizeof(value));
	else if (size == sizeof(truth))
		memcpy(member, &truth, sizeof(truth));
	else
		memcpy(member, &narrow, sizeof(narrow));
}

static void
write_pointer(char *member, const void *pointer)
{
	memcpy(member, &pointer, sizeof(pointer));
}

static void
read_number(struct target to, const struct config_key *key, json_t *json)
{
	json_int_t value = json_integer_value(json);
	const char *space = key->unit[0] != '\0' ? " " : "";

	if (json == NULL)
		value = (json_int_t)key->fallback;
	else if (!json_is_integer(json) || value < 0 || (uint64_t)value < key->min ||
	         (uint64_t)value > key->max)
		config_place_fault(to.place, json, "an integer from %llu to %llu%s%s",
		                   (unsigned long long)key->min, (unsigned long long)key->max,
		                   space, key->unit);
	write_number(to.base + key->offset, key->size, (uint64_t)value);
}

static void
read_real(struct target to, const struct config_key *key, json_t *json)
{
	const char *space = key->unit[0] != '\0' ? " " : "";
	double value = json == NULL ? key->real_fallback : json_number_value(json);

	if (json != NULL &&
	    (!json_is_number(json) || !(value >= key->real_min && value <= key->real_max)))
		config_place_fault(to.place, json, "a number from %g to %g%s%s", key->real_min,
		                   key->real_max, space, key->unit);
	memcpy(to.base + key->offset, &value, sizeof(value));
}

static void
read_boolean(struct target to, const struct config_key *key, json_t *json)
{
	if (json != NULL && !json_is_boolean(json))
		config_place_fault(to.place, json, "true or false");
	write_number(to.base + key->offset, key->size,
	             json == NULL ? key->fallback : json_is_true(json));
}

/* Copies a text of min to max bytes without control bytes; null with a fault told where it is
 * not. */
static char *
take_text(struct target to, uint64_t min, uint64_t max, json_t *json)
{
	const char *text = json_string_value(json);
	size_t n = json_string_length(json);

	for (size_t i = 0; text != NULL && i < n; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			text = NULL;
	if (text != NULL && n >= min && n <= max)
		return xstrdup(text);
	config_place_fault(to.place, json,
	                   "a text of %llu to %llu bytes without control characters",
	                   (unsigned long long)min, (unsigned long long)max);
	return NULL;
}

static void
read_text(struct target to, const struct config_key *key, json_t *json)
{
	if (json != NULL)
		write_pointer(to.base + key->offset, take_text(to, key->min, key->max, json));
}

/* Whether `json` is a list of min to max elements; tells the fault where not. */
static bool
list_fits(struct target to, const struct config_key *key, json_t *json, const char *what)
{
	size_t n = json_array_size(json);

	if (json_is_array(json) && n >= key->min && n <= key->max)
		return true;
	config_place_fault(to.place, json, "a list of %llu to %llu %s",
	                   (unsigned long long)key->min, (unsigned long long)key->max, what);
	return false;
}

static void
read_texts(struct target to, const struct config_key *key, json_t *json)
{
	size_t i, kept = 0;
	json_t *item;
	char **texts;

	if (json == NULL || !list_fits(to, key, json, "texts"))
		return;
	texts = xcalloc(json_array_size(json) + 1, sizeof(*texts));
	json_array_foreach(json, i, item)
	{
		size_t before = config_place_push_index(to.place, i);

		texts[kept] = take_text(to, 1, 255, item);
		kept += texts[kept] != NULL;
		config_place_pop(to.place, before);
	}
	write_pointer(to.base + key->offset, texts);
}

static void
read_choice(struct target to, const struct config_key *key, json_t *json)
{
	const char *text = json_string_value(json);
	int index = json == NULL ? (int)key->fallback : -1;

	if (text != NULL)
		index = config_choice_index(key->choices, text);
	if (index == -1)
		config_place_fault(to.place, json, "one of %s", key->choices);
	else
		write_number(to.base + key->offset, sizeof(uint32_t), (uint64_t)index);
}

static void
read_blocks(struct target to, const struct config_key *key, json_t *json,
            struct config_peers *peers)
{
	size_t i;
	json_t *item;

	if (!list_fits(to, key, json, "addresses or CIDR blocks"))
		return;
	peers->mode = CONFIG_LIST;
	peers->cidrs = xcalloc(json_array_size(json), sizeof(*peers->cidrs));
	json_array_foreach(json, i, item)
	{
		size_t before = config_place_push_index(to.place, i);
		const char *text = json_string_value(item);

		if (text == NULL || net_cidr_parse(text, &peers->cidrs[peers->cidr_count]) == -1)
			config_place_fault(to.place, item,
			                   "an address or a block such as 10.0.0.0/8");
		else
			peers->cidr_count++;
		config_place_pop(to.place, before);
	}
}

static void
read_peers(struct target to, const struct config_key *key, json_t *json)
{
	struct config_peers peers = {.mode = CONFIG_NEVER};
	const char *text = json_string_value(json);

	if (key->kind == CONFIG_KIND_PEERS && text != NULL && strcmp(text, "always") == 0)
		peers.mode = CONFIG_ALWAYS;
	else if (json_is_array(json) || (json != NULL && key->kind == CONFIG_KIND_BLOCKS))
		read_blocks(to, key, json, &peers);
	else if (json != NULL && (text == NULL || strcmp(text, "never") != 0))
		config_place_fault(to.place, json, "\"never\", \"always\" or a list of blocks");
	memcpy(to.base + key->offset, &peers, sizeof(peers));
}

/* A server's name may get its address later: the resolver asks for it until it has one. */
static int
find_address(bool server, const char *text, const char *numeric, struct net_address *ret,
             const char **reterr)
{
	if (numeric != NULL && *numeric != '\0')
		return net_address_parse(numeric, ret, reterr);
	if (numeric == NULL && net_address_resolve(text, ret, reterr) == 0)
		return 0;
	return server && net_address_is_name(text) ? net_address_later(text, ret, reterr) : -1;
}

/* `numeric` is the address that a supervisor found for a name, "" where it found none; null: it is
 * looked up. */
static void
take_address(struct target to, const struct config_key *key, json_t *json, const char *numeric)
{
	struct net_address address = {0};
	const char *why = "";
	char *text = take_text(to, 1, 300, json);

	if (text == NULL)
		return;
	write_pointer(to.base + key->offset, text);
	if (find_address(key->object == CONFIG_OBJECT_SERVER, text, numeric, &address, &why) == -1)
		config_place_fault(to.place, json, "host:port, [v6]:port or unix:/path (%s)", why);
	else if (address.sa.sa_family != AF_UNIX && address.in.sin_port == 0)
		config_place_fault(to.place, json, "a port from 1 to 65535");
	memcpy(to.base + key->offset2, &address, sizeof(address));
}

static void
read_address(struct target to, const struct config_key *key, json_t *json)
{
	take_address(to, key, json, NULL);
}

/* Index of an upstream. Without a name there must be only one. */
static void
read_upstream(struct target to, const struct config_key *key, json_t *json)
{
	const char *text = json_string_value(json);
	struct config *config = to.config;
	size_t index = 0;

	if (config->upstream_count == 0)
		return; /* "upstreams" itself is at fault, and was told so */
	if (json != NULL) {
		while (index < config->upstream_count &&
		       (text == NULL || strcmp(config->upstreams[index].name, text) != 0))
			index++;
		if (index == config->upstream_count)
			config_place_fault(to.place, json, "the name of one of \"upstreams\"");
	} else if (config->upstream_count > 1) {
		config_place_fault(to.place, NULL, "the name of an upstream, as there are several");
	}
	memcpy(to.base + key->offset, &index, sizeof(index));
}

static void
read_users(struct target to, const struct config_key *key, json_t *json)
{
	size_t i, count = 0;
	json_t *item;
	uid_t *users;

	if (json == NULL || !list_fits(to, key, json, "names of users"))
		return;
	users = xcalloc(json_array_size(json), sizeof(*users));
	json_array_foreach(json, i, item)
	{
		size_t before = config_place_push_index(to.place, i);
		const char *name = json_string_value(item);
		struct passwd *user = name != NULL ? getpwnam(name) : NULL;

		if (user == NULL)
			config_place_fault(to.place, item, "the name of a user of this system");
		else
			users[count++] = user->pw_uid;
		config_place_pop(to.place, before);
	}
	write_pointer(to.base + key->offset, users);
	memcpy(to.base + key->offset2, &count, sizeof(count));
}

/* A server may be a plain text: its address. */
static void
read_server(struct target to, json_t *json)
{
	json_t *address = json_is_object(json) ? json_object_get(json, "address") : json;
	json_t *numeric = to.settled ? json_object_get(json, CONFIG_SETTLED_KEY) : NULL;
	const struct config_key *key = config_object_keys(CONFIG_OBJECT_SERVER);

	if (json_is_string(address) && (json_is_string(json) || numeric != NULL)) {
		take_address(to, key, address, json_string_value(numeric));
		for (key++; key->object == CONFIG_OBJECT_SERVER; key++)
			read_key(to, key, json_object_get(json, key->name));
	} else {
		read_object(to, CONFIG_OBJECT_SERVER, json);
	}
}

/* One element of a list or map into its own struct. Some may be a plain text: their first key. */
static void
read_element(struct target to, const struct config_key *key, char *element, json_t *json)
{
	to.base = element;
	if (key->child == CONFIG_OBJECT_SERVER)
		read_server(to, json);
	else if (json_is_string(json) && config_object_is_text(key->child))
		read_text(to, config_object_keys(key->child), json);
	else
		read_object(to, key->child, json);
}

static void
read_list(struct target to, const struct config_key *key, json_t *json)
{
	size_t i, count = json_array_size(json);
	char *elements;
	json_t *item;

	if (json == NULL || !list_fits(to, key, json, "objects") || count == 0)
		return; /* an empty list is like none */
	elements = xcalloc(count, key->child_size);
	write_pointer(to.base + key->offset, elements);
	memcpy(to.base + key->offset2, &count, sizeof(count));
	json_array_foreach(json, i, item)
	{
		size_t before = config_place_push_index(to.place, i);

		read_element(to, key, elements + i * key->child_size, item);
		config_place_pop(to.place, before);
	}
}

/* Names are metric labels and parts of environment variables: letters, digits, "-", "_", ".". */
static bool
name_fits(const char *name)
{
	size_t n =
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

	return n > 0 && n <= 64 && name[n] == '\0';
}

/* A map's elements begin with their name: every struct of one has `char *name` first. */
static void
read_map(struct target to, const struct config_key *key, json_t *json)
{
	size_t count = json_object_size(json), i = 0;
	char *elements;
	const char *name;
	json_t *item;

	if (json == NULL && key->min == 0)
		return;
	if (!json_is_object(json) || count < key->min || count > key->max) {
		config_place_fault(to.place, json, "an object with %llu to %llu names",
		                   (unsigned long long)key->min, (unsigned long long)key->max);
		return;
	}
	if (count == 0)
		return;
	elements = xcalloc(count, key->child_size);
	write_pointer(to.base + key->offset, elements);
	memcpy(to.base + key->offset2, &count, sizeof(count));
	json_object_foreach(json, name, item)
	{
		size_t before = config_place_push(to.place, name);
		char *element = elements + i++ * key->child_size;

		if (!name_fits(name))
			config_place_error(to.place, "the name must be 1 to 64 letters, digits, "
			                             "\"-\", \"_\" or \".\"");
		write_pointer(element, xstrdup(name));
		read_element(to, key, element, item);
		config_place_pop(to.place, before);
	}
}

static void
read_section(struct target to, const struct config_key *key, json_t *json)
{
	read_object(to, key->child, json);
	if (json_is_object(json) && key->needs != NULL &&
	    json_object_get(json, key->needs) == NULL) {
		size_t before = config_place_push(to.place, key->needs);

		config_place_fault(
		    to.place, NULL, "%s (required)",
		    config_key_find(key->child, key->needs, strlen(key->needs))->help);
		config_place_pop(to.place, before);
	}
}

static void
read_part(struct target to, const struct config_key *key, json_t *json)
{
	struct target inside = {
	    .base = to.base + key->offset, .config = to.config, .place = to.place};
	bool on = true;

	if (json == NULL)
		return;
	memcpy(inside.base, &on, sizeof(on));
	read_object(inside, key->child, json);
}

static void
refuse_later(struct target to, const struct config_key *key, json_t *json)
{
	(void)key;
	if (json != NULL)
		config_place_error(to.place, "not in this version of tailrace");
}

typedef void reader(struct target to, const struct config_key *key, json_t *json);

static reader *const readers[] = {
    [CONFIG_KIND_SECTION] = read_section, [CONFIG_KIND_PART] = read_part,
    [CONFIG_KIND_LIST] = read_list,       [CONFIG_KIND_MAP] = read_map,
    [CONFIG_KIND_NUMBER] = read_number,   [CONFIG_KIND_BOOLEAN] = read_boolean,
    [CONFIG_KIND_REAL] = read_real,       [CONFIG_KIND_TEXT] = read_text,
    [CONFIG_KIND_TEXTS] = read_texts,     [CONFIG_KIND_CHOICE] = read_choice,
    [CONFIG_KIND_PEERS] = read_peers,     [CONFIG_KIND_BLOCKS] = read_peers,
    [CONFIG_KIND_ADDRESS] = read_address, [CONFIG_KIND_UPSTREAM] = read_upstream,
    [CONFIG_KIND_USERS] = read_users,     [CONFIG_KIND_LATER] = refuse_later,
};

static void
read_key(struct target to, const struct config_key *key, json_t *json)
{
	size_t before = config_place_push(to.place, key->name);

	if (json == NULL && config_key_required(key))
		config_place_fault(to.place, NULL, "%s (required)", key->help);
	else
		readers[key->kind](to, key, json);
	config_place_pop(to.place, before);
}

/* "a, b, c": the keys an object may have. */
static void
list_keys(enum config_object object, char *buf, size_t size)
{
	const struct config_key *key;
	size_t n = 0;

	buf[0] = '\0';
	for (key = config_object_keys(object); key->object == object; key++)
		if (key->kind != CONFIG_KIND_LATER && n < size)
			n += (size_t)snprintf(buf + n, size - n, "%s%s", n > 0 ? ", " : "",
			                      key->name);
}

/* Whether they differ in one character, left out, put in, exchanged or swapped with the next. */
static bool
is_slip(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), head = 0, tail = 0, least = la < lb ? la : lb;

	while (head < least && a[head] == b[head])
		head++;
	while (tail < least - head && a[la - 1 - tail] == b[lb - 1 - tail])
		tail++;
	la -= head + tail;
	lb -= head + tail;
	return (la <= 1 && lb <= 1) ||
	       (la == 2 && lb == 2 && a[head] == b[head + 1] && a[head + 1] == b[head]);
}

/* The key that was meant, or null. */
static const char *
key_meant(enum config_object object, const char *name)
{
	const struct config_key *key;

	for (key = config_object_keys(object); key->object == object; key++)
		if (key->kind != CONFIG_KIND_LATER && is_slip(name, key->name))
			return key->name;
	return NULL;
}

static void
refuse_unknown(struct target to, enum config_object object, json_t *json)
{
	char allowed[512];
	const char *name, *meant;
	json_t *value;

	json_object_foreach(json, name, value)
	{
		size_t before;

		if (config_key_find(object, name, strlen(name)) != NULL ||
		    (object == CONFIG_OBJECT_ROOT && strcmp(name, "$schema") == 0))
			continue;
		list_keys(object, allowed, sizeof(allowed));
		before = config_place_push(to.place, name);
		meant = key_meant(object, name);
		if (meant != NULL)
			config_place_error(to.place, "unknown key; is \"%s\" meant? allowed: %s",
			                   meant, allowed);
		else
			config_place_error(to.place, "unknown key, allowed: %s", allowed);
		config_place_pop(to.place, before);
	}
}

/* `json` null: all defaults. */
static void
read_object(struct target to, enum config_object object, json_t *json)
{
	const struct config_key *key;

	if (json != NULL && !json_is_object(json)) {
		config_place_fault(to.place, json, "an object");
		return;
	}
	if (json != NULL)
		refuse_unknown(to, object, json);
	for (key = config_object_keys(object); key->object == object; key++)
		read_key(to, key, json_object_get(json, key->name));
}

void
config_read(json_t *root, struct config *config, struct config_place *place, bool settled)
{
	struct target to = {
	    .base = (char *)config, .config = config, .place = place, .settled = settled};

	read_object(to, CONFIG_OBJECT_ROOT, root);
}
