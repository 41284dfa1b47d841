/* The struct back to JSON: config_read.c the other way round. */
#include "base/config_show.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include "base/config_table.h"

/* What the table's offsets count from. */
struct source {
	const char *base;
	const struct config *config; /* for names of upstreams */
};

static json_t *show_object(struct source from, enum config_object object);

static const void *
pointer_at(const char *member)
{
	const void *pointer;

	memcpy(&pointer, member, sizeof(pointer));
	return pointer;
}

static size_t
count_at(const char *member)
{
	size_t count;

	memcpy(&count, member, sizeof(count));
	return count;
}

static json_t *
text_or_null(const char *text)
{
	return text != NULL ? json_string(text) : json_null();
}

/* null: another key stands in for it. */
static json_t *
show_number(struct source from, const struct config_key *key)
{
	uint64_t wide;
	uint32_t narrow;
	bool inherits = key->fallback > key->max;

	if (key->size == sizeof(wide)) {
		memcpy(&wide, from.base + key->offset, sizeof(wide));
		return inherits && wide == key->fallback ? json_null()
		                                         : json_integer((json_int_t)wide);
	}
	memcpy(&narrow, from.base + key->offset, sizeof(narrow));
	return inherits && narrow == (uint32_t)key->fallback ? json_null() : json_integer(narrow);
}

static json_t *
show_real(struct source from, const struct config_key *key)
{
	double value;

	memcpy(&value, from.base + key->offset, sizeof(value));
	return json_real(value);
}

static json_t *
show_boolean(struct source from, const struct config_key *key)
{
	bool value;

	memcpy(&value, from.base + key->offset, sizeof(value));
	return json_boolean(value);
}

/* "https://user:password@host:443/path?key" -> "https://host:443/…": what stands before the host
 * and behind it may be secret. */
static json_t *
show_url(const char *url)
{
	const char *scheme_end = strstr(url, "://"), *host, *end, *at;
	char text[300];

	if (scheme_end == NULL)
		return json_string("…");
	host = scheme_end + 3;
	end = host + strcspn(host, "/?#");
	at = memrchr(host, '@', (size_t)(end - host));
	snprintf(text, sizeof(text), "%.*s://%.*s%s", (int)(scheme_end - url), url,
	         (int)(end - (at != NULL ? at + 1 : host)), at != NULL ? at + 1 : host,
	         *end != '\0' ? "/…" : "");
	return json_string(text);
}

static json_t *
show_text(struct source from, const struct config_key *key)
{
	const char *text = pointer_at(from.base + key->offset);

	if (text != NULL &&
	    (strcmp(key->name, "url") == 0 || strcmp(key->name, "dashboard_url") == 0))
		return show_url(text);
	return text_or_null(text);
}

static json_t *
show_texts(struct source from, const struct config_key *key)
{
	const char *const *texts = pointer_at(from.base + key->offset);
	json_t *list;

	if (texts == NULL)
		return json_null();
	list = json_array();
	for (; *texts != NULL; texts++)
		json_array_append_new(list, json_string(*texts));
	return list;
}

static json_t *
show_choice(struct source from, const struct config_key *key)
{
	const char *choice = key->choices;
	uint32_t index;

	memcpy(&index, from.base + key->offset, sizeof(index));
	for (; index > 0 && strchr(choice, '|') != NULL; index--)
		choice = strchr(choice, '|') + 1;
	return json_stringn(choice, strcspn(choice, "|"));
}

static json_t *
show_peers(struct source from, const struct config_key *key)
{
	struct config_peers peers;
	json_t *list;
	char text[NET_CIDR_TEXT_SIZE];

	memcpy(&peers, from.base + key->offset, sizeof(peers));
	if (peers.mode != CONFIG_LIST && key->kind == CONFIG_KIND_PEERS)
		return json_string(peers.mode == CONFIG_ALWAYS ? "always" : "never");
	list = json_array();
	for (size_t i = 0; i < peers.cidr_count; i++) {
		net_cidr_format(&peers.cidrs[i], text, sizeof(text));
		json_array_append_new(list, json_string(text));
	}
	return list;
}

static json_t *
show_upstream(struct source from, const struct config_key *key)
{
	size_t index = count_at(from.base + key->offset);

	return index < from.config->upstream_count
	           ? text_or_null(from.config->upstreams[index].name)
	           : json_null();
}

static json_t *
show_users(struct source from, const struct config_key *key)
{
	const uid_t *users = pointer_at(from.base + key->offset);
	size_t count = count_at(from.base + key->offset2);
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++) {
		const struct passwd *user = getpwuid(users[i]);

		json_array_append_new(list, user != NULL ? json_string(user->pw_name)
		                                         : json_integer(users[i]));
	}
	return list;
}

static json_t *
show_elements(struct source from, const struct config_key *key)
{
	const char *elements = pointer_at(from.base + key->offset);
	size_t count = count_at(from.base + key->offset2);
	bool map = key->kind == CONFIG_KIND_MAP;
	json_t *all = map ? json_object() : json_array();

	for (size_t i = 0; i < count; i++) {
		struct source inside = {elements + i * key->child_size, from.config};
		json_t *element = show_object(inside, key->child);

		if (map) /* every struct of a map begins with its name */
			json_object_set_new(all, pointer_at(inside.base), element);
		else
			json_array_append_new(all, element);
	}
	return all;
}

static json_t *
show_section(struct source from, const struct config_key *key)
{
	return show_object(from, key->child);
}

static json_t *
show_part(struct source from, const struct config_key *key)
{
	struct source inside = {from.base + key->offset, from.config};
	bool on;

	memcpy(&on, inside.base, sizeof(on));
	return on ? show_object(inside, key->child) : json_null();
}

typedef json_t *shower(struct source from, const struct config_key *key);

static shower *const showers[] = {
    [CONFIG_KIND_SECTION] = show_section, [CONFIG_KIND_PART] = show_part,
    [CONFIG_KIND_LIST] = show_elements,   [CONFIG_KIND_MAP] = show_elements,
    [CONFIG_KIND_NUMBER] = show_number,   [CONFIG_KIND_BOOLEAN] = show_boolean,
    [CONFIG_KIND_REAL] = show_real,       [CONFIG_KIND_TEXT] = show_text,
    [CONFIG_KIND_TEXTS] = show_texts,     [CONFIG_KIND_CHOICE] = show_choice,
    [CONFIG_KIND_PEERS] = show_peers,     [CONFIG_KIND_BLOCKS] = show_peers,
    [CONFIG_KIND_ADDRESS] = show_text,    [CONFIG_KIND_UPSTREAM] = show_upstream,
    [CONFIG_KIND_USERS] = show_users,
};

static json_t *
show_object(struct source from, enum config_object object)
{
	const struct config_key *key;
	json_t *shown = json_object();

	for (key = config_object_keys(object); key->object == object; key++)
		if (key->kind != CONFIG_KIND_LATER)
			json_object_set_new(shown, key->name, showers[key->kind](from, key));
	return shown;
}

json_t *
config_show(const struct config *config)
{
	struct source from = {(const char *)config, config};

	return show_object(from, CONFIG_OBJECT_ROOT);
}
