/* GET /api/v1/routes/{id}/flame: what a route's mean time is made of, and what made it differ from
 * that of another span. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/xmem.h"
#include "collector/query_answer.h"
#include "collector/query_history.h"
#include "model/cause.h"

#define NODE_LEAST 10000 /* a node of less than this part of the whole is left out */

/* Sums over both spans: [0] before, [1] after. */
struct node {
	struct node *children, *next; /* owned */
	uint64_t key;                 /* of the frame; leaf: kind and cause */
	char *name;                   /* owned */
	const char *kind;             /* leaf */
	bool in_app;
	uint64_t ns[2], count[2];
};

struct flame_answer {
	struct query_reader reader;
	struct query_blocks blocks[2];
	struct rollup *sums[2];
	struct cause *cause;
	bool has_before;
};

/* --- the tree --------------- */

static struct node *
child_of(struct node *parent, uint64_t key, const char *kind, bool *ret_new)
{
	struct node *node;
	*ret_new = false;
	for (node = parent->children; node != NULL; node = node->next)
		if (node->key == key && (node->kind == NULL) == (kind == NULL))
			return node;
	node = xcalloc(1, sizeof(*node));
	node->key = key;
	node->kind = kind;
	node->next = parent->children;
	parent->children = node;
	*ret_new = true;
	return node;
}

static struct node *
frame_child(struct node *parent, const struct flame_frame *frame)
{
	bool new;
	char name[2 * PROFILE_STRING_MAX + 2];
	struct node *node =
	    child_of(parent, flame_key(0, frame->module, frame->function), NULL, &new);
	if (new) {
		snprintf(name, sizeof(name), "%s:%s", frame->module, frame->function);
		node->name = xstrdup(name);
	}
	node->in_app = frame->in_app;
	return node;
}

static struct node *
leaf_child(struct node *parent, const struct rollup_key *key)
{
	bool new;
	unsigned kind = key->kind == ROLLUP_PHASE_ALONE ? ROLLUP_PHASE : key->kind;
	const char *cause = rollup_cause_name(key);
	struct node *node =
	    child_of(parent, (uint64_t)kind << 8 | key->cause, rollup_kind_name(kind), &new);
	if (new)
		node->name = xstrdup(cause != NULL ? cause : rollup_kind_name(kind));
	return node;
}

static void
node_add(struct node *node, const struct rollup_row *row, size_t side)
{
	node->ns[side] += row->ns;
	node->count[side] += row->count;
}

static void
tree_add(struct node *root, const struct rollup_row *row, size_t side, const struct flame *names)
{
	struct node *node = root;
	size_t depth = flame_depth(names, row->key.stack);
	bool held = row->key.kind == ROLLUP_PHASE && depth > 0;
	node_add(node, row, side);
	if (held) { /* the frames are of who held the loop: they stand below the phase */
		node = leaf_child(node, &row->key);
		node_add(node, row, side);
	}
	for (size_t i = 0; i < depth; i++) {
		struct flame_frame frame = flame_frame(names, row->key.stack, i);
		node = frame_child(node, &frame);
		node_add(node, row, side);
	}
	if (!held)
		node_add(leaf_child(node, &row->key), row, side);
}

static void
node_free(struct node *node)
{
	while (node->children != NULL) {
		struct node *child = node->children;
		node->children = child->next;
		node_free(child); /* as deep as a stack: 64 */
	}
	free(node->name);
	free(node);
}

static json_int_t
per_request(uint64_t sum, uint64_t requests)
{
	return requests > 0 ? (json_int_t)(sum / requests + (sum % requests >= (requests + 1) / 2))
	                    : 0;
}

static int
largest_first(const void *a, const void *b)
{
	const struct node *const *x = a, *const *y = b;
	uint64_t p = (*x)->ns[0] > (*x)->ns[1] ? (*x)->ns[0] : (*x)->ns[1];
	uint64_t q = (*y)->ns[0] > (*y)->ns[1] ? (*y)->ns[0] : (*y)->ns[1];
	return p == q ? strcmp((*x)->name, (*y)->name) : p < q ? 1 : -1;
}

static json_t *node_object(const struct flame_answer *a, const struct node *root,
                           const struct node *node);

static json_t *
children_array(const struct flame_answer *a, const struct node *root, const struct node *node)
{
	json_t *array = json_array();
	size_t count = 0, at = 0;
	for (const struct node *child = node->children; child != NULL; child = child->next)
		count++;
	const struct node **order = xcalloc(count + 1, sizeof(*order));
	for (const struct node *child = node->children; child != NULL; child = child->next)
		order[at++] = child;
	qsort(order, count, sizeof(*order), largest_first);
	for (size_t i = 0; i < count; i++)
		if (order[i]->ns[0] > root->ns[0] / NODE_LEAST ||
		    order[i]->ns[1] > root->ns[1] / NODE_LEAST)
			json_array_append_new(array, node_object(a, root, order[i]));
	free(order);
	return array;
}

static json_t *
node_object(const struct flame_answer *a, const struct node *root, const struct node *node)
{
	uint64_t before = a->sums[0]->requests, after = a->sums[1]->requests;
	return json_pack(
	    "{s:s, s:s?, s:b, s:I, s:o, s:I, s:o, s:o}", "name", node->name, "kind", node->kind,
	    "in_app", node->in_app, "ns", per_request(node->ns[1], after), "baseline_ns",
	    a->has_before ? json_integer(per_request(node->ns[0], before)) : json_null(), "count",
	    (json_int_t)node->count[1], "baseline_count",
	    a->has_before ? json_integer((json_int_t)node->count[0]) : json_null(), "children",
	    children_array(a, root, node));
}

static json_t *
tree(const struct flame_answer *a)
{
	struct node *root = xcalloc(1, sizeof(*root));
	root->name = xstrdup(a->reader.route);
	for (size_t side = 0; side < 2; side++)
		for (size_t i = 0; i < a->sums[side]->row_count; i++)
			tree_add(root, &a->sums[side]->rows[i], side, a->reader.names);
	json_t *object = node_object(a, root, root);
	node_free(root);
	return object;
}

/* --- rows --------------- */

static json_t *
parsed(const char *json)
{
	json_t *value = json_loads(json, 0, NULL);
	return value != NULL ? value : json_array();
}

static json_t *
row_object(const struct flame_answer *a, size_t at)
{
	const struct cause_row *row = &a->cause->rows[at];
	/* Without a baseline what is compared with is nothing: the delta is the row itself. */
	json_int_t ns = a->has_before ? (json_int_t)llround(row->after_ns) : row->delta_ns;
	json_t *object = json_pack("{s:s, s:s?, s:s?, s:o, s:I, s:f}", "kind", row->kind_name,
	                           "cause", row->cause_name, "frame", row->frame, "stack",
	                           parsed(row->stack), "ns", ns, "count", row->after_count);
	if (!a->has_before) {
		static const char *const keys[] = {"baseline_ns", "baseline_count", "delta_ns",
		                                   "share",       "share_low",      "share_high",
		                                   "verdict"};
		for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			json_object_set_new(object, keys[i], json_null());
		return object;
	}
	/* One block drawn again and again says nothing of how sure a share is. */
	bool drawn = a->cause->before_blocks > 1 && a->cause->after_blocks > 1;
	json_t *compared =
	    json_pack("{s:I, s:f, s:I, s:f, s:o, s:o, s:s?}", "baseline_ns",
	              (json_int_t)llround(row->before_ns), "baseline_count", row->before_count,
	              "delta_ns", (json_int_t)row->delta_ns, "share", row->share, "share_low",
	              drawn ? json_real(row->share_low) : json_null(), "share_high",
	              drawn ? json_real(row->share_high) : json_null(), "verdict",
	              at == 0 ? cause_verdict_name(a->cause->verdict) : NULL);
	json_object_update(object, compared);
	json_decref(compared);
	return object;
}

static int
longest_first(const void *a, const void *b)
{
	const json_t *const *x = a, *const *y = b;
	json_int_t p = json_integer_value(json_object_get(*x, "ns"));
	json_int_t q = json_integer_value(json_object_get(*y, "ns"));
	return (p < q) - (p > q);
}

/* What adds most to the growth first; without a baseline what takes longest. */
static json_t *
rows(const struct flame_answer *a)
{
	size_t count = a->cause->row_count;
	json_t *array = json_array(), **order = xcalloc(count + 1, sizeof(json_t *));
	for (size_t i = 0; i < count; i++)
		order[i] = row_object(a, i);
	if (!a->has_before)
		qsort(order, count, sizeof(json_t *), longest_first);
	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, order[i]);
	free(order);
	return array;
}

static json_t *
moved(const struct cause *c)
{
	json_t *array = json_array();
	for (size_t i = 0; i < c->moved_count; i++)
		json_array_append_new(array, json_pack("{s:o, s:o, s:I, s:I}", "from",
		                                       parsed(c->moved[i].from), "to",
		                                       parsed(c->moved[i].to), "baseline_ns",
		                                       (json_int_t)c->moved[i].from_ns, "ns",
		                                       (json_int_t)c->moved[i].to_ns));
	return array;
}

/* --- the whole --------------- */

static json_t *
coverage(const struct rollup *r)
{
	return json_pack("{s:I, s:I, s:I, s:o, s:f}", "sent", (json_int_t)r->sent, "joined",
	                 (json_int_t)r->joined, "dropped", (json_int_t)r->dropped, "joined_ratio",
	                 r->sent > 0 ? json_real((double)r->joined / (double)r->sent) : json_null(),
	                 "estimated_share",
	                 r->joined_ns > 0 ? (double)r->estimated_ns / (double)r->joined_ns : 0.0);
}

static json_t *
baseline(const struct flame_answer *a)
{
	const struct query_history *h = &a->reader.job->history;
	if (!a->has_before)
		return json_null();
	return json_pack("{s:I, s:I, s:I, s:I, s:o}", "from", (json_int_t)h->before.from_s, "to",
	                 (json_int_t)h->before.to_s, "requests", (json_int_t)a->sums[0]->requests,
	                 "joined", (json_int_t)a->sums[0]->joined, "coverage",
	                 coverage(a->sums[0]));
}

static void
answer(struct query_job *job, const struct flame_answer *a)
{
	const struct query_history *h = &job->history;
	json_t *root = json_pack(
	    "{s:I, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "id",
	    (json_int_t)h->route_id, "route", a->reader.route, "from", (json_int_t)h->span.from_s,
	    "to", (json_int_t)h->span.to_s, "requests", (json_int_t)a->sums[1]->requests, "joined",
	    (json_int_t)a->sums[1]->joined, "coverage", coverage(a->sums[1]), "baseline",
	    baseline(a), "growth_ns",
	    a->has_before ? json_integer((json_int_t)a->cause->growth_ns) : json_null(), "rows",
	    rows(a), "tree", tree(a), "moved", a->has_before ? moved(a->cause) : json_array());
	query_answer_json(job, 200, root);
}

static struct rollup *
sum_of(const struct query_blocks *blocks)
{
	struct rollup *sum = rollup_new();
	for (size_t i = 0; i < blocks->count; i++)
		rollup_merge(sum, blocks->blocks[i]);
	return sum;
}

/* At most ROLLUP_ROWS_MAX rows a side, and alike on both. */
static void
sums_make(struct flame_answer *a)
{
	struct rollup_parents parents = query_reader_parents(&a->reader);
	for (size_t side = 0; side < 2; side++) {
		a->sums[side] = sum_of(&a->blocks[side]);
		rollup_fold(a->sums[side], ROLLUP_ROWS_MAX, &parents);
	}
	if (a->has_before)
		cause_fold_both(a->sums[0], a->sums[1], a->reader.names);
}

static void
compute(struct query_job *job, struct flame_answer *a)
{
	const struct cause_options options = {.all = true, .seed = 1};
	struct cause_side sides[2] = {{a->blocks[0].blocks, a->blocks[0].count},
	                              {a->blocks[1].blocks, a->blocks[1].count}};
	sums_make(a);
	a->cause = cause_compute(&sides[0], &sides[1], &options, a->reader.names);
	answer(job, a);
	cause_free(a->cause);
	rollup_free(a->sums[0]);
	rollup_free(a->sums[1]);
}

int
query_answer_flame(sqlite3 *db, struct query_job *job, uint64_t now_wall_ns)
{
	struct flame_answer a = {.has_before = job->history.has_before};
	bool found;
	int result = query_reader_open(&a.reader, db, job, now_wall_ns / NS_PER_S, &found);
	if (result == SQLITE_OK && !found) {
		query_answer_error(job, 404, "not_found", "no route has this id");
		query_reader_close(&a.reader);
		return SQLITE_OK;
	}
	if (result == SQLITE_OK && a.has_before)
		result = query_blocks_load(&a.reader, &job->history.before, &a.blocks[0]);
	if (result == SQLITE_OK)
		result = query_blocks_load(&a.reader, &job->history.span, &a.blocks[1]);
	if (result == SQLITE_OK)
		compute(job, &a);
	query_blocks_free(&a.blocks[0]);
	query_blocks_free(&a.blocks[1]);
	query_reader_close(&a.reader);
	return result;
}
