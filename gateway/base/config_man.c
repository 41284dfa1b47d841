/* The manual page of the configuration (mdoc), made from the table of keys. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/config.h"
#include "base/config_table.h"

#define PATH_SIZE 256 /* of a heading such as "upstreams.NAME.servers[]" */

static const char head[] =
    ".\\\" Made by `tailrace check --man` from include/base/config.def: do not edit.\n"
    ".Dd November 23, 2026\n"
    ".Dt TAILRACE.JSON 5\n"
    ".Os\n"
    ".Sh NAME\n"
    ".Nm tailrace.json\n"
    ".Nd configuration of the timing gateway tailrace\n"
    ".Sh DESCRIPTION\n"
    ".Xr tailrace 8\n"
    "reads one file of JSON, in which\n"
    ".Li //\n"
    "begins a comment that goes to the end of the line.\n"
    "Keys that are unknown or given twice are errors.\n"
    ".Bd -literal -offset indent\n"
    "tailrace check -c /etc/tailrace/tailrace.json\n"
    ".Ed\n"
    ".Pp\n"
    "names every fault of a file with its place, what was found and what is allowed.\n"
    "All but what is called\n"
    ".Em required\n"
    "below may be left out.\n"
    "The key\n"
    ".Cm $schema ,\n"
    "a text for editors, is allowed at the top level and means nothing to the gateway.\n"
    "What is said to be not in this version is refused.\n"
    ".Pp\n"
    "The objects follow, each with its keys.\n"
    ".Li []\n"
    "stands for each member of a list,\n"
    ".Li NAME\n"
    "for each name of a map.\n";

static const char tail[] =
    ".Sh ENVIRONMENT\n"
    "Keys with a single value can be set by variables, which win over the file:\n"
    ".Ev TAILRACE_CONF__\n"
    "and the path of the key, in upper or lower case, with two underscores between its parts.\n"
    "Members of lists have their number, from 0.\n"
    "A variable with this beginning that names no such key is an error.\n"
    ".Bd -literal -offset indent\n"
    "TAILRACE_CONF__LIMITS__BODY_BYTES=1048576\n"
    "TAILRACE_CONF__UPSTREAMS__APP__SERVERS__0__ADDRESS=app:8000\n"
    ".Ed\n"
    ".Sh FILES\n"
    ".Bl -tag -width Ds\n"
    ".It Pa /etc/tailrace/tailrace.json\n"
    "The file that the systemd unit names.\n"
    "There is no default: it is always given by\n"
    ".Fl c .\n"
    ".El\n"
    ".Sh EXAMPLES\n"
    "All that is needed:\n"
    ".Bd -literal -offset indent\n"
    "{\n"
    "  \"listeners\": [{\"address\": \"127.0.0.1:8080\"}],\n"
    "  \"upstreams\": {\"app\": {\"servers\": [\"127.0.0.1:8000\"]}}\n"
    "}\n"
    ".Ed\n"
    ".Sh SEE ALSO\n"
    ".Xr tailrace 8\n";

/* Text as roff shows it: no escapes of its own, and a hyphen that can be copied. */
static void
put_text(FILE *out, const char *text)
{
	for (const char *p = text; *p != '\0'; p++) {
		if (*p == '\\')
			fputs("\\e", out);
		else if (*p == '-')
			fputs("\\-", out);
		else if (p == text && (*p == '.' || *p == '\''))
			fprintf(out, "\\&%c", *p);
		else
			fputc(*p, out);
	}
}

static void
put_quantity(FILE *out, uint64_t value, const char *unit)
{
	fprintf(out, "%" PRIu64 "%s%s", value, unit[0] != '\0' ? " " : "", unit);
}

static void
put_number(FILE *out, const struct config_key *key)
{
	fprintf(out, "Integer");
	if (key->max == CONFIG_NO_MAX)
		fprintf(out, " from %" PRIu64, key->min);
	else
		fprintf(out, " from %" PRIu64 " to %" PRIu64, key->min, key->max);
	if (key->fallback > key->max)
		return;
	fputs("; default: ", out);
	if (key->fallback > key->max)
		fputs("that of the upstream", out);
	else
		put_quantity(out, key->fallback, key->unit);
}

static void
put_real(FILE *out, const struct config_key *key)
{
	fprintf(out, "Number from %.10g to %.10g; default: %.10g%s%s", key->real_min, key->real_max,
	        key->real_fallback, key->unit[0] != '\0' ? " " : "", key->unit);
}

/* "a|b|c" -> "a", "b" or "c"; default: "b", unless there is none (UINT64_MAX) */
static void
put_choices(FILE *out, const char *choices, uint64_t fallback)
{
	const char *chosen = choices;
	uint64_t index = 0;

	for (const char *p = choices; *p != '\0'; index++) {
		size_t n = strcspn(p, "|");
		const char *joint = index == 0 ? "" : p[n] == '|' ? ", " : " or ";

		fprintf(out, "%s\"%.*s\"", joint, (int)n, p);
		if (index == fallback)
			chosen = p;
		p += n + (p[n] == '|');
	}
	if (fallback != UINT64_MAX)
		fprintf(out, "; default: \"%.*s\"", (int)strcspn(chosen, "|"), chosen);
}

static void
put_count(FILE *out, const struct config_key *key, const char *what)
{
	if (key->min > 0)
		fprintf(out, "%" PRIu64 " to %" PRIu64 " %s", key->min, key->max, what);
	else
		fprintf(out, "up to %" PRIu64 " %s", key->max, what);
}

static void
put_list(FILE *out, const struct config_key *key, const char *what, const char *otherwise)
{
	fputs("List of ", out);
	put_count(out, key, what);
	fputs(otherwise, out);
}

/* What may stand there, and what holds where nothing does. */
static void
put_type(FILE *out, const struct config_key *key)
{
	switch (key->kind) {
	case CONFIG_KIND_SECTION:
		fputs("Object", out);
		break;
	case CONFIG_KIND_PART:
		fputs("Object; default: none", out);
		break;
	case CONFIG_KIND_LIST:
		put_list(out, key,
		         config_object_is_text(key->child) ? "objects or texts" : "objects",
		         key->min > 0 ? "" : "; default: none");
		break;
	case CONFIG_KIND_MAP:
		fputs("Map of ", out);
		put_count(out, key,
		          config_object_is_text(key->child)
		              ? "objects or texts, each by a name"
		              : "objects, each by a name of up to 64 letters, digits and _ . \\-");
		break;
	case CONFIG_KIND_NUMBER:
		put_number(out, key);
		break;
	case CONFIG_KIND_REAL:
		put_real(out, key);
		break;
	case CONFIG_KIND_BOOLEAN:
		fprintf(out, "true or false; default: %s", key->fallback != 0 ? "true" : "false");
		break;
	case CONFIG_KIND_TEXT:
		fprintf(out, "Text of %" PRIu64 " to %" PRIu64 " bytes", key->min, key->max);
		break;
	case CONFIG_KIND_TEXTS:
		put_list(out, key, "texts", "");
		break;
	case CONFIG_KIND_CHOICE:
		put_choices(out, key->choices, key->min > 0 ? UINT64_MAX : key->fallback);
		break;
	case CONFIG_KIND_PEERS:
		fputs("\"never\", \"always\" or a list of ", out);
		put_count(out, key, "blocks of addresses such as 10.0.0.0/8; default: \"never\"");
		break;
	case CONFIG_KIND_BLOCKS:
		put_list(out, key, "blocks of addresses such as 10.0.0.0/8", "; default: none");
		break;
	case CONFIG_KIND_USERS:
		put_list(out, key, "names of users", "");
		break;
	default:
		fputs("Text", out);
	}
}

/* `needs` is the key that the object must have where it is written; null: none. */
static void
put_key(FILE *out, const struct config_key *key, const char *needs)
{
	bool required = config_key_required(key) || (needs && strcmp(key->name, needs) == 0);

	fprintf(out, ".It Cm %s\n", key->name);
	put_text(out, key->help);
	fputs(".\n.br\n", out);
	put_type(out, key);
	fputs(required ? "; required.\n" : ".\n", out);
}

/* The agreed keys that this version refuses, in one sentence. */
static void
put_later(FILE *out, enum config_object object)
{
	const struct config_key *key = config_object_keys(object);
	const char *before = ".Pp\nNot in this version:\n";

	for (; key->object == object; key++) {
		if (key->kind != CONFIG_KIND_LATER)
			continue;
		fprintf(out, "%s.Cm %s", before, key->name);
		before = " ,\n";
	}
	if (before[0] == ' ')
		fputs(" .\n", out);
}

/* The objects of an object have their own headings, after it. */
static void
put_object(FILE *out, enum config_object object, const char *path, const char *needs)
{
	const struct config_key *key;

	fprintf(out, ".Ss %s\n", path[0] != '\0' ? path : "Top level");
	put_text(out, config_object_help(object));
	fputs(".\n.Bl -tag -width Ds\n", out);
	for (key = config_object_keys(object); key->object == object; key++)
		if (key->kind != CONFIG_KIND_LATER)
			put_key(out, key, needs);
	fputs(".El\n", out);
	put_later(out, object);
	for (key = config_object_keys(object); key->object == object; key++) {
		char below[PATH_SIZE];

		if (key->kind != CONFIG_KIND_SECTION && key->kind != CONFIG_KIND_PART &&
		    key->kind != CONFIG_KIND_LIST && key->kind != CONFIG_KIND_MAP)
			continue;
		snprintf(below, sizeof(below), "%s%s%s%s", path, path[0] != '\0' ? "." : "",
		         key->name,
		         key->kind == CONFIG_KIND_LIST  ? "[]"
		         : key->kind == CONFIG_KIND_MAP ? ".NAME"
		                                        : "");
		put_object(out, key->child, below, key->needs);
	}
}

void
config_print_man(void *out)
{
	fputs(head, out);
	put_object(out, CONFIG_OBJECT_ROOT, "", NULL);
	fputs(tail, out);
	if (fflush(out) == EOF || ferror(out))
		fatal("manual page cannot be written");
}
