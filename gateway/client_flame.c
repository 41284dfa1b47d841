/* A route's flame tree for people. */
#include "client_commands.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "commands.h"
#include "table.h"

#define WINDOW_DEFAULT_S 3600
#define SHARE_LEAST 0.005 /* of the whole: smaller branches are left out */
#define ROWS_SHOWN 5      /* of what made the difference */
#define INDENT_MAX 24
#define ROW_COLUMNS 58  /* of numbers, behind a row's label */
#define NARROW 80       /* columns: below, the head has two lines */
#define ROWS_WIDE 90    /* columns: below, before and now are left out */
#define ROWS_CERTAIN 60 /* below, intervals and verdicts are left out */
#define ROW_COLUMNS_LEAST 38

/* --- times --------------------------------------------------------------- */

/* A time that is told as RFC 3339 in UTC, as unix seconds or as an age. 0 where it is none. */
static uint64_t
time_of(const char *text, uint64_t now_s)
{
	struct tm tm = {0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M", &tm);
	uint64_t age_s;

	if (rest != NULL) {
		if (*rest == ':')
			rest = strptime(rest, ":%S", &tm);
		if (rest != NULL && (*rest == '\0' || strcmp(rest, "Z") == 0))
			return (uint64_t)timegm(&tm);
		return 0;
	}
	age_s = client_seconds(text);
	if (strlen(text) >= 9 && strspn(text, "0123456789") == strlen(text))
		return age_s;
	return age_s > 0 && age_s < now_s ? now_s - age_s : 0;
}

struct spans {
	uint64_t from_s, to_s, baseline_from_s, baseline_to_s; /* baseline 0 = none */
};

/* Returns false after saying what is wrong. */
static bool
spans_of(const struct client_options *options, struct spans *ret)
{
	uint64_t now_s = clock_wall_ns() / NS_PER_S;
	uint64_t window_s =
	    options->window != NULL ? client_seconds(options->window) : WINDOW_DEFAULT_S;

	if (window_s == 0) {
		fprintf(stderr, "tailrace: --window is like 90s, 15m, 6h or 2d\n");
		return false;
	}
	*ret = (struct spans){.from_s = now_s - window_s, .to_s = now_s + 1};
	if (options->baseline == NULL)
		return true;
	ret->from_s = time_of(options->baseline, now_s);
	if (ret->from_s == 0 || ret->from_s >= now_s) {
		fprintf(stderr, "tailrace: --baseline is a time of the past: "
		                "2026-05-01T14:02:00Z, unix seconds, or an age such as 30m\n");
		return false;
	}
	ret->baseline_to_s = ret->from_s;
	ret->baseline_from_s = ret->from_s - window_s;
	return true;
}

/* --- the tree ------------------------------------------------------------ */

struct drawing {
	struct table table;
	bool compared;
	double total_ns; /* the larger mean of both spans */
};

static bool
is_leaf(const json_t *node)
{
	return json_is_string(json_object_get(node, "kind"));
}

/* --- the app's own frames -------------------------------------------------- */

/* The child of `into` that is the same frame, or the same leaf below the same library frame. */
static json_t *
same_child(json_t *into, const json_t *node, const char *library)
{
	static const char *const sums[] = {"ns", "baseline_ns"};
	json_t *children = json_object_get(into, "children"), *child = NULL;
	size_t i;

	if (!is_leaf(node))
		library = "";
	json_array_foreach(children, i, child)
	{
		if (json_equal(json_object_get(child, "name"), json_object_get(node, "name")) &&
		    json_equal(json_object_get(child, "kind"), json_object_get(node, "kind")) &&
		    strcmp(client_text(child, "library"), library) == 0)
			break;
	}
	if (i == json_array_size(children)) {
		child =
		    json_pack("{s:O, s:O, s:s, s:f, s:f, s:[]}", "name",
		              json_object_get(node, "name"), "kind", json_object_get(node, "kind"),
		              "library", library, "ns", 0.0, "baseline_ns", 0.0, "children");
		json_array_append_new(children, child);
	}
	for (i = 0; i < 2; i++)
		json_object_set_new(
		    child, sums[i],
		    json_real(client_real(child, sums[i]) + client_real(node, sums[i])));
	return child;
}

/* Adds the children of `from` to `into`. Frames of libraries are passed by: what lies below them is
 * their caller's, and a leaf tells the outermost (`library`). */
static void
add_own(json_t *into, const json_t *from, const char *library)
{
	const json_t *child;
	size_t i;

	json_array_foreach(json_object_get(from, "children"), i, child)
	{
		bool leaf = is_leaf(child);

		if (leaf || json_is_true(json_object_get(child, "in_app")))
			add_own(same_child(into, child, library), child, "");
		else
			add_own(into, child,
			        *library != '\0' ? library : client_text(child, "name"));
	}
}

/* --- drawing ------------------------------------------------------------------ */

/* Grew: red. Shrank: blue. New: magenta. */
static enum term_color
change_color(const struct drawing *d, double before, double after)
{
	if (!d->compared || fabs(after - before) < SHARE_LEAST * d->total_ns)
		return TERM_GREEN;
	return before == 0 ? TERM_MAGENTA : after > before ? TERM_RED : TERM_BLUE;
}

static void
node_note(const struct drawing *d, const json_t *node, char *buf, size_t size)
{
	const char *library = client_text(node, "library");
	double before = client_real(node, "baseline_ns"), after = client_real(node, "ns");
	char delta[TERM_DURATION_SIZE + 2] = "";

	if (d->compared && fabs(after - before) >= SHARE_LEAST * d->total_ns)
		client_delta_text(d->table.term, after - before, delta, sizeof(delta));
	snprintf(buf, size, "%s%s%s", delta, *delta != '\0' && *library != '\0' ? "  " : "",
	         library);
}

static void
node_print(const struct drawing *d, const json_t *node, unsigned depth, uint64_t from_ns)
{
	double before = client_real(node, "baseline_ns"), after = client_real(node, "ns");
	const char *kind = json_string_value(json_object_get(node, "kind"));
	const char *name = client_text(node, "name");
	char label[256], note[256];
	struct table_row row = {
	    .indent = depth * 2 < INDENT_MAX ? depth * 2 : INDENT_MAX,
	    .label = label,
	    .label_color = kind == NULL ? TERM_PLAIN : TERM_DIM,
	    .note = note,
	    .ns = (uint64_t)llround(after),
	    .from_ns = from_ns,
	    .bar_color = change_color(d, before, after),
	    .bar = true,
	    .light = kind != NULL,
	};

	if (kind != NULL && strcmp(kind, name) != 0)
		snprintf(label, sizeof(label), "%s %s", kind, name);
	else
		snprintf(label, sizeof(label), "%s", name);
	node_note(d, node, note, sizeof(note));
	table_row(&d->table, &row);
}

static int
largest_first(const void *a, const void *b)
{
	const json_t *const *x = a, *const *y = b;
	double p = fmax(client_real(*x, "ns"), client_real(*x, "baseline_ns"));
	double q = fmax(client_real(*y, "ns"), client_real(*y, "baseline_ns"));

	return (p < q) - (p > q);
}

/* Children lie side by side on the axis, from where their parent begins. */
static void
tree_print(const struct drawing *d, const json_t *node, unsigned depth, uint64_t from_ns)
{
	const json_t *children = json_object_get(node, "children");
	size_t count = json_array_size(children);
	const json_t **order = xcalloc(count + 1, sizeof(*order));

	for (size_t i = 0; i < count; i++)
		order[i] = json_array_get(children, i);
	qsort(order, count, sizeof(*order), largest_first);
	for (size_t i = 0; i < count; i++) {
		double before = client_real(order[i], "baseline_ns"),
		       after = client_real(order[i], "ns");

		if (fmax(before, after) < SHARE_LEAST * d->total_ns)
			continue;
		node_print(d, order[i], depth, from_ns);
		tree_print(d, order[i], depth + 1, from_ns); /* as deep as a stack: 64 */
		from_ns += (uint64_t)llround(after);
	}
	free(order);
}

/* --- what made the difference ----------------------------------------------- */

/* Where the label ends if times before and now stand behind it, as on wide terminals. */
static unsigned
row_begin(const struct term *term)
{
	return term->columns - (term->columns >= ROWS_CERTAIN ? ROW_COLUMNS : ROW_COLUMNS_LEAST);
}

static void
row_print(const struct term *term, const json_t *row)
{
	const char *verdict = json_string_value(json_object_get(row, "verdict"));
	char text[512];
	struct term_line line;
	unsigned begin = row_begin(term);

	term_line_begin(&line, term);
	if (term->columns >= ROWS_WIDE) {
		client_put_row_label(&line, begin, row);
		client_put_duration(&line, begin + 10, json_object_get(row, "baseline_ns"));
		client_put_duration(&line, begin + 20, json_object_get(row, "ns"));
	} else {
		client_put_row_label(&line, begin + 20, row);
	}
	client_delta_text(term, client_real(row, "delta_ns"), text, sizeof(text));
	term_line_right(&line, client_real(row, "delta_ns") < 0 ? TERM_BLUE : TERM_RED, begin + 31,
	                text);
	snprintf(text, sizeof(text), "%.0f%%", 100 * client_real(row, "share"));
	term_line_right(&line, TERM_PLAIN, begin + 38, text);
	if (json_is_number(json_object_get(row, "share_low")) && term->columns >= ROWS_CERTAIN) {
		snprintf(text, sizeof(text), "%.0f to %.0f", 100 * client_real(row, "share_low"),
		         100 * client_real(row, "share_high"));
		term_line_right(&line, TERM_DIM, begin + 49, text);
	}
	if (verdict != NULL && term->columns >= ROWS_CERTAIN) {
		term_line_pad(&line, begin + 51);
		term_line_text(&line, TERM_DIM, 20, verdict);
	}
	term_line_end(&line);
}

static void
rows_print(const struct term *term, const json_t *root)
{
	static const char *const names[] = {
	    "WHAT MADE THE DIFFERENCE", "BEFORE", "NOW", "CHANGE", "SHARE", "90 %"};
	static const char *const few[] = {"WHAT MADE THE DIFFERENCE", "CHANGE", "SHARE", "90 %"};
	unsigned begin = row_begin(term);
	const unsigned columns[6] = {begin,      begin + 10, begin + 20,
	                             begin + 31, begin + 38, begin + 49};
	const json_t *row;
	size_t i;

	fputc('\n', term->out);
	if (term->columns >= ROWS_WIDE)
		client_put_heading(term, begin, names, columns, 6);
	else
		client_put_heading(term, begin + 20, few, columns + 2,
		                   term->columns >= ROWS_CERTAIN ? 4 : 3);
	json_array_foreach(json_object_get(root, "rows"), i, row)
	{
		if (i >= ROWS_SHOWN || json_number_value(json_object_get(row, "delta_ns")) == 0)
			break;
		row_print(term, row);
	}
}

/* --- the whole ---------------------------------------------------------------- */

/* Against nothing everything would have grown. */
static bool
is_comparable(const json_t *baseline)
{
	return json_is_object(baseline) && client_real(baseline, "requests") > 0;
}

static void
head_print(const struct term *term, const json_t *root, const json_t *baseline)
{
	const json_t *tree = json_object_get(root, "tree");
	double before = client_real(tree, "baseline_ns"), after = client_real(tree, "ns");
	char mean[TERM_DURATION_SIZE], was[TERM_DURATION_SIZE];
	struct term_line line;

	term_line_begin(&line, term);
	term_line_text(&line, TERM_BOLD, term->columns / 2, client_text(root, "route"));
	term_line_printf(&line, TERM_PLAIN, "  %.0f requests, mean %s",
	                 client_real(root, "requests"),
	                 term_duration(term, (uint64_t)llround(after), mean));
	if (json_is_object(baseline) && term->columns < NARROW) {
		term_line_end(&line);
		term_line_begin(&line, term);
	}
	if (is_comparable(baseline))
		term_line_printf(&line, TERM_PLAIN, "%sbefore %.0f, mean %s",
		                 term->columns < NARROW ? "" : "; ",
		                 client_real(baseline, "requests"),
		                 term_duration(term, (uint64_t)llround(before), was));
	else if (json_is_object(baseline))
		term_line_printf(&line, TERM_YELLOW, "%sno request before: nothing to compare",
		                 term->columns < NARROW ? "" : "; ");
	term_line_end(&line);
}

static void
coverage_print(const struct term *term, const json_t *root)
{
	const json_t *coverage = json_object_get(root, "coverage");
	const json_t *ratio = json_object_get(coverage, "joined_ratio");
	struct term_line line;

	if (!json_is_number(ratio))
		return;
	term_line_begin(&line, term);
	term_line_printf(&line, TERM_DIM, "profiles of %.1f%%, %.0f lost, %.1f%% estimated",
	                 100 * json_number_value(ratio), client_real(coverage, "dropped"),
	                 100 * client_real(coverage, "estimated_share"));
	term_line_end(&line);
}

static void
flame_print(const json_t *root)
{
	const json_t *tree = json_object_get(root, "tree");
	const json_t *baseline = json_object_get(root, "baseline");
	struct drawing d = {.compared = is_comparable(baseline)};
	struct term term;

	term_init(&term, stdout);
	head_print(&term, root, baseline);
	coverage_print(&term, root);
	if (client_real(root, "requests") == 0) {
		fputs("nothing came in this time\n", stdout);
		return;
	}
	d.total_ns = fmax(client_real(tree, "ns"), client_real(tree, "baseline_ns"));
	table_layout(&d.table, &term, (uint64_t)llround(d.total_ns));
	fputc('\n', stdout);
	table_axis(&d.table, "mean per request", NULL);
	json_t *own = json_pack("{s:[]}", "children");
	add_own(own, tree, "");
	tree_print(&d, own, 0, 0);
	json_decref(own);
	if (d.compared)
		rows_print(&term, root);
}

/* The ID of a route that the gateway knows by name; 0 after saying that there is none. */
static json_int_t
route_id(const struct client_options *options, const char *name, int *ret_status)
{
	struct client_options plain = *options;
	const json_t *route;
	json_int_t id = 0;
	size_t i;

	plain.json = false;
	json_t *root = client_ask_object(&plain, "/api/v1/routes?window=31d", ret_status);
	if (root == NULL)
		return 0;
	json_array_foreach(json_object_get(root, "routes"), i, route)
	{
		if (strcmp(client_text(route, "route"), name) == 0)
			id = json_integer_value(json_object_get(route, "id"));
	}
	json_decref(root);
	if (id == 0)
		fprintf(stderr,
		        "tailrace: no route is named \"%s\" (`tailrace routes` lists them)\n",
		        name);
	*ret_status = EXIT_FAILURE;
	return id;
}

int
client_flame(const struct client_options *options)
{
	char path[CLIENT_PATH_BYTES_MAX];
	struct spans spans;
	int status;

	if (!spans_of(options, &spans))
		return EXIT_USAGE;
	json_int_t id = route_id(options, options->operands[0], &status);
	if (id == 0)
		return status;
	int n = snprintf(path, sizeof(path), "/api/v1/routes/%lld/flame?from=%llu&to=%llu",
	                 (long long)id, (unsigned long long)spans.from_s,
	                 (unsigned long long)spans.to_s);
	if (spans.baseline_to_s > 0)
		snprintf(path + n, sizeof(path) - (size_t)n, "&baseline_from=%llu&baseline_to=%llu",
		         (unsigned long long)spans.baseline_from_s,
		         (unsigned long long)spans.baseline_to_s);
	json_t *root = client_ask_object(options, path, &status);
	if (root == NULL)
		return status;
	flame_print(root);
	json_decref(root);
	return EXIT_SUCCESS;
}
