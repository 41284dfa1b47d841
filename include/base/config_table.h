/* The table of configuration keys, made of config.def. Only the config modules read it. Any
 * thread. */
#ifndef TAILRACE_BASE_CONFIG_TABLE_H
#define TAILRACE_BASE_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Largest number without a limit of its own: what a JSON integer of jansson can hold. */
#define CONFIG_NO_MAX INT64_MAX
/* Fallback of a number that another key stands in for, where it is not written: all bits set. */
#define CONFIG_INHERITED UINT64_MAX

enum config_object {
	CONFIG_OBJECT_ROOT,
	CONFIG_OBJECT_LISTENER,
	CONFIG_OBJECT_TLS,
	CONFIG_OBJECT_CERTIFICATE,
	CONFIG_OBJECT_UPSTREAM,
	CONFIG_OBJECT_UPSTREAM_TLS,
	CONFIG_OBJECT_SERVER,
	CONFIG_OBJECT_HEALTH,
	CONFIG_OBJECT_ROUTE,
	CONFIG_OBJECT_LIMITS,
	CONFIG_OBJECT_ERROR_PAGE,
	CONFIG_OBJECT_TRACE,
	CONFIG_OBJECT_OVERLAYS,
	CONFIG_OBJECT_CONTROL,
	CONFIG_OBJECT_CONTROL_LISTENER,
	CONFIG_OBJECT_PROFILE,
	CONFIG_OBJECT_STORE,
	CONFIG_OBJECT_PROCESS,
	CONFIG_OBJECT_WORKER,
	CONFIG_OBJECT_DEEP,
	CONFIG_OBJECT_LOG,
	CONFIG_OBJECT_LOG_ERROR,
	CONFIG_OBJECT_LOG_ACCESS,
	CONFIG_OBJECT_ALERTS,
	CONFIG_OBJECT_RULE,
	CONFIG_OBJECT_RECEIVER,
	CONFIG_OBJECT_COUNT
};

enum config_kind {
	CONFIG_KIND_OBJECT, /* heads the keys of an object; no key itself */
	CONFIG_KIND_SECTION,
	CONFIG_KIND_PART, /* struct member that begins with `bool on` */
	CONFIG_KIND_LIST,
	CONFIG_KIND_MAP,
	CONFIG_KIND_NUMBER,
	CONFIG_KIND_REAL,
	CONFIG_KIND_BOOLEAN,
	CONFIG_KIND_TEXT,
	CONFIG_KIND_TEXTS,
	CONFIG_KIND_CHOICE,
	CONFIG_KIND_PEERS,
	CONFIG_KIND_BLOCKS,
	CONFIG_KIND_ADDRESS,
	CONFIG_KIND_UPSTREAM,
	CONFIG_KIND_USERS,
	CONFIG_KIND_LATER
};

struct config_key {
	enum config_object object; /* where it stands */
	enum config_kind kind;
	bool required; /* TEXT; lists, maps and addresses say so otherwise */
	const char *name;
	size_t offset;  /* of the member in the object's struct, or in struct config for sections */
	size_t size;    /* of the member: 4 or 8 for numbers */
	size_t offset2; /* LIST, MAP, USERS: of the count; ADDRESS: of the address */
	uint64_t fallback, min, max; /* NUMBER: a fallback beyond max is inherited from elsewhere */
	double real_fallback, real_min, real_max; /* REAL */
	const char *choices;                      /* CHOICE: "a|b|c"; min 1 = required */
	const char *needs; /* SECTION: a key without which it must not be written; null = none */
	enum config_object child;
	size_t child_size; /* LIST, MAP: of one element */
	const char *unit;  /* "" where it has none */
	const char *help;
};

/* All keys, ended by one without a name. Keys of one object follow its CONFIG_KIND_OBJECT entry. */
extern const struct config_key config_keys[];

/* First key of an object; the last is before the next entry of another object. */
const struct config_key *config_object_keys(enum config_object object);
const char *config_object_help(enum config_object object);

/* Whether an element may be a plain text, which is then the value of the object's first key. */
bool config_object_is_text(enum config_object object);

/* The key of that name, or null. */
const struct config_key *config_key_find(enum config_object object, const char *name,
                                         size_t length);

/* Whether the file must hold it. */
bool config_key_required(const struct config_key *key);

/* Index of `text` among the choices "a|b|c", or -1. */
int config_choice_index(const char *choices, const char *text);

#endif
